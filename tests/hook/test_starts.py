"""Interpreters of one user that start while another user has been, or is, in the same shared folders."""

from __future__ import annotations

import os
import shutil
import stat
from typing import TYPE_CHECKING, Any

import pytest

from tests.lab.environments import PYTHON
from tests.lab.hooked import STATE, Hooked, question, write
from tests.lab.plain_machine import VENV, WORK
from tests.lab.users import NEIGHBOUR, VICTIM, as_user, busy, needs_two_users, owned_by

if TYPE_CHECKING:
    from tests.lab.scratch import Scratch

NAME = f"sif-writable-{VICTIM}"
HOMELESS: dict[str, Any] = {"home": "/no/such/home"}
"""Without HOME, storage is in the shared folders."""


def shared(places: Scratch) -> list[str]:
    """Return the shared folders, outside."""
    return [places.var_tmp, places.tmp, places.shm]


# Starts interpreters, four at a time, each of them without storage of its own; prints what they have chosen.
_MANY = """
import os, shutil, subprocess, sys
found = {}
for number in range(25):
    running = [subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=-1, stderr=-2) for _ in range(4)]
    for process in running:
        key = (process.communicate()[0].decode(), process.returncode)
        found[key] = found.get(key, 0) + 1
    for place in ("/var/tmp", "/tmp", "/dev/shm"):
        root = f"{place}/NAME"
        try:
            if os.lstat(root).st_uid == os.getuid():
                shutil.rmtree(root)
        except OSError:
            pass
print(sorted(found.items()))
""".replace("NAME", NAME)

_CHOSEN = (
    f"({STATE}, sorted({{os.lstat(r).st_uid for r in os.environ['SIF_WRITABLE_SESSION'].split(';')[4].split(':')}}))"
)


def test_a_hundred_starts_beside_a_neighbour_that_swaps_what_bears_our_name(hooked: Hooked) -> None:
    needs_two_users()
    places = hooked.machine.places
    loot = places.new_folder("loot")
    os.chmod(loot, 0o777)

    def swap(number: int) -> None:
        path = f"{shared(places)[number % 3]}/{NAME}"
        if number % 2:
            os.symlink(loot, path)
            os.unlink(path)
        else:
            os.mkdir(path, 0o777)
            os.chmod(path, 0o777)
            write(f"{path}/.sif-writable", "exec\n")
            shutil.rmtree(path)

    with busy(NEIGHBOUR, swap):
        result = hooked.run("-S", "-c", _MANY, question(_CHOSEN), timeout=300, **HOMELESS)
    assert (result.returncode, result.stderr) == (0, "")
    outcomes = dict(eval(result.stdout))  # noqa: S307 - our own program's tuples
    assert sum(outcomes.values()) == 100
    # A place that was all ours, or none at all in an instant when the neighbour had all three.
    nowhere = "FileNotFoundError"
    for (printed, code), times in outcomes.items():
        assert (printed, code) == (f"('active', [{VICTIM}])\n", 0) or nowhere in printed or "no storage" in printed, (
            printed,
            times,
        )
    assert owned_by(VICTIM, loot) == []


def _plant_copies(root: str, image: str, tag: str, packages: str) -> None:
    """Make a storage root that has a copy of a package, as a neighbour would to have his code imported."""
    folder = f"{root}/{image}/packages-{tag}"
    write(f"{root}/.sif-writable", "exec\n")
    for kind in ("data", f"{image}/config", f"{image}/compiled-{tag}", f"{folder[len(root) + 1 :]}/tree"):
        os.makedirs(f"{root}/{kind}", exist_ok=True)
    write(f"{folder}/learned", f"package\tinnocent\t{packages}\timport\tx\n")
    write(f"{folder}/tree{packages}/innocent/__init__.py", "print('the neighbour runs')\n")
    for here, folders, files in os.walk(root):
        for name in (*folders, *files):
            os.chmod(os.path.join(here, name), 0o777)
    os.chmod(root, 0o777)


@pytest.mark.parametrize("start", ["inherited", "fresh"])
def test_copies_that_a_neighbour_has_planted_are_never_imported(hooked: Hooked, start: str) -> None:
    """A cleaner has removed our folder of /var/tmp, and somebody else has taken the name, with copies of packages."""
    needs_two_users()
    changed = hooked.copy()
    changed.write("innocent/__init__.py", "print('the image runs')\n")
    packages = os.path.join(VENV, os.path.relpath(changed.packages, changed.environment))
    environment = changed.ask("dict(os.environ)", **HOMELESS)
    root = f"{changed.machine.places.var_tmp}/{NAME}"
    (image,) = (name for name in os.listdir(root) if name.startswith("image-"))
    assert environment["SIF_WRITABLE_COPIES"].endswith(image)
    tag = changed.ask("sys.implementation.cache_tag")
    shutil.rmtree(root)
    as_user(NEIGHBOUR, lambda: _plant_copies(root, image, tag, packages))
    options = {"env": environment, "home": environment["HOME"]} if start == "inherited" else HOMELESS
    result = changed.run("-c", f"import innocent; {question(STATE)}", **options)
    assert (result.returncode, result.stdout) == (0, "the image runs\n'active'\n"), result
    assert owned_by(VICTIM, root) == []


def test_what_is_kept_in_shared_folders_is_nobody_elses_to_read(hooked: Hooked) -> None:
    """Everything that a start and a package with a liberal umask leave there; seen by the other user himself."""
    needs_two_users()
    program = (
        "import os; os.umask(0); d = os.environ['MPLCONFIGDIR']; os.makedirs(d, exist_ok=True);"
        " open(d + '/secret', 'w').write('secret')"
    )
    start = f"import os, sys; os.umask(0); os.execv(sys.executable, [sys.executable, '-c', {program!r}])"
    result = hooked.run("-S", "-c", start, **HOMELESS)
    assert (result.returncode, result.stderr) == (0, "")
    places = hooked.machine.places
    mine = [path for folder in shared(places) for path in owned_by(VICTIM, folder)]
    assert any(path.endswith("/secret") for path in mine)

    def look() -> list[str]:
        found = []
        for folder in shared(places):
            for here, folders, files in os.walk(folder):
                found += [os.path.join(here, name) for name in (*folders, *files)]
        return found

    assert set(as_user(NEIGHBOUR, look)) <= {f"{folder}/{NAME}" for folder in shared(places)} | hooked.machine.points


def test_a_huge_shared_folder_is_not_even_listed(hooked: Hooked, strace: str) -> None:
    needs_two_users()
    places = hooked.machine.places

    def fill() -> None:
        for folder in shared(places):
            for number in range(5000):
                os.mknod(f"{folder}/sif-writable-{number + 100000}", stat.S_IFREG | 0o666)

    as_user(NEIGHBOUR, fill)
    words = [strace, "-f", "-qq", "-y", "-e", "trace=getdents64", "-o", f"{WORK}/trace", PYTHON, "-c", "pass"]
    for _ in range(2):
        result = hooked.machine.run(words, venv=hooked.environment, **HOMELESS)
        assert (result.returncode, result.stderr) == (0, "")
        with open(f"{places.work}/trace", encoding="utf-8", errors="replace") as file:
            listed = file.read()
        assert f"</var/tmp/{NAME}/" in listed
        assert "</var/tmp>" not in listed
        assert "</tmp>" not in listed
        assert "</dev/shm>" not in listed


_OUTSIDE = ["/tmp/seeds", "/opt/../tmp/seeds", "relative/seeds", "/var/tmp/seeds", "/proc/self/root/tmp/seeds"]


@pytest.mark.parametrize("path", _OUTSIDE)
def test_a_manifest_that_names_places_outside_the_image_brings_nothing(hooked: Hooked, path: str) -> None:
    needs_two_users()
    changed = hooked.copy()
    lines = [f"seed: {name} {path}" for name in ("MPLCONFIGDIR", "HF_HUB_CACHE", "NUMBA_CACHE_DIR", "HOME")]
    lines += ["overlay: /tmp/seeds", "overlay: ../x", "package: ../../x", "heavy: ../x", "stamp: \0"]
    changed.write("sif_writable.manifest", "\n".join(lines) + "\n\n")
    places = changed.machine.places

    def plant() -> None:
        for folder in (places.tmp, places.var_tmp):
            write(f"{folder}/seeds/evil", "theirs")

    as_user(NEIGHBOUR, plant)
    found = changed.ask("dict(os.environ)", env={"SIF_WRITABLE_DIR": f"{WORK}/given"}, **HOMELESS)
    assert [name for name, value in found.items() if "seeds" in value] == ["SIF_WRITABLE_OVERLAY_PATHS"]  # as declared
    assert found["MPLCONFIGDIR"].startswith(f"{WORK}/given/")
    assert not [name for _, _, names in os.walk(f"{places.work}/given") for name in names if name == "evil"]


# Puts other bytecode where the interpreter looks for that of a module, then lets others write the storage, or not.
_PLANTED = """
import importlib.util, os, py_compile, sys
root = next(r for r in os.environ["SIF_WRITABLE_SESSION"].split(";")[4].split(":") if sys.pycache_prefix.startswith(r))
with open("evil.py", "w") as file:
    file.write("VALUE = 'evil'")
mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
py_compile.compile("evil.py", importlib.util.cache_from_source(sys.argv[1]), invalidation_mode=mode)
os.chmod(root, int(sys.argv[2], 8))
import victim
print(victim.VALUE, bool(sys.pycache_prefix), [n for n in os.environ if "PYCACHE" in n], root)
"""


def test_bytecode_in_storage_that_is_not_ones_own_any_more_is_not_used(hooked: Hooked) -> None:
    plain = hooked.copy()
    for where, folders, _ in os.walk(plain.packages):
        if "__pycache__" in folders:
            shutil.rmtree(os.path.join(where, "__pycache__"))
    plain.write("victim.py", "VALUE = 'image'\n")
    victim = plain.ask("__import__('victim').__file__")
    root = f"/var/tmp/{NAME}"
    # Children learn a folder in a place for all from the hook, which asks whose it is, not from the interpreter.
    trusting = plain.run("-c", _PLANTED, victim, "700", **HOMELESS)
    assert (trusting.stdout, trusting.stderr) == (f"evil True ['SIF_WRITABLE_PYCACHE'] {root}\n", "")
    wary = plain.run("-c", _PLANTED, victim, "777", **HOMELESS)
    assert wary.stdout == f"image False [] {root}\n"
    assert wary.stderr == (
        f"sif_writable: {root} is gone, or not this user's alone any more: the bytecode in it is not used\n"
    )
