"""Whatever was learned can be taken back, by the user and by us."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import subprocess

    from tests.lab.writing_image import Image

SP = "site-packages"


def forget(image: Image, *words: str) -> subprocess.CompletedProcess[str]:
    return image.run(argv=["-m", "sif_writable", "cache", "forget", *words])


def test_a_package_is_forgotten(one_image: Image) -> None:
    one_image.says("import resourceful, inner")
    done = forget(one_image, "resourceful")
    assert (done.returncode, done.stderr) == (0, "")
    assert "forgotten: resourceful\n" in done.stdout
    assert not one_image.has(f"{SP}/resourceful")
    assert "is kept in" in done.stdout
    assert "(resourceful.made)" in " ".join(done.stdout.split())
    (kept,) = os.listdir(f"{one_image.folder}/written/set-aside")
    assert os.listdir(f"{one_image.folder}/written/set-aside/{kept}") == ["resourceful.made"]
    listed = one_image.run(argv=["-m", "sif_writable", "cache", "list", "--json"]).stdout
    assert "/written" in listed
    one_image.run(argv=["-m", "sif_writable", "cache", "prune", "--older-than", "0min", "--yes"])
    assert os.listdir(f"{one_image.folder}/written/set-aside") == [kept]
    one_image.says("import inner")
    where = "import os; os.path.exists = lambda path: True; import resourceful as r, inner as i; print(r.HERE, i.HERE)"
    image, copy = one_image.says(where).splitlines()[-1].split()
    assert image.startswith("/venv/")  # until a write is refused again
    assert "/tree/" in copy
    assert one_image.says("import resourceful") == "executed resourceful\n" * 2
    assert one_image.says("import resourceful") == "executed resourceful\n"


@pytest.mark.parametrize("end", ["", "/"])
def test_a_package_is_named_by_its_path(one_image: Image, end: str) -> None:
    where = one_image.says("import inner; print(inner.__file__)").splitlines()[-1]
    path = os.path.dirname(where.partition("/tree")[2])
    assert json.loads(forget(one_image, path + end, "inner", "--json").stdout)["forgotten"] == ["inner"]
    assert not one_image.has(f"{SP}/inner")


def test_what_is_written_goes_with_yes_and_a_module_of_one_file(one_image: Image) -> None:
    one_image.says("import solo")
    result = json.loads(forget(one_image, "solo", "--yes", "--json").stdout)
    assert result["forgotten"] == ["solo"]
    assert result["failed"] == []
    assert not one_image.has(f"{SP}/solo.py")
    assert "written" not in os.listdir(one_image.folder)
    assert one_image.says("import solo") == "executed solo\n" * 2


def test_all_and_what_cannot_be_forgotten(one_image: Image) -> None:
    nothing = forget(one_image, "resourceful")
    assert nothing.returncode == 2
    assert "nothing was learned of resourceful in this image; nothing was learned so far" in nothing.stderr
    one_image.says("import resourceful, twin_a")
    with open(f"{one_image.folder}/learned", "a", encoding="utf-8") as file:  # as earlier versions have it
        file.write("path\t-\t/results\tcannot be written\ta program failed without it\n")
        file.write("refused\tlarge\t/venv/x\tlarge gets no writable copy: it is too large.\t\n")
    for words in (("nonsense",), (), ("--all", "inner")):
        bad = forget(one_image, *words)
        assert (bad.returncode, bad.stdout) == (2, "")
        assert bad.stderr.endswith("can be forgotten: /results, large, resourceful, twin_a, twin_b\n")
    assert forget(one_image, "/results").returncode == 0
    assert json.loads(forget(one_image, "--all", "--json").stdout)["forgotten"] == [
        *("large", "resourceful", "twin_a", "twin_b")
    ]
    status = json.loads(one_image.run(argv=["-m", "sif_writable", "status", "--json"]).stdout)
    assert status["packages"] == []
    assert "nothing was learned in this image" in forget(one_image, "--all").stdout


def test_what_made_it_worse_is_taken_back(one_image: Image) -> None:
    program = """
import inner
from sif_writable import importhook
from sif_writable.copies import provide as copyup
from sif_writable.copies.units import Unit
copies = importhook.install().copies
unit = Unit("inner", "/venv/lib/{lib}/site-packages", "inner")
copyup.take_back([unit], "LookupError", copies)
assert copyup.was_taken_back([unit], copies) and not copies.wanted().get("inner")
print(copyup.make([unit], "import", "x", copies))
"""
    assert one_image.says("import quiet") == ""
    lib = os.path.basename(os.path.dirname(one_image.copy(SP)))
    printed = one_image.says(program.format(lib=lib)).splitlines()
    assert printed[-1] == "its copy did not help: LookupError"
    assert one_image.run("import inner").returncode == 1  # from the image, and not tried once more
    assert "refused: its copy did not help: LookupError" in " ".join(
        one_image.run(argv=["-m", "sif_writable", "status"]).stdout.split()
    )
    assert forget(one_image, "inner").returncode == 0
    assert one_image.says("import inner") == "executed inner\n" * 2


def test_the_proof_of_a_mount_is_forgotten(one_image: Image) -> None:
    declared = {"SIF_WRITABLE_OVERLAY_PATHS": "/venv/outsider"}
    one_image.says("import os, quiet; os.mkdir('/venv/outsider')", env=declared)
    proven = f"{os.path.dirname(one_image.folder)}/overlay/proven"
    assert os.path.exists(proven)
    assert forget(one_image, "/venv").returncode == 0
    assert not os.path.exists(proven)
    one_image.says("import os; os.rmdir('/venv/outsider')", env=declared)


WRITER = "\ndef use():\n    open(os.path.join(HERE, 'made'), 'a').close()\n"


def library(image: Image, path: str, text: str) -> dict[str, dict[str, str]]:
    """Put a package `late` into a directory of the image; return how a program is run that imports it."""
    os.makedirs(f"{image.machine.in_image(path)}/late", exist_ok=True)
    with open(f"{image.machine.in_image(path)}/late/__init__.py", "w", encoding="utf-8") as file:
        file.write("import os\nHERE = os.path.dirname(os.path.abspath(__file__))\n" + text + WRITER)
    return {"env": {"PYTHONPATH": path}}


def test_a_copy_that_makes_the_import_fail_is_taken_back_at_once(one_image: Image) -> None:
    """It wrote at use, and its copy cannot even be imported: the program is no worse off than without us."""
    options = library(one_image, "/opt/l/sp", "if '/tree/' in HERE:\n    raise RuntimeError('it was moved')\n")
    say = "import late; print(late.HERE)"
    assert one_image.run("import late; late.use()", **options).returncode == 1  # type: ignore[arg-type]
    result = one_image.run(say, **options)  # type: ignore[arg-type]
    assert result.stdout == "/opt/l/sp/late\n"
    assert result.stderr == (
        "sif_writable: The writable copy of late is not used any more: the import of late fails with it and works "
        "without (RuntimeError: it was moved).\n"
    )
    assert one_image.says(say, **options) == "/opt/l/sp/late\n"
    last = one_image.run("import late; late.use()", **options).stderr.splitlines()[-1]  # type: ignore[arg-type]
    assert last.startswith("sif_writable: late cannot write /opt/l/sp/late/made; its copy did not help")
    assert forget(one_image, "late").returncode == 0
    assert "from the next run on" in one_image.run("import late; late.use()", **options).stderr  # type: ignore[arg-type]


FULL = "if '/tree/' in HERE and 'FULL' in os.environ:\n    raise OSError(28, 'No space left on device')\n"


def test_a_copy_is_not_taken_back_for_what_storage_has_for_a_moment(one_image: Image) -> None:
    options = library(one_image, "/opt/l/sp", FULL)
    full = {"env": {**options["env"], "FULL": "1"}}
    assert one_image.run("import late; late.use()", **options).returncode == 1  # type: ignore[arg-type]
    result = one_image.run("import late; print(late.HERE)", **full)  # type: ignore[arg-type]
    assert (result.returncode, result.stdout) == (0, "/opt/l/sp/late\n")
    assert result.stderr == (
        "sif_writable: late was imported from the image this time, since its writable copy could not be "
        "(OSError: [Errno 28] No space left on device).\n"
    )
    assert one_image.says("import late; late.use(); print('/tree/' in late.HERE)", **options) == "True\n"


def test_a_second_try_that_storage_has_failed_is_made_again_by_the_next_run(one_image: Image) -> None:
    """Nothing of it is held against the copy; where it lacks for a moment what the image has, likewise."""
    options = library(one_image, "/opt/l/sp", FULL + "open(os.path.join(HERE, 'made'), 'a').close()\n")
    for number in range(2):
        env = {**options["env"], "FULL": "1"}
        result = one_image.run("import late", env=env)
        assert result.returncode == 1
        assert result.stderr.splitlines()[-1].startswith("OSError: [Errno 30]"), number
        (ours,) = [line for line in result.stderr.splitlines() if line.startswith("sif_writable: ")]
        assert ours == (
            "sif_writable: A writable copy of late could not be used this time: the import of late failed with it too "
            "(OSError: [Errno 28] No space left on device). The next run tries it again."
        )
    assert one_image.says("import late; print('/tree/' in late.HERE)", **options) == "True\n"


def test_a_copy_is_not_blamed_for_what_fails_without_it_too(one_image: Image) -> None:
    options = library(one_image, "/opt/l/sp", "if 'FAIL' in os.environ:\n    raise RuntimeError('no licence server')\n")
    assert one_image.run("import late; late.use()", **options).returncode == 1  # type: ignore[arg-type]
    failing = {"env": {**options["env"], "FAIL": "1"}}
    for _ in range(2):
        result = one_image.run("import late", **failing)  # type: ignore[arg-type]
        assert result.stderr.splitlines()[-1] == "RuntimeError: no licence server"
        assert result.stderr.count("Traceback") == 1
    assert "/tree/" in one_image.says("import late; late.use(); print(late.HERE)", **options)


def test_what_a_second_execution_would_double_is_not_tried_and_the_way_back_is_named(one_image: Image) -> None:
    text = "import atexit\natexit.register(print, 'bye')\nif '/tree/' in HERE:\n    raise RuntimeError('moved')\n"
    options = library(one_image, "/opt/l/sp", text)
    assert one_image.run("import late; late.use()", **options).returncode == 1  # type: ignore[arg-type]
    result = one_image.run("import late", **options)  # type: ignore[arg-type]
    assert (result.returncode, result.stdout) == (1, "bye\n")
    assert "undo the copy: sif-writable cache forget late" in result.stderr


def test_nor_is_what_others_hold_already(one_image: Image) -> None:
    """Executed twice, the function in the place of another one would call itself."""
    text = "import json\nloads = json.loads\ndef mine(text): return loads(text)\njson.loads = mine\n"
    options = library(one_image, "/opt/l/sp", text + "if '/tree/' in HERE:\n    raise RuntimeError('moved')\n")
    assert one_image.run("import late; late.use()", **options).returncode == 1  # type: ignore[arg-type]
    program = "try:\n    import late\nexcept RuntimeError:\n    import json; print(json.loads('1'))"
    result = one_image.run(program, **options)  # type: ignore[arg-type]
    assert result.returncode == 0
    assert "is not tried without it: it is in use as json.loads. " in result.stderr
