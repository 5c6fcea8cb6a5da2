"""The status that fits into a ticket: twenty-five lines, whatever there is to say."""

from __future__ import annotations

import copy
import io
from typing import TYPE_CHECKING, Any

import pytest

from sif_writable.report import status, summary, text

if TYPE_CHECKING:
    from sif_writable.report.model import Status

PAINT = text.Painter(io.StringIO())
LONG = "/scratch/" + "/".join(["a-rather-long-name"] * 9)


def stored(kind: str, **more: Any) -> dict[str, Any]:
    return {
        "kind": kind,
        "folder": f"{LONG}/{kind}",
        "place": "SIF_WRITABLE_DIR",
        "filesystem": "ext4",
        "free_bytes": 52 << 30,
        "total_bytes": 250 << 30,
        "free_inodes": 0,
        "total_inodes": 0,
        "lasting": "persistent",
        "note": "",
        **more,
    }


def redirect(name: str, size: int) -> dict[str, Any]:
    return {
        "variable": f"{name.upper()}_CACHE_DIR",
        "value": f"/s/{name}",
        "kind": "data",
        "folder": f"/s/{name}",
        "why": "HOME is empty",
        "offers": "",
        "size_bytes": size,
        "size_complete": True,
        "exists": True,
    }


@pytest.fixture(scope="module")
def real() -> Status:
    return status.status(gpu=False)


@pytest.fixture
def active(real: Status) -> Any:
    """Return a status with everything in its place."""
    found: Any = copy.deepcopy(real)
    found["hook"].update(state="active", active=True, by="this process", how="/venv/sif_writable.pth", problem="")
    found["storage"] = [stored(kind) for kind in ("compiled", "config", "data", "runtime")]
    found.update(usage=[], space=[], refused=[], user_set=[], packages=[], layer=None, overlay=None, notes=[], gpu=None)
    found["redirects"] = [redirect("numba", 12 << 20), redirect("torch", 0), redirect("matplotlib", 1 << 20)]
    return found


def lines(model: Any) -> list[str]:
    return summary.render(model, PAINT).splitlines()


def test_it_says_what_is_used_and_counts_the_rest(active: Any) -> None:
    shown = lines(active)
    assert "redirects  3 set; 2 in use: numba 12.0 MiB, matplotlib 1.0 MiB" in shown
    (storage,) = (line for line in shown if line.startswith("storage"))
    assert storage == f"storage    compiled  52.0 GiB free  persistent  {LONG}/compiled"
    assert not any("torch" in line for line in shown)
    assert shown[-1].startswith("more       sif-writable status --verbose")
    assert len(shown) < 15


def test_an_inactive_hook_claims_no_redirects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sif_writable.state", "active")  # as after the command itself has run it
    model = status.status(ran=False, gpu=False)
    assert (model["hook"]["active"], model["redirects"], model["home"]["private"]) == (False, [], False)
    assert "redirects" not in summary.render(model, PAINT)


@pytest.mark.parametrize("many", [0, 1, 30])
def test_there_are_never_more_than_25_lines(active: Any, many: int) -> None:
    words = " ".join(["something", "that", "is", "wrong"] * 12)
    active["notes"] = [f"{number}: {words}" for number in range(many)]
    active["refused"] = [{"place": "X", "path": LONG, "why": words, "remedy": words * (many % 2)}] * many
    active["space"] = [
        {
            "path": LONG,
            "what": "the image, writable here",
            "kind": "overlay",
            "filesystem": "fuse.fuse-overlayfs",
            "total_bytes": 1,
            "free_bytes": 0,
            "total_inodes": 9,
            "free_inodes": 1,
            "warnings": [{"lack": "bytes", "text": words, "remedy": words}],
        }
    ] * min(many, 1)
    active["user_set"] = [
        {"variable": f"V{number}", "value": LONG, "problem": words, "remedy": words, "level": "warn"}
        for number in range(many)
    ]
    active["root"]["note"] = words * min(many, 1)
    active["home"].update(private=bool(many), why=words, old=LONG)
    active["redirects"] = [redirect(f"name-{number}", 1 << number) for number in range(many)]
    active["packages"] = [
        {"name": f"p{n}", "why": "", "how": "copy" if n % 2 else f"refused: {words}", "where": "", "size_bytes": 0,
         "written": []}
        for n in range(many)
    ]  # fmt: skip
    shown = lines(active)
    assert len(shown) <= 25
    assert shown[-1].startswith("more ")
    (wrong,) = [line for line in shown if line.startswith("wrong")] or [""]
    assert bool(wrong) == bool(many)
    if many > 1:
        assert "more: sif-writable status --verbose" in shown[-2]


def used(images: int, size: int, downloads: int, **more: Any) -> dict[str, Any]:
    files = {"files": bool(size) * 3, "downloads_files": bool(downloads) * 2}
    return {
        "root": "/s",
        "images": images,
        "size_bytes": size,
        "downloads_bytes": downloads,
        "complete": True,
        "warning": None,
        **files,
        **more,
    }


@pytest.mark.parametrize(
    ("kept", "words"),
    [
        ([used(1, 0, 0)], ""),  # what is in use lies in the folder for sockets, or in one that a group shares
        ([used(1, 0, 5 << 20)], "downloads take 5.0 MiB in 2 files"),
        ([used(1, 4096, 0)], "1 image keeps 4.0 KiB in 3 files and folders"),
        ([used(2, 4096, 5 << 20)], "2 images keep 4.0 KiB in 3 files and folders; downloads take 5.0 MiB in 2 files"),
        (
            [used(1, 0, 5 << 20), used(3, 4096, 0)],  # code went to another place than downloads
            "3 images keep 4.0 KiB in 3 files and folders; downloads take 5.0 MiB in 2 files",
        ),
        ([used(1, 4096, 0), used(2, 4096, 0)], "images keep 8.0 KiB in 6 files and folders"),
        ([used(1, 4096, 0, complete=False)], "1 image keeps at least 4.0 KiB in 3 files and folders"),
    ],
)
def test_what_is_kept_does_not_contradict_what_is_in_use(active: Any, kept: list[Any], words: str) -> None:
    active["usage"] = kept
    shown = " ".join(summary.render(active, PAINT).split())
    assert f"kept {words} redirects 3 set; 2 in use:" in shown if words else "kept" not in shown
    active["redirects"] = []
    assert words or "kept nothing so far" in " ".join(summary.render(active, PAINT).split())


def test_a_place_that_was_asked_for_and_refused_has_its_remedy(active: Any) -> None:
    why, remedy = "is not an absolute path", "write the whole path"
    active["refused"] = [
        {"place": "SIF_WRITABLE_DIR", "path": "x", "why": why, "remedy": remedy},
        {"place": "SCRATCH", "path": "/scratch", "why": "is on a read-only filesystem", "remedy": ""},
        {"place": "the user's cache directory", "path": "/h/.cache", "why": "has '/h'", "remedy": "rename it"},
    ]
    shown = " ".join(summary.render(active, PAINT).split())
    assert f"wrong SIF_WRITABLE_DIR=x {why}; remedy: {remedy} /h/.cache has '/h'; remedy: rename it more" in shown
    assert "not used /scratch is on a read-only filesystem " in shown
    assert f"remedy: {remedy}" in text.render(active, PAINT)
    active["storage"] = []
    shown = " ".join(summary.render(active, PAINT).split())
    assert "wrong no place can be written, so nothing was changed; remedy: bind a directory: --bind DIR:" in shown


def test_an_inactive_hook_is_called_and_starts_nothing(active: Any) -> None:
    assert lines(active)[0].endswith(": active, started by /venv/sif_writable.pth")
    active["hook"].update(state="off", active=False)
    assert lines(active)[0].endswith(": not active (SIF_WRITABLE=off); called by /venv/sif_writable.pth")


def test_every_problem_is_said_whole_with_its_remedy_where_there_is_room(active: Any) -> None:
    problem, remedy = "does not exist here and cannot be made", "bind it (--bind /scratch), or unset HF_HOME"
    active["user_set"] = [
        {"variable": "HF_HOME", "value": "/scratch/hf", "problem": problem, "remedy": remedy, "level": "warn"},
        {"variable": "XDG_RUNTIME_DIR", "value": "/run/user/1", "problem": problem, "remedy": remedy, "level": "info"},
    ]
    shown = " ".join(summary.render(active, PAINT).split())
    assert f"wrong HF_HOME=/scratch/hf {problem}; remedy: {remedy} more" in shown
    assert "left alone HF_HOME, XDG_RUNTIME_DIR: set outside this package" in shown


def test_columns_are_aligned_however_long_a_name_is(active: Any) -> None:
    name = "FLASH_ATTENTION_CUTE_DSL_CACHE_DIR"
    active["redirects"][1].update(variable=name, value="/x/:", offers="linked")
    shown = text.render(active, PAINT).splitlines()
    rows = [line for line in shown if "_CACHE_DIR" in line]
    assert len(rows) == 3
    assert len({line.index("/") for line in rows}) == 1
    assert rows[1].endswith("/x/ (before its own)")
    assert " 0 B" not in "\n".join(shown)
    (heading,) = (line for line in shown if line.startswith("  because"))
    assert heading == "  because HOME is empty"


@pytest.mark.parametrize(("columns", "widest"), [(30, 40), (60, 60), (100, 100), (300, 120)])
def test_text_folds_at_the_width_of_the_terminal(monkeypatch: pytest.MonkeyPatch, columns: int, widest: int) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr("sys.stdout", Terminal())
    assert max(map(len, text.paragraph("word " * 200, 4).splitlines())) in range(widest - 5, widest + 1)


def test_what_could_move_a_terminals_cursor_is_shown_as_text(active: Any) -> None:
    active["user_set"] = [
        {"variable": "V", "value": "a\x1b[2J\n", "problem": "is \x07", "remedy": "", "level": "warn"},
    ]
    for shown in (summary.render(active, PAINT), text.render(active, PAINT)):
        assert all(letter.isprintable() or letter == "\n" for letter in shown)
