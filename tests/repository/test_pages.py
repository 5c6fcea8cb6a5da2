"""The pages for people: links lead somewhere, what is named exists, and the first page stays one."""

from __future__ import annotations

import os
import re
import subprocess

import pytest

from tests.lab import apt
from tests.lab.store import REPOSITORY

PAGES = (
    "README.md",
    "CHANGELOG.md",
    ".github/CONTRIBUTING.md",
    ".github/SECURITY.md",
    ".github/packaging/README.md",
    "container/README.md",
    "container/examples/README.md",
    "tests/README.md",
    "tests/benchmarks/README.md",
)


def read(page: str) -> str:
    """Return the text of a page."""
    with open(os.path.join(REPOSITORY, page), encoding="utf-8") as file:
        return file.read()


def anchors(text: str) -> set[str]:
    """Return what a link can name on a page, as GitHub makes it of headings."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def dead_links(page: str, text: str) -> list[str]:
    """Return the links of a page that lead to no file or heading of this repository."""
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = link.partition("#")
        if path.startswith("https:"):
            continue
        target = os.path.normpath(os.path.join(os.path.dirname(page), path)) if path else page
        there = os.path.exists(os.path.join(REPOSITORY, target))
        if not there or (anchor and anchor not in anchors(read(target))):
            dead.append(link)
    return dead


def test_every_page_is_looked_at() -> None:
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("no git repository")
    assert set(listed.stdout.split()) <= {*PAGES, "tests/faults/TABLE.md"}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = read(page)
    assert dead_links(page, text) == []
    assert dead_links(page, text + "[a](no-such-page.md) [b](#no-such-heading)") == [
        "no-such-page.md",
        "#no-such-heading",
    ]


@pytest.mark.parametrize("page", PAGES)
def test_programs_and_tests_that_are_named_are_there(page: str) -> None:
    named = re.findall(r"`((?:tests|container)/[\w./-]*\w)`", read(page))
    assert [name for name in named if not os.path.exists(os.path.join(REPOSITORY, name))] == []


def test_every_system_package_that_the_tests_install_is_named() -> None:
    page = read("tests/README.md")
    assert [package for package in sorted(set(apt.PROGRAMS.values())) if f"`{package}`" not in page] == []


def test_the_first_page_is_one_page() -> None:
    assert len(read("README.md").splitlines()) <= 150


def test_every_setting_is_documented_where_image_authors_look() -> None:
    """Each variable that the package reads has a row, or is named as one that processes hand down to their children."""
    used = set()
    for folder, _, names in os.walk(os.path.join(REPOSITORY, "sif_writable")):
        for name in names:
            if name.endswith(".py"):
                with open(os.path.join(folder, name), encoding="utf-8") as file:
                    used |= set(re.findall(r'"(SIF_WRITABLE[A-Z_]*[A-Z])"', file.read()))
    page = read("container/README.md")
    assert len(used) > 15
    assert sorted(name for name in used if f"`{name}`" not in page) == []
