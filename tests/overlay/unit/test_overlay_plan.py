"""What is mounted where, by whom an overlay is refused, and what a trace concludes: tables, no kernel."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from sif_writable.layer.enter import parallel
from sif_writable.overlay import decide as overlay
from sif_writable.overlay import obstacles
from sif_writable.overlay.decide import GRAFT, OVERLAY, Wanted
from sif_writable.system.mounts import Mount
from sif_writable.trace import findings as trace
from sif_writable.trace.findings import CREATED, Change, Record

if TYPE_CHECKING:
    from pathlib import Path

TREE = {
    "/": ["etc", "opt", "usr", "var"],
    "/etc": ["hosts", "tool.conf", "apt"],
    "/etc/apt": [],
    "/opt": ["venv"],
    "/opt/venv": ["bin", "lib", "share"],
    "/opt/venv/bin": ["python"],
    "/opt/venv/lib": ["python3.11"],
    "/opt/venv/lib/python3.11": ["site-packages"],
    "/opt/venv/lib/python3.11/site-packages": ["pkg"],
    "/opt/venv/lib/python3.11/site-packages/pkg": ["data"],
    "/opt/venv/lib/python3.11/site-packages/pkg/data": ["big.bin", "small.txt"],
    "/opt/venv/share": ["man"],
    "/opt/venv/share/man": ["x"],
    "/usr": ["bin"],
    "/usr/bin": [f"program{number}" for number in range(1000)],
    "/var": ["log", "tmp"],
    "/var/log": [],
    "/var/tmp": [],
}
PKG = "/opt/venv/lib/python3.11/site-packages/pkg"


class Ground:
    """A read-only image with /etc/hosts and /var/tmp mounted into it."""

    mounts = ("/etc/hosts", "/var/tmp")

    def exists(self, path: str) -> bool:  # noqa: D102
        return path == "/" or os.path.basename(path) in TREE.get(os.path.dirname(path), ())

    def is_directory(self, path: str) -> bool:  # noqa: D102
        return path in TREE

    def writable(self, path: str) -> bool:  # noqa: D102
        return path.startswith("/var/tmp")

    def entries(self, path: str) -> list[str] | None:  # noqa: D102
        return TREE.get(path)

    def mounts_below(self, path: str) -> list[str]:  # noqa: D102
        return [mount for mount in self.mounts if mount.startswith(path.rstrip("/") + "/")]

    def size(self, path: str) -> int:  # noqa: D102
        return 1 << 30 if path.endswith("big.bin") else 10

    def host_mount(self, path: str) -> str:  # noqa: D102
        return next((mount for mount in self.mounts if path == mount or path.startswith(mount + "/")), "")


def decide(*paths: str, mode: str = "auto") -> overlay.Plan:
    return overlay.decide([Wanted(path, "why") for path in paths], Ground(), mode)


def targets(*paths: str, **options: bool) -> list[tuple[str, str, tuple[str, ...]]]:
    plan = decide(*paths, **options)  # type: ignore[arg-type]
    assert plan.refused == ()
    return [(target.point, target.how, target.paths) for target in plan.targets]


def test_a_new_path_is_grafted_where_its_first_missing_part_belongs() -> None:
    assert targets("/opt/venv/share/tool/db") == [("/opt/venv/share", GRAFT, ("/opt/venv/share/tool/db",))]
    assert targets("/etc/tool") == [("/etc", GRAFT, ("/etc/tool",))]
    assert targets("/var/log/tool", "/var/log/other") == [("/var/log", GRAFT, ("/var/log/tool", "/var/log/other"))]


def test_an_existing_file_is_grafted_and_a_large_one_overlaid() -> None:
    assert targets("/etc/tool.conf") == [("/etc", GRAFT, ("/etc/tool.conf",))]
    assert targets(f"{PKG}/data/big.bin") == [(f"{PKG}/data", OVERLAY, (f"{PKG}/data/big.bin",))]


def test_an_existing_directory_is_overlaid_an_empty_one_grafted() -> None:
    assert targets(PKG) == [(PKG, OVERLAY, (PKG,))]
    assert targets("/var/log") == [("/var/log", GRAFT, ("/var/log",))]


def test_a_directory_of_many_entries_is_overlaid() -> None:
    assert targets("/usr/bin/new") == [("/usr/bin", OVERLAY, ("/usr/bin/new",))]


def test_where_the_engine_has_mounted_something_the_directories_within_are_overlaid() -> None:
    assert targets("/etc") == [("/etc", GRAFT, ("/etc/tool.conf",)), ("/etc/apt", OVERLAY, ("/etc/apt",))]
    assert targets("/var") == [("/var", GRAFT, ("/var",)), ("/var/log", OVERLAY, ("/var/log",))]


def test_grafts_nest_and_overlays_swallow() -> None:
    assert [target[0] for target in targets("/opt/venv/new", "/opt/venv/lib/python3.11/exports")] == [
        "/opt/venv",
        "/opt/venv/lib/python3.11",
    ]
    assert targets("/opt/venv", f"{PKG}/x") == [("/opt/venv", OVERLAY, ("/opt/venv",))]
    assert targets(f"{PKG}/new", PKG)[0][1] == OVERLAY


def test_what_can_be_written_needs_nothing() -> None:
    assert targets("/var/tmp/x") == []


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/newdir", "--bind DIRECTORY:/newdir"),
        ("/newdir/deep", "root directory itself"),
        ("/", "not a directory of the image"),
        ("/proc/x", "not a directory of the image"),
        ("/tmp/x", "not a directory of the image"),
        ("relative", "not an absolute path"),
        ("/opt/venv/../x", "not an absolute path"),
    ],
)
def test_refused_paths(path: str, words: str) -> None:
    plan = decide(path)
    assert plan.targets == ()
    assert words in plan.refused[0][1]


def test_a_mount_of_the_host_stays_as_it_is() -> None:
    for path in ("/etc/hosts", "/etc/hosts/x"):
        plan = decide(path)
        assert plan.targets == ()
        assert "/etc/hosts is bound in from the host, and stays as it is. Remedy: bind it" in plan.refused[0][1]
    assert "SIF_WRITABLE_OVERLAY=off" in decide("/etc/tool", mode="off").refused[0][1]


def test_names_and_modes() -> None:
    environ = {"SIF_WRITABLE_OVERLAY_PATHS": "/a/b:prefix,pkg.sub: ", "SIF_WRITABLE_OVERLAY": "ON"}
    named = [one.path for one in overlay.named(environ, "/opt/venv", "/sp")]
    assert named == ["/a/b", "/opt/venv", "/sp/pkg/sub"]
    assert (overlay.mode(environ), overlay.mode({}), overlay.mode({"SIF_WRITABLE_OVERLAY": "x"})) == (
        "on",
        "auto",
        "auto",
    )


def test_folder_names_are_one_to_one_and_short() -> None:
    assert overlay.folder_name("/opt/venv") == "opt%venv"
    assert overlay.folder_name("/a%b") != overlay.folder_name("/a/b")
    long = ["/" + "ä" * 150, "/" + "ä" * 149 + "b"]
    names = [overlay.folder_name(path) for path in long]
    assert names[0] != names[1]
    assert all(len(name.encode()) < 255 for name in names)


# --- What prevents it ---


@pytest.mark.parametrize(
    ("environ", "refused"),
    [
        ({}, False),
        ({"PMI_RANK": "0"}, True),
        ({"PMIX_NAMESPACE": "x"}, True),
        ({"OMPI_COMM_WORLD_SIZE": "1"}, True),
        ({"OMPI_MCA_btl": "self", "PMIX_MCA_gds": "hash"}, False),
        ({"HYDI_CONTROL_FD": "5"}, True),
        ({"SLURM_NTASKS": "8"}, True),
        ({"SLURM_NTASKS": "8", "SLURM_STEP_NUM_TASKS": "1"}, False),
        ({"SLURM_NTASKS": "1", "SLURM_STEP_NUM_TASKS": "1"}, False),
        ({"SLURM_STEP_NUM_TASKS": "2"}, True),
        ({"WORLD_SIZE": "4"}, True),
        ({"WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "many"}, False),
    ],
)
def test_ranks(environ: dict[str, str], refused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bool(parallel(environ)) is refused
    for name in list(os.environ):
        monkeypatch.delenv(name)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert bool(parallel(os.environ)) is refused


def test_threads_and_switches(tmp_path: Path) -> None:
    for name in ("1", "2", "3"):
        (tmp_path / name).mkdir()
    assert "3 threads run" in obstacles.threads(str(tmp_path))
    assert "/proc is not mounted here" in obstacles.threads(str(tmp_path / "none"))
    limit = tmp_path / "limit"
    limit.write_text("0\n")
    assert "switched off" in obstacles.switched_off(str(limit), str(tmp_path / "none"))
    limit.write_text("4096\n")
    assert not obstacles.switched_off(str(limit), str(tmp_path / "none"))


def test_words_for_what_the_kernel_says() -> None:
    assert "max_user_namespaces" in obstacles.unshare_words(errno.ENOSPC)
    assert "cannot be made" in obstacles.unshare_words(errno.EIO)
    table = [Mount("/", "overlay", "overlay", ""), Mount("/data", "ext4", "x", "")]
    assert "stacked too deep" in obstacles.mount_words(errno.EINVAL, "/opt", table)
    assert "stacked" not in obstacles.mount_words(errno.EINVAL, "/data", table)
    assert "another process" in obstacles.mount_words(errno.EBUSY, "/opt", table)
    assert obstacles.upper_problem("/data", table) == ""
    assert "not known to carry" in obstacles.upper_problem("/", table)
    assert "not known" in obstacles.upper_problem("/", [])


def test_outermost_mounts_below() -> None:
    points = ["/", "/etc/a/b", "/etc/a", "/etcetera", "/etc/c", "/etc/a/d"]
    assert obstacles.below("/etc", [Mount(point, "x", "x", "") for point in points]) == ["/etc/a", "/etc/c"]


def test_uids(tmp_path: Path) -> None:
    path = tmp_path / "map"
    path.write_text("         0          0 4294967295\n")
    assert obstacles.uid_map(str(path)) == "all, as on the host"
    path.write_text(" 0 1000 1\n 1 100000 65536\n")
    assert obstacles.uid_map(str(path)) == "0, 1-65536"


# --- Traces ---


def test_records_survive_a_line_that_was_cut() -> None:
    text = "7\tpython\t'/bin/python'\n7\topen\t'/a b\\n'\n8\tos.mkdir\tb'/x'\n9\topen\t'/cu"
    assert trace.records(text) == [
        Record(7, "python", "/bin/python"),
        Record(7, "open", "/a b\n"),
        Record(8, "os.mkdir", "/x"),
    ]


@pytest.mark.parametrize(
    ("command", "records", "by"),
    [
        ("python", [("python", "/bin/python")], "native code in Python"),
        (
            "python",
            [("python", "/bin/python"), ("program", "python"), ("program", "/bin/tar"), ("program", "cc -c x.c")],
            "native code in Python, or another program (cc, tar)",
        ),
        ("/bin/sh", [("python", "/bin/python")], "native code in Python, or another program (sh)"),
        ("/bin/sh", [], "a program (sh)"),
        ("python", [("python", "/bin/python"), ("program", "")], "native code in Python"),
    ],
)
def test_who_may_have_written_what_no_interpreter_did(command: str, records: list[tuple[str, str]], by: str) -> None:
    (found,) = trace.findings(
        [Change("/sp/x", CREATED, 1)],
        [Record(7, event, what) for event, what in records],
        7,
        command,
        is_python=lambda program: program == "python",
        in_image=bool,
        owner=lambda _: ("", ""),
        remedy=lambda path, package: path + package,
    )
    assert found.by == by


def test_who_wrote() -> None:
    records = [
        Record(7, "open", "/sp/pkg/a"),
        Record(8, "open", "/sp/pkg/b"),
        Record(7, "open", "/sp/pkg/gone"),
        Record(7, "open", "/home/x"),
        Record(7, "open", "/sp/pkg/__pycache__/a.pyc"),
    ]
    changes = [Change(f"/sp/pkg/{name}", CREATED, 1) for name in "abc"]
    found = trace.findings(
        changes,
        [Record(7, "python", "/bin/python"), *records],
        7,
        "python",
        is_python=lambda program: program == "python",
        in_image=lambda path: path.startswith("/sp"),
        owner=lambda _: ("pkg", "/sp"),
        remedy=lambda _, package: f"copy {package}",
    )
    assert [(one.path, one.what, one.by) for one in found] == [
        ("/sp/pkg/a", "created", trace.PYTHON),
        ("/sp/pkg/b", "created", trace.CHILD),
        ("/sp/pkg/c", "created", trace.NATIVE),
        ("/sp/pkg/gone", "tried", trace.PYTHON),
    ]
    assert {one.remedy for one in found} == {"copy pkg"}
    assert trace.tops(["/a/b", "/a", "/ab", "/a/c/d"]) == ["/a", "/ab"]
