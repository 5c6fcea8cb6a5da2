"""What is forgotten of generations: a next one without it, and what layers that were in use then write to it."""

from __future__ import annotations

import os

import pytest

from sif_writable.layer import files, forget, records
from sif_writable.layer.make import newest_generation
from tests.layer.node import PKG, Node

SITE = "/v/lib/python3.11/site-packages"
PATHS = {
    f"{SITE}/numbered/cache/x": ("numbered", f"{SITE}/numbered"),
    f"{SITE}/single.py": ("single", f"{SITE}/single.py"),
    f"{SITE}/__pycache__/single.cpython-311.pyc": ("single", f"{SITE}/__pycache__/single.cpython-311.pyc"),
    f"{SITE}/table.json": ("table.json", f"{SITE}/table.json"),
    f"{SITE}/own.pth": ("own.pth", f"{SITE}/own.pth"),
    f"{SITE}/fast.cpython-311-x86_64-linux-gnu.so": ("fast", f"{SITE}/fast.cpython-311-x86_64-linux-gnu.so"),
    f"{SITE}/known-1.0.dist-info/REQUESTED": ("known", f"{SITE}/known-1.0.dist-info"),
    "/v/julia_env/a/b": ("/v/julia_env", "/v/julia_env"),
    "/v/share/jupyter/kernels/k.json": ("/v/share/jupyter", "/v/share/jupyter"),
    "/usr/share/tool/table": ("/usr/share/tool", "/usr/share/tool"),
}


@pytest.mark.parametrize("path", PATHS)
def test_each_file_belongs_to_what_a_user_would_name(path: str) -> None:
    name, top = PATHS[path]
    assert forget.units([path], lambda _: "", "/v") == [forget.Unit([name], [top])]


def test_a_distribution_is_one_with_all_that_it_installed() -> None:
    record = f"{SITE}/setup_tools-9.dist-info/RECORD"
    paths = [
        *(record, f"{SITE}/setuptools/a.py", f"{SITE}/_hack/b.py", f"{SITE}/hack.pth", "/v/bin/easy"),
        *(f"{SITE}/other/x", "/v/bin/of-nobody"),
    ]
    text = (
        "setuptools/a.py,sha256=x,1\n_hack/b.py,,\nhack.pth,,\n../../../bin/easy,,\nsetup_tools-9.dist-info/RECORD,,\n"
    )
    found = forget.units(paths, lambda path: text if path == record else "", "/v")
    installed = next(unit for unit in found if "setuptools" in unit.names)
    assert set(installed.names) >= {"hack.pth", "setuptools", "_hack", "setup_tools"}
    assert {f"{SITE}/setuptools", f"{SITE}/_hack", f"{SITE}/hack.pth", "/v/bin/easy"} < set(installed.tops)
    assert f"{SITE}/setup_tools-9.dist-info" in installed.tops
    assert [unit.names for unit in found if unit is not installed] == [["/v/bin/of-nobody"], ["other"]]
    for name in ("setup_tools", "_hack", f"{SITE}/hack.pth", f"{SITE}/setuptools/a.py"):
        assert forget.named(found, [name]) == [installed], name
    assert forget.named(found, ["/v/bin", "a.py", "setup"]) == []


@pytest.fixture
def node(request: pytest.FixtureRequest) -> Node:
    """Return a node whose newest generation has files of two packages, and overrides one of the image."""
    made = Node(request.getfixturevalue("tmp_path"))
    layer = made.layer()
    for path in ("one/x", "one/deep/y", "two/x", "config.json"):
        made.write(layer, f"../site-packages/{path}" if path != "config.json" else path, path)
    made.publish(layer)
    return made


PACKAGES = "/v/lib/site-packages"


def test_a_generation_names_the_files_of_the_image_that_it_overrides(node: Node) -> None:
    newest = records.read(node.storage, 1)
    assert newest.overridden == {f"{PKG}/config.json"}
    assert (newest.files, newest.node) == (4, os.uname().nodename)
    os.unlink(f"{node.storage}/gen-1/overridden")  # as an earlier version left it
    os.unlink(f"{node.storage}/gen-1/forgotten")
    assert records.read(node.storage, 1).overridden == set()
    with pytest.raises(FileNotFoundError):
        records.read(node.storage, 7)


@pytest.mark.parametrize("keep", [True, False])
def test_what_is_forgotten_is_not_in_the_next_generation(node: Node, *, keep: bool) -> None:
    number, kept = forget.forget(node.storage, ["one", f"{PKG}/config.json"], keep=keep)
    assert number == newest_generation(node.storage) == 2
    assert forget.contents(records.read(node.storage, 2)) == [f"{PACKAGES}/two/x"]
    assert records.read(node.storage, 2).overridden == set()
    found = sorted(
        os.path.relpath(f"{here}/{name}", kept) for here, _, names in os.walk(kept or "/no") for name in names
    )
    wanted = [f"{PKG[1:]}/config.json", *(f"{PACKAGES[1:]}/one/{name}" for name in ("deep/y", "x"))]
    assert found == (wanted if keep else [])
    assert forget.forget(node.storage, ["one"], keep=True) == (2, "")
    assert newest_generation(node.storage) == 2
    assert not [name for name in os.listdir(node.storage) if name.startswith(".new")]


def test_what_a_layer_in_use_writes_to_it_does_not_come_back(node: Node) -> None:
    layer = node.layer(node.replica())
    node.write(layer, "../site-packages/one/x", "later")
    forget.forget(node.storage, ["one"], keep=False)
    node.write(layer, "../site-packages/one/new/z", "later")
    node.write(layer, "../site-packages/two/y", "later")
    (line,) = node.publish(layer)
    assert line.startswith(
        f"{PACKAGES}/one was forgotten while a program used it, so what that wrote is not kept; it is"
    )
    left = [f"{PKG}/config.json", f"{PACKAGES}/two/x", f"{PACKAGES}/two/y"]
    assert forget.contents(records.read(node.storage, 3)) == left
    assert os.path.exists(f"{line.rpartition(' ')[2]}{PACKAGES}/one/new/z")
    node.write(layer, "../site-packages/two/w", "after it was published once")
    node.publish(layer)
    assert forget.contents(records.read(node.storage, 4)) == sorted([*left, f"{PACKAGES}/two/w"])
    fresh = node.layer(node.replica())  # made after it was forgotten
    node.write(fresh, "../site-packages/one/x", "anew")
    assert node.publish(fresh) == []
    assert f"{PACKAGES}/one/x" in forget.contents(records.read(node.storage, 5))


def test_forgetting_and_publishing_at_once_lose_nothing(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = node.layer(node.replica())
    node.write(layer, "../site-packages/two/y", "y")
    real = files.sync
    done: list[list[str]] = []

    def publish_first(top: str) -> None:
        monkeypatch.setattr(files, "sync", real)
        done.append(node.publish(layer))
        real(top)

    monkeypatch.setattr(files, "sync", publish_first)
    number, _ = forget.forget(node.storage, ["one"], keep=False)
    assert (number, done) == (3, [[]])
    assert forget.contents(records.read(node.storage, 3)) == [
        f"{PKG}/config.json",
        f"{PACKAGES}/two/x",
        f"{PACKAGES}/two/y",
    ]
