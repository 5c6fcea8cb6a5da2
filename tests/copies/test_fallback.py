"""The kernel's mount of the image, root's own files: what serves a package where the first choice is refused."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.lab.overlaid import PACKAGES, PYTHON, Kernel, ask

if TYPE_CHECKING:
    import subprocess

    from tests.lab.squashfs_root import SquashfsRoot

ON = {"SIF_WRITABLE_OVERLAY": "on"}
USE = "import cycler, os; print(cycler.__file__); open(os.path.join(os.path.dirname(cycler.__file__), 'made'), 'a')"
"""A first use that writes into a package of the image."""
STATUS = "from sif_writable.commands.cli import main; main(['status', '--verbose', '--no-gpu'])"
REFUSALS: dict[str, dict[str, Any]] = {
    "no user namespaces": {"userns": False},
    "Slurm": {"env": {"SLURM_NTASKS": "2", "SLURM_PROCID": "0"}},
    "MPI": {"env": {"PMI_RANK": "0"}},
}


class World(Kernel):
    """The image, with a package that writes at import."""

    def program(self, code: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a program."""
        result: subprocess.CompletedProcess[str] = self.run([PYTHON, "-c", code], **options)
        return result

    def says(self, code: str, **options: Any) -> list[str]:
        """Return the lines of a program that must end well and complain of nothing."""
        result = self.program(code, **options)
        assert (result.returncode, result.stderr) == (0, ""), result
        return result.stdout.splitlines()


@pytest.fixture
def world(squashfs_root: SquashfsRoot) -> World:
    """Return the image."""
    return World(squashfs_root)


EARLY = "import early; print(early.__file__)"


@pytest.mark.parametrize("refusal", REFUSALS)
def test_on_that_is_refused_falls_back_to_copies(world: World, refusal: str) -> None:
    options = {**REFUSALS[refusal], "env": {**ON, **REFUSALS[refusal].get("env", {})}}
    first = world.says(EARLY, **options)
    assert first[:2] == ["executed early"] * 2
    assert first[2].startswith("/var/tmp/sif-writable-1000/")
    assert first[2].endswith(f"/tree{PACKAGES}/early/__init__.py")
    assert world.says(EARLY, **options) == ["executed early", first[2]]
    assert "from the next run on it is imported from a writable copy" in world.program(USE, **options).stderr
    (place,) = world.says(USE, **options)
    assert place.endswith(f"/tree{PACKAGES}/cycler/__init__.py")
    status = world.program(STATUS, **options).stdout
    assert f"copied to {os.path.dirname(first[2])}\n" in status


def test_where_the_files_are_roots_a_layer_is_refused_with_the_reason_and_copies_serve(world: World) -> None:
    """The kernel could not change them in a layer. What is declared is served all the same, by a mount of its own."""
    for executed in (2, 1):
        *said, place = world.says(EARLY, env=ON)
        assert said == ["executed early"] * executed
        assert place.endswith(f"/tree{PACKAGES}/early/__init__.py")
    status = " ".join(world.program(STATUS, env=ON).stdout.split())
    assert "a layer over /opt/venv can be mounted here, but" in status
    for value in ("prefix", "early"):
        said = world.says(EARLY, env={**ON, "SIF_WRITABLE_OVERLAY_PATHS": value})
        assert said == ["executed early", f"{PACKAGES}/early/__init__.py"]


@pytest.mark.parametrize("mode", ["auto", "on"])
def test_files_of_root_on_a_root_that_can_be_written(world: World, mode: str) -> None:
    """Permission is denied (EACCES) where elsewhere the filesystem is read-only (EROFS)."""
    options: dict[str, Any] = {"overlay_tmpfs": True, "env": {**ON, "SIF_WRITABLE_OVERLAY": mode}}
    denied = world.program(USE, overlay_tmpfs=True, env={"SIF_WRITABLE": "off"})
    assert f"PermissionError: [Errno 13] Permission denied: '{PACKAGES}/cycler/made'" in denied.stderr
    assert world.says(EARLY, **options)[:2] == ["executed early"] * 2
    assert "from the next run on" in world.program(USE, **options).stderr
    (place,) = world.says(USE, **options)
    assert place.endswith(f"{PACKAGES}/cycler/__init__.py")
    assert "/tree/" in place


def test_storage_from_which_nothing_can_be_executed(world: World) -> None:
    places = world.places
    noexec = [f"{places.var_tmp}:/var/tmp:noexec", f"{places.tmp}:/tmp:noexec"]
    options: dict[str, Any] = {"writable": (), "binds": noexec}
    code = "import charset_normalizer.md as m, os; print(m.__file__, os.path.islink(m.__file__))"
    given = {"SIF_WRITABLE_PACKAGES": "charset_normalizer"}
    place, linked = world.says(code, env=given, **options)[0].split()
    assert "/tree/" in place
    assert place.endswith(".so")
    assert linked == "True"  # the image's own, which can be loaded
    # An overlay whose upper layer lies there: what the image has can still be loaded.
    code = f"""
package = "{PACKAGES}/charset_normalizer"
problem = serve(package)
write(package + "/made", "x", "a")
import charset_normalizer.md as m
answer([problem, read(package + "/made"), m.__file__.startswith(package), m.__file__[-3:], overlay.entered[0].how])
"""
    assert ask(world, code, **options) == ["", "x", True, ".so", "overlay"]
    assert ask(world, code, **options) == ["", "xx", True, ".so", "overlay"]


def test_object_code_of_one_file_gets_no_copy_there(world: World) -> None:
    layer = os.path.join(world.places.folder, "layer")
    os.makedirs(f"{layer}/opt/lib")
    with open(f"{layer}/opt/lib/single.so", "wb"):
        pass
    binds = [f"{world.places.var_tmp}:/var/tmp:noexec", f"{world.places.tmp}:/tmp:noexec"]
    options: dict[str, Any] = {"writable": (), "binds": binds, "layer": layer}
    options["env"] = {"PYTHONPATH": "/opt/lib", "SIF_WRITABLE_PACKAGES": "single"}
    failed = world.program("import single", **options)
    assert "/opt/lib/single.so: file too short" in failed.stderr
    words = " ".join(world.program(STATUS, **options).stdout.split())
    assert "single gets no writable copy: it is object code, which cannot be loaded from /var/tmp/" in words
