"""Where the user's own packages are once HOME is another one: what ``site`` and ``sys.path`` have then."""

from __future__ import annotations

import os
import site
import sys
import sysconfig
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from sif_writable import usersite

if TYPE_CHECKING:
    from pathlib import Path

OWN = site.getsitepackages()[0]
OLD = "/old/lib"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return HOME, another one than when ``site`` looked."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PYTHONUSERBASE", raising=False)
    for name, value in (("ENABLE_USER_SITE", True), ("USER_BASE", "/old"), ("USER_SITE", OLD)):
        monkeypatch.setattr(site, name, value)
    monkeypatch.setattr(sys, "path", ["/script", OLD, "/named/by/its/pth", OWN])
    monkeypatch.setattr(sysconfig, "_CONFIG_VARS", {"userbase": "/old"}, raising=False)
    return tmp_path


def test_all_is_as_in_a_process_that_finds_the_new_home(home: Path) -> None:
    usersite.follow_home(make=True)
    new = str(site.USER_SITE)
    assert new.startswith(f"{home}/.local/")
    assert os.path.isdir(new)
    assert sys.path == ["/script", new, OWN]
    assert sysconfig.get_config_vars()["userbase"] == f"{home}/.local"


def test_what_nobody_has_asked_for_is_not_reported(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysconfig, "_CONFIG_VARS", {}, raising=False)
    usersite.follow_home()
    assert sys.path == ["/script", OWN]  # the new one is not there
    assert not vars(sysconfig)["_CONFIG_VARS"]
    assert os.listdir(home) == []


def test_the_same_home_changes_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usersite.follow_home(make=True)
    path = list(sys.path)
    monkeypatch.setattr(sys, "path", path)
    usersite.follow_home(make=True)
    assert sys.path == ["/script", str(site.USER_SITE), OWN]
    assert str(site.USER_SITE).startswith(f"{home}/")


@pytest.mark.parametrize("there", ["a file", "a link that leads out"])
def test_what_cannot_be_made_is_left_out(home: Path, tmp_path_factory: pytest.TempPathFactory, there: str) -> None:
    outside = tmp_path_factory.mktemp("outside")
    if there == "a file":
        (home / ".local").write_text("")
    else:
        (home / ".local").symlink_to(outside)
    usersite.follow_home(make=True)
    assert sys.path == ["/script", OWN]
    assert os.listdir(outside) == []


@pytest.mark.parametrize(
    ("words", "more", "allowed"),
    [
        (["python"], {}, True),
        (["python", "script.py", "-s"], {}, True),
        (["python", "-X", "dev"], {}, True),
        (["python", "-c", "-s"], {}, True),
        (["python", "--check-hash-based-pycs=always", "-m", "x"], {}, True),
        (["python", "-B", "-s", "script.py"], {}, False),
        (["python", "-Es"], {}, False),
        (["python"], {"flags": SimpleNamespace(isolated=1)}, False),
        (["python"], {"prefix": "/a/venv"}, False),
        (None, {}, False),  # CPython 3.9 does not say
    ],
)
def test_it_is_switched_on_again_unless_something_else_forbids_it(
    home: Path, monkeypatch: pytest.MonkeyPatch, words: list[str] | None, more: dict[str, object], *, allowed: bool
) -> None:
    monkeypatch.setattr(site, "ENABLE_USER_SITE", False)
    for name, value in {"orig_argv": words, "prefix": sys.base_prefix, **more}.items():
        monkeypatch.setattr(sys, name, value, raising=False)
    usersite.follow_home(make=True, switched_on=True)
    assert site.ENABLE_USER_SITE is allowed
    assert (home / ".local").exists() is allowed


@pytest.mark.usefixtures("home")
def test_they_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    usersite.again("ignore")
    assert sys.path == ["/script", "/named/by/its/pth", OWN]
    assert site.ENABLE_USER_SITE is False
    monkeypatch.delitem(sys.modules, "site")  # -S
    usersite.again("ignore")
    usersite.again("follow")
    assert sys.path == ["/script", "/named/by/its/pth", OWN]
