"""Whether a process may have a layer, and how its directories are chosen."""

from __future__ import annotations

import os
import sys

import pytest

from sif_writable import LAYER, mounted, settings
from sif_writable.child import OVERLAY
from sif_writable.layer import decide, enter, kernel
from sif_writable.overlay import decide as overlay
from sif_writable.report import layer as report
from sif_writable.system import image

ONE = "      1000       1000          1\n"


def ask(environ: dict[str, str] | None = None, **facts: object) -> str:
    known = {
        "uid": 1000,
        "uid_map": ONE,
        "threads": 1,
        "program": "/usr/bin/python3.11",
        "prefix": "/v",
        "storage": "/s:",
    }
    known.update(facts)
    return enter.obstacle(environ or {}, **known)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("environ", "facts"),
    [
        ({}, {}),
        *[({"SIF_WRITABLE_OVERLAY": value}, {}) for value in ("", "auto", "On", "Layer", "never")],
        ({"SIF_WRITABLE_OVERLAY": "on"}, {"uid_map": "0 0 4294967295\n"}),
        ({"OMPI_MCA_btl": "tcp", "PMIX_MCA_x": "1"}, {}),
        ({"SLURM_NTASKS": "8", "SLURM_STEP_NUM_TASKS": "1"}, {}),
        ({"SLURM_NTASKS": "1"}, {}),
        ({"WORLD_SIZE": "1"}, {}),
        ({"KRB5CCNAME": "FILE:/tmp/krb5cc_1000"}, {}),
        ({}, {"program": "/opt/pypy/bin/pypy3"}),
    ],
)
def test_a_layer_is_allowed(environ: dict[str, str], facts: dict[str, object]) -> None:
    assert ask(environ, **facts) == ""


@pytest.mark.parametrize(
    ("environ", "facts", "words"),
    [
        *[({"SIF_WRITABLE_OVERLAY": value}, {}, "SIF_WRITABLE_OVERLAY=off") for value in ("off", "OFF")],
        ({"SIF_WRITABLE_OVERLAY": "on", "PMI_RANK": "0"}, {}, "PMI_RANK is set"),
        ({"OMPI_COMM_WORLD_RANK": "0"}, {}, "OMPI_COMM_WORLD_RANK is set"),
        ({"PMI_RANK": "0"}, {}, "PMI_RANK is set"),
        ({"FLUX_TASK_RANK": "0"}, {}, "FLUX_TASK_RANK is set"),
        ({"SLURM_NTASKS": "2"}, {}, "one of 2 tasks of a Slurm step"),
        ({"SLURM_NTASKS": "1", "SLURM_STEP_NUM_TASKS": "4"}, {}, "one of 4 tasks of a Slurm step"),
        ({"LOCAL_WORLD_SIZE": "2"}, {}, "one of 2 tasks of a group"),
        ({"KRB5CCNAME": "KEYRING:persistent:1000"}, {}, "keyring"),
        ({}, {"threads": 2}, "2 threads run"),
        ({}, {"threads": 0}, "/proc is not mounted here"),
        ({}, {"program": "/usr/bin/gdb"}, "inside another program (gdb)"),
        ({}, {"program": ""}, "inside another program (unknown)"),
        ({}, {"uid_map": "0 0 4294967295\n"}, "more users than one"),
        ({}, {"uid_map": "0 1000 1\n1 100000 65536\n"}, "more users than one"),
        ({}, {"uid_map": "0 1000 1\n"}, "more users than one"),
        ({}, {"uid_map": "1000 1000 2\n"}, "more users than one"),
        ({}, {"uid_map": ""}, "/proc does not say"),
        ({}, {"prefix": "/opt/a\nb"}, r"the path of the environment, '/opt/a\nb', has a line break in it"),
        ({}, {"prefix": "/opt/a:b"}, "the path of the environment, '/opt/a:b', has a colon in it"),
        ({}, {"storage": "/s\n"}, r"the path of storage, '/s\n', has a line break in it"),
    ],
)
def test_a_layer_is_refused_with_a_sentence(environ: dict[str, str], facts: dict[str, object], words: str) -> None:
    assert words in ask(environ, **facts)


def test_status_says_what_is_wrong_with_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", "/opt/a:b")
    assert "'/opt/a:b', has a colon in it" in report.lines(report.model("/nowhere/image-1"))[0]
    assert [*map(decide.can_be_named, ("/v", "/v:", "/v\nw"))] == [True, False, False]


def test_what_a_layer_hides_is_said_where_it_is_asked_for_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    on, everybody = {"SIF_WRITABLE_OVERLAY": "on"}, "0 0 4294967295\n"
    assert "chgrp to such a group fails" in decide.hides(on, 1000, everybody)
    assert decide.hides({}, 1000, everybody) == decide.hides(on, 1000, ONE) == ""
    monkeypatch.setenv("SIF_WRITABLE_OVERLAY", "on")
    found = report.model("/nowhere/image-1")
    found.update({"why": "", "hides": decide.hides(on, 1000, everybody)})
    assert "; SIF_WRITABLE_OVERLAY=on: in it files of other users" in report.lines(found)[0]


def test_directories_below_others_need_no_layer_of_their_own() -> None:
    given = ["/opt/venv/lib/site", "/opt/venv", "/opt/venv2", "/opt/venv", "/usr/lib"]
    assert decide.distinct(given) == ["/opt/venv", "/opt/venv2", "/usr/lib"]


@pytest.mark.parametrize(
    ("path", "escaped"), [("/a", "/a"), ("/a:b", "/a\\:b"), ("/a,b", "/a\\,b"), ("/a\\b", "/a\\\\b")]
)
def test_paths_are_escaped_in_the_options_of_a_mount(path: str, escaped: str) -> None:
    assert kernel.escaped(path) == escaped


def test_values_are_understood_alike_for_the_environment_and_for_other_paths() -> None:
    for value in ("", "auto", "on", "off", "Off", "layer", "layers", "1"):
        assert overlay.mode({OVERLAY: value}) == enter.mode({OVERLAY: value})
    assert settings.misunderstood({OVERLAY: "Layer"}, ()) == []
    assert "allowed: auto, on, off" in settings.misunderstood({OVERLAY: "layers"}, ())[0]


def test_in_a_layer_the_image_is_the_one_that_it_was_made_over(monkeypatch: pytest.MonkeyPatch) -> None:
    without = image.identity("/of/the/image/site-packages")
    here, mounts, elsewhere = (
        os.readlink("/proc/self/ns/mnt"),
        mounted.covering("/proc"),
        mounted.covering("/dev"),
    )
    for namespace, over, prefix, expected in (
        (here, mounts, sys.prefix, "0" * 16),
        (here, mounts, "/another/environment", without),
        (here, elsewhere, sys.prefix, without),
        (here, f"1{mounts}", sys.prefix, without),
        ("mnt:[1]", mounts, sys.prefix, without),
    ):
        monkeypatch.setenv(LAYER, enter.inside(namespace, over, "image-" + "0" * 16, prefix, ["/proc"]))
        assert image.identity("/of/the/image/site-packages") == expected
    below = f"{here}:{mounted.covering(sys.prefix)}"
    for damaged in ("", "mnt", here, f"{here}:", below, f"{below}:image-", f"{below}:image-{'../' * 5}x:{sys.prefix}"):
        monkeypatch.setenv(LAYER, damaged)
        assert image.identity("/of/the/image/site-packages") == without
