"""Variables that begin as ours do and are none."""

from __future__ import annotations

import os
import re

import pytest

from sif_writable.report.misspelt import FOR_USERS, KNOWN, misspelt

PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("SIF_WRITABLE_DIRR", "SIF_WRITABLE_DIR"),
        ("SIF_WRITABLE_PACKAGE", "SIF_WRITABLE_PACKAGES"),
        ("SIF_WRITEABLE_HOME", "SIF_WRITABLE_HOME"),
        ("SIF_WRITABEL", "SIF_WRITABLE"),
        ("SIF_WRITEABLE_GPU", "SIF_WRITABLE_GPU"),
        ("SIF_IMAGE", ""),  # of another beginning: nobody knows whose it is
        ("SIF_DIR", ""),
        ("SIFT_HOME", ""),
        ("sif_writable_dir", "SIF_WRITABLE_DIR"),
        ("SIF_WRITABLE_GPU_MEMORY", "SIF_WRITABLE_GPU_MIN_MEMORY"),
        ("SIFWRITABLE_DIR", "SIF_WRITABLE_DIR"),
    ],
)
def test_a_misspelt_one_is_named_with_the_nearest_right_one(name: str, near: str) -> None:
    expected = [f"{name} is not known and has no effect; did you mean {near}?"] if near else []
    assert misspelt([name, "PATH", "SIF_WRITABLE_DIR", "SIF_WRITABLE_OLD_HOME"]) == expected


def test_every_variable_of_the_sources_is_known() -> None:
    found: set[str] = set()
    for here, _, files in os.walk(f"{PACKAGE}/sif_writable"):
        for file in files:
            if file.endswith(".py") and file != "misspelt.py":
                with open(f"{here}/{file}", encoding="utf-8") as source:
                    found |= set(re.findall(r"\bSIF_WRITABLE(?:_[A-Z]+)*\b(?!_)", source.read()))
    assert found - KNOWN - {"SIF_WRITABLE_OLD_HOME"} == set()
    assert set(FOR_USERS) <= KNOWN
