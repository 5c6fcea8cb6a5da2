"""Values of our variables that are not understood: each counts as unset, and `status` and `doctor` name it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.lab.hooked import question

if TYPE_CHECKING:
    from tests.lab.hooked import Hooked

MANY = "9" * 5000
VALUES = {
    "SIF_WRITABLE": ("on ", "enabled", "2"),
    "SIF_WRITABLE_HOME": (" redirect", "-1", "/home/user"),
    "SIF_WRITABLE_OVERLAY": ("1", "on,off", "inf"),
    "SIF_WRITABLE_STRICT": ("true", " 1", "-1"),
    "SIF_WRITABLE_DEBUG": ("2", "1 ", "yes"),
    "SIF_WRITABLE_COPYUP_MAX": ("-1", "inf", MANY),
    "SIF_WRITABLE_MAX": ("-1G", "nan", MANY),
    "SIF_WRITABLE_GPU": ("require,warn", "1", "requre"),
    "SIF_WRITABLE_KEEP": ("everything", "0", "\udcff"),
    "SIF_WRITABLE_GPU_COUNT": ("-1", "2.5", MANY),
    "SIF_WRITABLE_GPU_MIN_MEMORY": ("-20G", "inf", MANY),
    "SIF_WRITABLE_GPU_MIN_CAPABILITY": ("sm_80", "-8.0", MANY),
    "SIF_WRITABLE_GPU_TIMEOUT": ("-1", "inf", "9" * 400),
}


@pytest.mark.parametrize("which", range(3))
def test_a_value_that_is_not_understood_counts_as_unset_and_is_named(hooked: Hooked, which: int) -> None:
    env = {name: values[which] for name, values in VALUES.items()}
    done = hooked.run("-c", question("sys.modules['sif_writable'].state"), env=env)
    assert (done.returncode, done.stdout, done.stderr) == (0, "'active'\n", "")
    program = "from sif_writable import preflight; preflight.before_import('torch'); "
    done = hooked.run("-c", program + question("sys.modules['sif_writable'].failure"), env=env)
    assert (done.returncode, done.stdout) == (0, "None\n")
    assert [line.split("=")[0] for line in done.stderr.splitlines()][:1] == [
        "sif_writable: before 'import torch': SIF_WRITABLE_GPU"
    ]
    env["SIF_WRITABLE_OPT_IN"] = "NOTHING"
    env["SIF_WRITABLE_SHARE"] = "data"  # understood, but without a place
    env["SIF_WRITABLE_OVERLAY_PATHS"] = "no_such_package"
    notes = json.loads(hooked.run("-m", "sif_writable", "status", "--json", env=env).stdout)["notes"]
    checked = " ".join(hooked.run("-m", "sif_writable", "doctor", env=env).stdout.split())
    for name, value in env.items():
        sentence = f"{name}={value[:80]!r} is not understood and counts as unset; allowed: "
        sentence = {
            "SIF_WRITABLE_SHARE": f"{name}=data has no effect: no SIF_WRITABLE_DIR that can be used names what",
            "SIF_WRITABLE_OVERLAY_PATHS": f"{name} names 'no_such_package', which is no whole path, no package that",
        }.get(name, sentence)
        if value == "NOTHING":
            sentence = f"{name} names 'NOTHING', which can not be switched on; allowed: "
        assert [note.startswith(sentence) for note in notes].count(True) == 1, name
        assert f"WARN settings: {sentence}" in checked, name
