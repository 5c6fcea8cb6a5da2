"""What is kept of a layer, and which side of a directory is taken."""

from __future__ import annotations

import pytest

from sif_writable.child import KEEP
from sif_writable.layer import merge
from sif_writable.layer.merge import ALL, FILE, FOLDER, GONE, LINK, NEW, NONE, Change

SP = "/v/lib/site-packages"
IMAGE = {f"{SP}/p/__init__.py", f"{SP}/p/config.json", f"{SP}/p/fast.so.1", f"{SP}/p/db", "/v/bin/tool"}


def _replaces(change: Change) -> bool:
    return change.path in IMAGE


@pytest.mark.parametrize(
    ("path", "kind", "kept"),
    [
        (f"{SP}/p/cache.bin", FILE, True),
        (f"{SP}/p/parsetab.py", FILE, True),
        (f"{SP}/p/__pycache__/parsetab.cpython-311.pyc", FILE, True),
        (f"{SP}/p/config.json", FILE, True),
        (f"{SP}/p/config.json", GONE, True),
        (f"{SP}/p/latest", LINK, True),
        (f"{SP}/p/cache", FOLDER, True),
        (f"{SP}/p/__init__.py", FILE, False),
        (f"{SP}/p/__init__.py", GONE, False),
        (f"{SP}/p/fast.so.1", FILE, False),
        ("/v/bin/tool", FILE, False),
        (f"{SP}/evil.pth", FILE, False),
        (f"{SP}/sitecustomize.py", FILE, False),
        (f"{SP}/sitecustomize/__init__.py", FILE, False),
        ("/v/pyvenv.cfg", FILE, False),
        (f"{SP}/__pycache__/usercustomize.cpython-311.pyc", FILE, False),
        (f"{SP}/q-1.0.dist-info", FOLDER, False),
        (f"{SP}/q-1.0.dist-info/METADATA", FILE, False),
        (f"{SP}/q.egg-info/PKG-INFO", FILE, False),
        (f"{SP}/q.egg-link", FILE, False),
        (f"{SP}/q-1.0-py3.11.egg", FOLDER, False),
        (f"{SP}/q-1.0-py3.11.egg/q/data.json", FILE, False),
        (f"{SP}/q/data.json", FILE, False),
    ],
)
def test_new_things_and_data_are_kept_and_code_of_the_image_stays(path: str, kind: str, kept: bool) -> None:
    change = Change(path, kind, 1)
    owned = {f"{SP}/q/data.json"}

    def ask(how: str) -> merge.Kept:
        return merge.keep([change], how, replaces=_replaces, installed=owned)

    assert ask(NEW) == (([change], []) if kept else ([], [path]))
    assert ask(ALL).changes == [change]
    assert ask(NONE).changes == []


def test_of_an_installed_package_no_directory_stays_that_could_be_imported() -> None:
    owned = {f"{SP}/space/q/__init__.py", f"{SP}/space/q/data.json", "/v/share/doc/q.txt"}
    left = [f"{SP}/space/q/made", f"{SP}/space/q/__pycache__/__init__.cpython-311.pyc"]
    folders = [f"{SP}/space", f"{SP}/space/q", f"{SP}/space/q/__pycache__", "/v/share", "/v/share/doc"]
    mine = [Change(f"{SP}/p/empty", FOLDER, 1), Change("/v/share/note", FILE, 1)]
    changes = [*(Change(path, FOLDER, 1) for path in folders), *(Change(path, FILE, 1) for path in [*owned, *left])]
    kept = merge.keep([*changes, *mine], NEW, replaces=_replaces, installed=owned)
    assert sorted(kept.changes) == sorted([*mine, Change("/v/share", FOLDER, 1)])
    assert sorted(kept.dropped) == sorted([*owned, *left])
    assert merge.keep(changes, ALL, replaces=_replaces, installed=owned) == (changes, [])


def test_of_a_new_environment_nothing_stays_without_what_says_that_it_is_one() -> None:
    mine = [Change("/v/sub", FOLDER, 1), Change("/v/sub/data", FILE, 1), Change("/v/submarine", FILE, 1)]
    changes = [
        *mine[:2],
        Change("/v/sub/pyvenv.cfg", FILE, 1),
        Change("/v/sub/bin", FOLDER, 1),
        Change("/v/sub/bin/python", LINK, 1),
        Change("/v/envs/new", FOLDER, 1),
        Change("/v/envs/new/lib", FOLDER, 1),
        Change("/v/envs/new/lib/libx.txt", FILE, 1),
        Change("/v/envs/new/conda-meta", FOLDER, 1),
        Change("/v/envs/new/conda-meta/history", FILE, 1),
        mine[2],
    ]
    kept = merge.keep(changes, NEW, replaces=_replaces, installed=())
    assert kept.changes == [mine[2]]
    assert {"/v/sub/pyvenv.cfg", "/v/sub/bin/python", "/v/envs/new/lib/libx.txt"} <= set(kept.dropped)
    assert merge.keep(changes, ALL, replaces=_replaces, installed=()) == (changes, [])
    of_the_image = [Change("/v/pyvenv.cfg", FILE, 1), *mine]  # no new environment: the directory is not new
    assert merge.keep(of_the_image, NEW, replaces=_replaces, installed=()).changes == mine


def test_what_a_distribution_owns_is_read_from_its_record() -> None:
    lines = ["q/__init__.py,sha256=x,3", '"q/a,b.json",,', "../../bin/q,,", "q-1.0.dist-info/RECORD,,", ""]
    found = merge.installed({f"{SP}/q-1.0.dist-info/RECORD": lines})
    assert found == {f"{SP}/q/__init__.py", f"{SP}/q/a,b.json", "/v/bin/q", f"{SP}/q-1.0.dist-info/RECORD"}
    older = merge.installed({f"{SP}/q.egg-info/installed-files.txt": ["../q/__init__.py", "PKG-INFO"]})
    assert older == {f"{SP}/q/__init__.py", f"{SP}/q.egg-info/PKG-INFO"}


def test_what_a_package_of_conda_owns_is_gone_with_it() -> None:
    meta = "/v/conda-meta/q-1-0.json"
    owned = merge.of_conda(meta, '{"name": "q", "files": ["lib/libq.a", "share/q/data"]}')
    assert owned == {"/v/lib/libq.a", "/v/share/q/data"}
    assert merge.of_conda(meta, "{}") == merge.of_conda(meta, "half of it") == set()
    paths = [meta, "/v/conda-meta/history", "/v/share/q/data", "/v/lib/libq.a", "/v/lib/mine"]
    changes = [Change(path, FILE, 1) for path in paths]
    kept = merge.keep(changes, NEW, replaces=_replaces, installed=owned)
    assert kept == (changes[-1:], paths[:-1])


@pytest.mark.parametrize(
    ("kinds", "base", "stamp", "who"),
    [
        ([(FILE, 5)], 3, (3, 9), merge.BOTH),  # nobody has changed it since
        ([(FILE, 5)], 3, (0, 0), merge.BOTH),
        ([(FILE, 5)], 3, (4, 9), merge.THEIRS),
        ([(FILE, 5), (GONE, 10)], 3, (4, 9), merge.OURS),
        ([(FILE, 9)], 3, (4, 9), merge.THEIRS),
        ([(FOLDER, 10)], 3, (4, 9), merge.BOTH),  # it was only made
    ],
)
def test_of_two_sides_the_later_one_is_taken(
    kinds: list[tuple[str, int]], base: int, stamp: tuple[int, int], who: str
) -> None:
    assert merge.winner([Change("/d/x", kind, time) for kind, time in kinds], base, stamp) == who


def test_changes_are_grouped_by_directory() -> None:
    changes = [Change("/d", FOLDER, 1), Change("/d/a", FILE, 1), Change("/d/e", FOLDER, 1), Change("/d/e/b", GONE, 1)]
    assert merge.by_folder(changes) == {"/d": changes[:2], "/d/e": changes[2:]}


@pytest.mark.parametrize(
    ("names", "in_image", "useless"),
    [
        (["a.db", "a.db-journal", "a.db-wal"], [], []),
        (["a.db-journal"], [], ["a.db-journal"]),
        (["a.db-wal", "a.db-shm"], ["a.db"], []),
        (["a.lock", "b.tmp", "b"], [], ["a.lock"]),
        ([".lock", "lock"], [], []),
    ],
)
def test_journals_and_locks_go_with_their_file(names: list[str], in_image: list[str], useless: list[str]) -> None:
    assert merge.without_base(names, in_image.__contains__) == useless


@pytest.mark.parametrize(
    ("text", "is_generated"),
    [
        ("\n# parsetab.py\n# This file is automatically generated. Do not edit.\n", True),
        ("# lextab.py. This file automatically created by PLY (version 3.11). Don't edit!", True),
        ('""" Autogenerated OpenBB module."""\n### THIS FILE IS AUTO-GENERATED. DO NOT EDIT. ###', True),
        ("# file generated by setuptools-scm\n# don't change, don't track in version control", True),
        ("# Generated by the protocol buffer compiler.  DO NOT EDIT!", True),
        ("# @generated", True),
        ('"""Names that are generated from others."""\nimport os', False),
        ("created = edit = 1", False),
        ("", False),
    ],
)
def test_a_module_says_itself_that_it_is_generated(text: str, is_generated: bool) -> None:
    assert merge.is_generated(text) == is_generated


def test_bytecode_belongs_to_its_module() -> None:
    assert merge.source_of(f"{SP}/p/__pycache__/a.cpython-311.opt-1.pyc") == f"{SP}/p/a.py"
    assert [merge.source_of(f"{SP}/p/{name}") for name in ("a.pyc", "__pycache__/a.nbi", "a.py")] == [""] * 3


def test_what_is_not_understood_counts_as_new() -> None:
    values = ("", "ALL", "none", "some")
    assert [merge.mode({KEEP: value}) for value in values] == [NEW, ALL, NONE, NEW]
