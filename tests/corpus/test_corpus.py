"""Every case works as if the root were writable, with the hook and no other setting, and goes on from what it left."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.conftest import or_skip
from tests.corpus.replay import PROFILES

if TYPE_CHECKING:
    from tests.corpus.cases import Case
    from tests.corpus.conftest import Verdicts


@pytest.mark.parametrize("profile", PROFILES)
def test_fixed_in_a_sif(verdicts: Verdicts, profile: str) -> None:
    assert or_skip(verdicts.in_sif[profile].result) == []


@pytest.mark.parametrize("profile", PROFILES)
def test_fixed_on_a_kernel_mount_without_namespaces(verdicts: Verdicts, profile: str) -> None:
    assert or_skip(verdicts.on_kernel_mount[profile].result) == []


def test_broken_without_the_hook(case: Case, verdicts: Verdicts) -> None:
    assert case.healthy or or_skip(verdicts.without.result)
