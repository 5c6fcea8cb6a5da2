"""A copy is used for as long as the image has what it was made from, and only where the original is the image's."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.lab.writing_image import Image

WRITES = """
import os
HERE = os.path.dirname(os.path.abspath(__file__))
VALUE = {value}
if not os.path.exists(HERE + '/made-{value}'):
    open(HERE + '/made-{value}', 'w').close()
"""
SAY = "import fresh; print(fresh.VALUE, '/tree/' in fresh.__file__)"


def _write(folder: str, value: int, name: str = "fresh/__init__.py") -> str:
    """Write a package that writes into its directory at import; always of one size and one time, as some builds do."""
    path = os.path.join(folder, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(WRITES.format(value=value))
    os.utime(path, (1_600_000_000, 1_600_000_000))
    os.utime(os.path.dirname(path), (1_600_000_000, 1_600_000_000))
    return path


def _options(folder: str = "/opt/l/sp") -> dict[str, dict[str, str]]:
    return {"env": {"PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1"}}


def _set_aside(image: Image) -> list[str]:
    place = f"{image.folder}/written/set-aside"
    found = [os.path.join(where, name)[len(place) + 1 :] for where, _, names in os.walk(place) for name in names]
    return sorted(name.partition("/")[2] for name in found)


def test_an_image_that_was_rebuilt_with_new_code_gets_a_new_copy(one_image: Image) -> None:
    library = one_image.machine.in_image("/opt/l/sp")
    _write(library, 1)
    for _ in range(2):
        assert one_image.says(SAY, **_options()) == "1 True\n"
    _write(library, 2)
    result = one_image.run(SAY, **_options())  # type: ignore[arg-type]
    assert result.stdout == "2 True\n"
    assert result.stderr.startswith("sif_writable: fresh has changed in the image since its writable copy was made")
    assert result.stderr.endswith(" (made-1)\n")
    assert _set_aside(one_image) == ["made-1"]
    assert one_image.says(SAY, **_options()) == "2 True\n"


def test_a_copy_that_nobody_wrote_to_is_replaced_without_a_word(one_image: Image) -> None:
    library = one_image.machine.in_image("/opt/l/sp")
    quiet = {**_options()["env"], "SIF_WRITABLE_PACKAGES": "fresh sole"}
    for value in (1, 2):
        for name in ("fresh/__init__.py", "sole.py"):
            with open(_write(library, value, name), "w", encoding="utf-8") as file:
                file.write(f"VALUE = {value}")
            os.utime(file.name, (1_600_000_000, 1_600_000_000))
        say = "import fresh, sole; print(fresh.VALUE, sole.VALUE, '/tree/' in sole.__file__)"
        assert one_image.says(say, env=quiet) == f"{value} {value} True\n"
    assert _set_aside(one_image) == []
    assert sorted(os.listdir(f"{one_image.folder}/stamps")) == ["opt%2Fl%2Fsp%2Ffresh", "opt%2Fl%2Fsp%2Fsole.py"]


def test_a_change_deep_in_a_package_that_an_installer_has_recorded(one_image: Image) -> None:
    library = one_image.machine.in_image("/opt/l/sp")
    _write(library, 1)
    record = f"{library}/fresh-1.0.dist-info/RECORD"
    os.makedirs(os.path.dirname(record))
    for value in (1, 2):
        deep = _write(library, value, "fresh/deep/er.py")
        with open(record, "w", encoding="utf-8") as file:
            file.write(f"fresh/__init__.py,sha256=0,1\nfresh/deep/er.py,sha256={value},1\n")
        for path in (record, os.path.dirname(record), os.path.dirname(deep), f"{library}/fresh", library):
            os.utime(path, (1_600_000_000, 1_600_000_000))
        say = SAY + "; print(open(fresh.HERE + '/deep/er.py').read().count('made-2'))"
        printed = one_image.run(say, **_options()).stdout  # type: ignore[arg-type]
        assert printed == f"1 True\n{(value - 1) * 2}\n"


@pytest.mark.parametrize("place", ["/opt/project", "/venv/lib/python3/project"])
def test_what_is_bound_is_never_copied(one_image: Image, place: str) -> None:
    """The user's project, a colleague's library: bound read-only, also below the prefix."""
    one_image.says("import inner")
    if place.startswith("/venv"):
        one_image.machine.in_image(place)
    library = one_image.places.new_folder("library")
    for value in (1, 2):
        _write(library, value)
        options = {**_options(place), "binds": [f"{library}:{place}:ro"]}
        for named in ({}, {"SIF_WRITABLE_PACKAGES": "fresh"}):
            env = {**options["env"], **named}  # type: ignore[dict-item]
            result = one_image.run("import fresh", env=env, binds=options["binds"])  # type: ignore[arg-type]
            assert result.returncode == 1
            assert "OSError: [Errno 30] Read-only file system" in result.stderr
            quiet = "import os, sys; os.path.exists = lambda path: True\n"
            assert one_image.says(quiet + SAY, env=env, binds=options["binds"]) == f"{value} False\n"
    assert not os.path.lexists(f"{one_image.folder}/tree{place}/fresh")
    assert f"{place} is bound in from the host" in one_image.learned()


def test_a_development_version_bound_over_a_package(one_image: Image) -> None:
    library = one_image.machine.in_image("/opt/l/sp")
    _write(library, 1)
    development = one_image.places.new_folder("development")
    _write(development, 2, "__init__.py")
    binds = [f"{development}:/opt/l/sp/fresh:ro"]
    quiet = "import os; os.path.exists = lambda path: True\n" + SAY
    assert one_image.says(quiet, **_options(), binds=binds) == "2 False\n"
    assert one_image.run(SAY, **_options(), binds=binds).returncode == 1  # type: ignore[arg-type]
    assert one_image.says(SAY, **_options()) == "1 True\n"  # unbound, and copied from the image
    assert one_image.says(quiet, **_options(), binds=binds) == "2 False\n"
    _write(development, 3, "__init__.py")
    assert one_image.says(quiet, **_options(), binds=binds) == "3 False\n"
    assert one_image.says(SAY, **_options()) == "1 True\n"


@pytest.mark.parametrize("copied_before", [False, True])
def test_a_package_with_a_bind_in_it_is_left_alone(one_image: Image, copied_before: bool) -> None:
    library = one_image.machine.in_image("/opt/l/sp")
    _write(library, 1)
    os.mkdir(f"{library}/fresh/data")
    if copied_before:
        assert one_image.says(SAY, **_options()) == "1 True\n"
    data = one_image.places.new_folder("data")
    binds = [f"{data}:/opt/l/sp/fresh/data"]
    result = one_image.run(SAY, **_options(), binds=binds)  # type: ignore[arg-type]
    assert result.returncode == 1
    assert result.stderr.endswith(
        "sif_writable: fresh gets no writable copy: /opt/l/sp/fresh/data in it is bound in from the host, which a copy "
        "would not follow. Remedy: leave out that bind, or bind a copy of the whole package, which can be written, to "
        "/opt/l/sp/fresh.\n"
    )
    assert os.path.lexists(f"{one_image.folder}/tree/opt/l/sp/fresh") == copied_before
    assert one_image.says(SAY, **_options()) == "1 True\n"


def test_a_copy_that_others_could_have_changed_is_not_imported(one_image: Image) -> None:
    library = one_image.machine.in_image("/opt/l/sp")
    _write(library, 1)
    one_image.says(SAY, **_options())
    copy = f"{one_image.folder}/tree/opt/l/sp/fresh"
    quiet = "import os; os.path.exists = lambda path: True\n" + SAY
    for path in (copy, f"{one_image.folder}/tree", one_image.folder):
        mode = os.stat(path).st_mode & 0o7777
        os.chmod(path, mode | 0o020)
        result = one_image.run(quiet, **_options())  # type: ignore[arg-type]
        assert result.stdout == "1 False\n"
        assert result.stderr.startswith("sif_writable: fresh is imported from the image: its copy ")
        os.chmod(path, mode)
    assert one_image.says(SAY, **_options()) == "1 True\n"
    if os.getuid() == 0:
        os.chown(copy, 12345, -1)
        assert one_image.run(quiet, **_options()).stdout == "1 False\n"  # type: ignore[arg-type]


def test_a_copy_of_which_it_is_not_known_what_it_was_made_from(one_image: Image) -> None:
    """An earlier version made it; what programs wrote to it since is kept."""
    library = one_image.machine.in_image("/opt/l/sp")
    _write(library, 1)
    one_image.says(SAY, **_options())
    shutil.rmtree(f"{one_image.folder}/stamps")
    result = one_image.run(SAY, **_options())  # type: ignore[arg-type]
    assert (result.stdout, _set_aside(one_image)) == ("1 True\n", ["made-1"])
    assert one_image.says(SAY, **_options()) == "1 True\n"
