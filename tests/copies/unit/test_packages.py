"""Which package gets a copy: what errors, sources, figures and the learned list say."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import pytest

from sif_writable.copies import policy, units
from sif_writable.copies.known_writers import WRITERS
from sif_writable.copies.ledger import PACKAGE, Line, parse
from sif_writable.copies.units import Unit
from sif_writable.image.sources import Sources

if TYPE_CHECKING:
    from pathlib import Path

GIB, MIB = 1 << 30, 1 << 20


def test_the_limit_and_its_misunderstanding() -> None:
    assert policy.limit({}) == (2 * GIB, "")
    assert policy.limit({policy.MAX: "1MiB"}) == (MIB, "")
    size, note = policy.limit({policy.MAX: "huge"})
    assert size == 2 * GIB
    assert "'huge'" in note


@pytest.mark.parametrize(
    ("copied", "entries", "free", "inodes", "words"),
    [
        (GIB, 10, 9 * GIB, None, ""),
        (3 * GIB, 10, 9 * GIB, None, "takes 3.0 GiB and SIF_WRITABLE_COPYUP_MAX allows 2.0 GiB"),
        (GIB, 10, GIB, None, "takes 1.0 GiB and /place has 1.0 GiB free"),
        (MIB, 100, GIB, 99, "takes 100 files and /place has 99 inodes free"),
    ],
)
def test_room(copied: int, entries: int, free: int, inodes: int | None, words: str) -> None:
    sentence = policy.refusal("pkg", copied, entries, free, inodes, 2 * GIB, "/place")
    assert words in sentence
    assert bool(sentence) == bool(words)
    assert not words or "Remedy: " in sentence


def test_the_learned_list_survives_anything() -> None:
    line = Line(PACKAGE, "a\tb", "/x\ny", "use", "d\r")
    assert parse(f"# comment\n{line}\n{line}\n\npackage\ttoo few\nother\t1\t2\t3\t4\n\ufffd\t\t\t\t\n") == (
        [Line(PACKAGE, "a?b", "/x?y", "use", "d?")],
        3,
    )


@pytest.mark.parametrize(
    ("source", "writes"),
    [
        ("open(os.path.join(os.path.dirname(__file__), 'x'), 'w')", True),
        ("HERE = Path(__file__).parent\n(HERE / 'c').mkdir()", True),
        ("HERE = Path(__file__).parent\ndef f():\n    with (HERE / 'c').open('wb') as g: pass", True),
        ("def where(): return __file__ + 'x'\nshutil.rmtree(where())", True),
        ("def save(to): open(to, 'a')\nsave(__file__ + '.log')", True),
        ("if not os.access(os.path.dirname(__file__), os.W_OK): raise RuntimeError", True),
        ("os.open(__file__ + 'x', os.O_RDWR | os.O_CREAT)", True),
        ("os.open(__file__ + 'x', 0o101)", True),
        ("os.open(__file__ + 'x', 0)", False),
        ("open(__file__ + 'x', True)", False),
        ("p = files(__package__) / 'x'\np.write_text('')", True),
        ("open(os.path.join(os.path.dirname(__file__), 'x'))", False),
        ("open(os.path.join(os.path.dirname(__file__), 'x'), 'rb').read()", False),
        ("open('out', 'w'); here = __file__", False),
        ("name = __file__.replace('.py', '')", False),
        ("os.makedirs(os.environ['HOME'])", False),
    ],
)
def test_what_sources_show(tmp_path: Path, source: str, writes: bool) -> None:
    path = tmp_path / "m.py"
    path.write_text(source)
    assert bool(Sources([str(path)]).write()) == writes


def test_so_much_of_sources_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "open(__file__ + 'x', 'w')"
    for name in ("a", "b"):
        (tmp_path / f"{name}.py").write_text(text if name == "b" else " " * len(text))
    paths = [f"{tmp_path}/{name}.py" for name in ("a", "none", "b")]
    assert Sources(paths).write() == f"{tmp_path}/b.py:1"
    monkeypatch.setattr("sif_writable.image.sources.MAX_BYTES", len(text))
    assert Sources(paths).write() == ""


def test_sources_of_several_modules(tmp_path: Path) -> None:
    (tmp_path / "paths.py").write_text("import os\nROOT = os.path.dirname(__file__)\n")
    (tmp_path / "use.py").write_text("from .paths import ROOT\ndef f():\n    open(ROOT + '/x', 'w')\ndef g(): pass\n")
    (tmp_path / "broken.py").write_text("def (")
    read = Sources([str(tmp_path / name) for name in ("use.py", "paths.py", "broken.py", "absent.py")])
    use = str(tmp_path / "use.py")
    assert read.write() == f"{use}:3"


def _tree(top: Path, text: str) -> str:
    for name in textwrap.dedent(text).split():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return str(top)


def test_which_unit_a_path_belongs_to(tmp_path: Path) -> None:
    sp = _tree(
        tmp_path,
        "pkg/__init__.py pkg/sub/__init__.py mod.py ns/part/__init__.py ns/mod.py pkg.libs/x.so c.pyc o.abi3.so",
    )
    cases = {
        "pkg/data/x": Unit("pkg", sp, "pkg"),
        "pkg/sub/x": Unit("pkg", sp, "pkg"),
        "pkg/../data": Unit("pkg", sp, "pkg"),
        "mod.py": Unit("mod", sp, "mod.py"),
        "ns/part/x": Unit("ns.part", f"{sp}/ns", "part"),
        "ns/mod.py": Unit("ns.mod", f"{sp}/ns", "mod.py"),
        "c.pyc": Unit("c", sp, "c.pyc"),
        "o.abi3.so": Unit("o", sp, "o.abi3.so"),
        "ns/x": None,
        "pkg.libs/x.so": None,
        "new/x": None,
    }
    assert {path: units.unit_at(f"{sp}/{path}", [sp]) for path in cases} == cases


def test_libraries_are_linked_and_what_may_be_rewritten_is_not() -> None:
    assert policy.is_linked("x.cpython-311-x86_64-linux-gnu.so", 2 * MIB)
    assert policy.is_linked("libx.so.1.2", 2 * MIB)
    assert policy.is_linked("x.so", 10)
    assert policy.is_linked("x.a", 2 * MIB)
    assert not policy.is_linked("x.a", 10)
    assert not policy.is_linked("model.bin", GIB)
    assert not policy.is_linked("chromedriver", 20 * MIB)


def test_every_known_writer_has_its_reason() -> None:
    assert all(name and why and source for name, why, source in WRITERS)
    assert len({name for name, _, _ in WRITERS}) == len(WRITERS)
