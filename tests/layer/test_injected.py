"""Each system call of making a layer, and of publishing it at the end, fails, or is the last one of its process."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from tests.conftest import NOT_RUN
from tests.lab.store import REPOSITORY

if TYPE_CHECKING:
    from tests.layer.conftest import Box

SAMPLE = 10


@pytest.mark.timeout(7200)
def test_faults_while_a_layer_is_made(box: Box, strace: str, request: pytest.FixtureRequest) -> None:
    everything = request.config.getoption("--all-faults")
    script = f"/venv/bin/python /tests-of-layer/injecting.py {strace} {0 if everything else SAMPLE}"
    result = box.shell(script, binds=[f"{REPOSITORY}/tests/faults:/tests-of-faults:ro"], timeout=7000)
    if "ptrace" in result.stderr:
        pytest.skip(f"{NOT_RUN}this machine does not let processes be traced")
    assert result.returncode == 0, result
    tried, of, problems = json.loads(result.stdout.splitlines()[-1])
    assert problems == [], json.dumps(problems, indent=1)
    assert (tried == of) if everything else (tried == SAMPLE and of > 100)
    assert os.listdir(box.place)
