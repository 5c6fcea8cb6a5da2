"""Storage that hangs: a FUSE server that takes no request any more, or that never answers those it has taken."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import NOT_RUN, or_skip
from tests.lab import store, wheels

if TYPE_CHECKING:
    from tests.lab.apptainer_root import Apptainer

_SILENT = "has not answered for 10 seconds"
_GIVEN = f"sif_writable: SIF_WRITABLE_DIR=/mnt {_SILENT}; using "
_GIVEN_UP = f"sif_writable: /mnt/sif-writable {_SILENT}, and is passed over"
_PASSED_OVER = f"sif_writable: /mnt {_SILENT}, and is passed over"
_REFUSED = "PermissionError: [Errno 13] Permission denied: '/image/third_party.py.new'"
_ITS_OWN = ["Traceback (most recent call last):", '  File "<string>", line 6, in <module>', "OSError: its own error"]


@pytest.mark.parametrize(
    ("way", "bytecode"), [("stopped", "shipped"), ("taken", "shipped"), ("stopped", "stored"), ("taken", "stored")]
)
def test_it_hangs(apptainer: Apptainer, sif: str, way: str, bytecode: str) -> None:
    """A start waits for ten seconds, and uses another place; programs that run already are not reached by it."""
    work = apptainer.places.work
    shutil.copytree(f"{store.REPOSITORY}/sif_writable", f"{work}/source/sif_writable")
    shutil.copytree(or_skip(wheels.download, "dependencies", wheels.DEPENDENCIES), f"{work}/wheels")
    shutil.copy(f"{store.REPOSITORY}/tests/faults/hanging.py", work)
    words = [apptainer.runtime.program, apptainer.inside(sif)]
    result = apptainer.beside(["python3", "hanging.py", way, bytecode, *words])
    if not result.stdout and any(name in result.stderr for name in ("fuse", "strace")):
        pytest.skip(f"{NOT_RUN}an ordinary user cannot mount with fuse2fs, or trace it: {result.stderr.strip()[-200:]}")
    assert result.returncode == 0, result
    came: dict[str, Any] = json.loads(result.stdout)

    def of(name: str) -> tuple[Any, ...]:
        code, out, err, time = came.pop(name)
        if bytecode == "stored" and out.startswith(("active in it", "active elsewhere", "inherited")):
            assert out.endswith(" with bytecode"), (name, out)
            out = out[: -len(" with bytecode")]
        return code, out, [line for line in err if not line.startswith("    ")], time

    assert came.pop("session").count("f") == 1, result
    assert of("before") == (0, "active in it 1", [], "at once")
    for way_to_ask in ("", ", by a thread"):
        assert of(f"a child before{way_to_ask}") == (0, "inherited in it 1", [], "at once")
    assert came.pop("it runs on") == ["/mnt/", "45"]
    assert came.pop("bytecode in it") is (bytecode == "stored")
    if bytecode == "shipped":
        assert of("it ends") == (1, "", _ITS_OWN, "at once")
        assert of("it imports") == (0, "/image/third_party.py", [_GIVEN_UP], "waited")
        code, out, err, time = of("it fails")
        assert (code, out, err[0], err[-1], time) == (1, "its own error", _GIVEN_UP, _REFUSED, "waited"), err
        assert "sif_writable: " not in "".join(err[1:])
    assert came.pop("in an image before") == "active True"
    # The second one has no variable HOME, and the passwd entry.
    children = "\n".join([f"active {apptainer.home}/.cache/sif-writable"[: len("active ") + 14]] * 2)
    line = f"sif_writable: /sif-writable {_SILENT}, and is passed over"
    assert of("in an image") == (0, children, [line, line], "waited")
    assert of("off") == (0, "off", [], "at once")
    assert of("not needed") == (0, "active elsewhere 1", [], "at once")

    # The thread waits for as long as the filesystem hangs; it does not keep the program from ending.
    for name, threads in (("given", 1), ("a child", 1), *([("a child, by a thread", 2)] if way == "stopped" else [])):
        code, out, err, time = of(name)
        assert (code, out, time) == (0, f"active elsewhere {threads}", "waited"), (name, out, err, time)
        assert len(err) == 1
        assert err[0].startswith(_GIVEN)
    for name in ("HOME", "TMPDIR"):
        assert of(name) == (0, "active elsewhere 1", [_PASSED_OVER], "waited")
    _, out, err, _ = of("through a link")
    assert (out, err[0].partition(";")[0]) == (
        "active elsewhere 1",
        f"sif_writable: SIF_WRITABLE_DIR=/link/below {_SILENT}",
    )
    for name in ("status", "doctor", "cache"):
        code, out, err, time = of(name)
        assert (code, len(err), time) == (0, 1, "waited"), (name, out, err)
        assert name == "cache" or _SILENT in " ".join(out.split())

    assert of("after") == (0, "active in it 1", [], "at once")
    assert of("it writes") == (0, "ENOTCONN", [], "at once")
    code, out, err, time = of("gone")
    assert (code, out, time) == (0, "active elsewhere 1", "at once")
    assert "not connected" in err[0]
    assert not came


@pytest.mark.parametrize("way", ["stopped", "taken"])
def test_it_hangs_under_a_layer(apptainer: Apptainer, sif: str, way: str) -> None:
    """The image's packages import, an exit waits for ten seconds, and what was written is published later."""
    work = apptainer.places.work
    for name in ("hanging.py", "hanging_layer.py"):
        shutil.copy(f"{store.REPOSITORY}/tests/faults/{name}", work)
    apptainer.places.new_folder("work/wheels")  # none are needed
    words = [apptainer.runtime.program, apptainer.inside(sif)]
    result = apptainer.beside(["python3", "hanging_layer.py", way, *words], timeout=200)
    if not result.stdout and any(name in result.stderr for name in ("fuse", "strace")):
        pytest.skip(f"{NOT_RUN}an ordinary user cannot mount with fuse2fs, or trace it: {result.stderr.strip()[-200:]}")
    assert result.returncode == 0, result
    came: dict[str, Any] = json.loads(result.stdout)
    assert came["in a layer"] == "True", json.dumps(came, indent=1)
    code, out, said, seconds = came["it ends"]
    assert (code, out.splitlines()) == (0, ["whole True", "True", "whole True"]), came
    assert "is not in storage yet: storage has not answered for 10 seconds. It is kept in /" in said[0], came
    assert len(said) == 2, came
    assert "/sif-writable has not answered for 10 seconds" in said[1], came
    assert 19 < seconds < 35, came
    # What was written while it hung is in the storage that was taken instead; a publisher that not even SIGKILL ends
    # keeps the layer, though, and then the next process has joined it.
    there = ["first", "second"] if way == "taken" else ["first"]
    assert came["after"][:3] == [0, f"{there}", ""], came
    code, out, (said,), _ = came["it is gone"]
    assert (code, out, "not connected" in said) == (0, "whole True", True), came
    assert came["there again"][:3] == [0, f"{[*there, 'third']}", ""], came
    assert came["left"] == []
