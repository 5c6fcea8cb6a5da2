"""Stamps of copies: what counts of an original, and what a damaged or missing one is worth."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from sif_writable.copies import validity
from sif_writable.system import image_mounts

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("0123\n/sp/RECORD\n/sp/pkg\n", ("0123", "/sp/RECORD", "/sp/pkg")),
        ("0123\n\n/sp/pkg\n", ("0123", "", "/sp/pkg")),
        ("0123\n/sp/RECORD\n", None),
        ("", None),
        ("0123\na\nb\nc\nd\n", None),
    ],
)
def test_a_stamp_is_whole_or_none(tmp_path: Path, text: str, fields: tuple[str, ...] | None) -> None:
    (tmp_path / "stamp").write_text(text)
    found = validity.read_stamp(f"{tmp_path}/stamp")
    assert (None if found is None else (found.fingerprint, found.record, found.path)) == fields


def test_what_is_no_file_is_no_stamp(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("stamp")
    (tmp_path / "stamp").write_text("0123\n\n/sp/pkg\n")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "folder", "pipe", "nothing"):
        assert validity.read_stamp(f"{tmp_path}/{name}") is None


def test_names_of_stamps_are_bounded_and_differ() -> None:
    long = "/sp/" + "d" * 250
    files = [validity.stamp_file("/copies", path) for path in (long + "/pkg", long + "/x/pkg", "/sp/a%2Fb", "/sp/a/b")]
    assert len(set(files)) == 4
    assert [os.path.dirname(file) for file in files] == ["/copies/stamps"] * 4
    assert all(len(os.path.basename(file)) <= 200 for file in files)
    assert files[0].endswith("-pkg")


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Return a package with a source, a folder and links."""
    folder = tmp_path / "pkg"
    (folder / "inner").mkdir(parents=True)
    (folder / "__init__.py").write_text("a = 1\n")
    (folder / "inner/data").write_text("data")
    (folder / "link").symlink_to("inner/data")
    (folder / "lost").symlink_to("nowhere")
    (folder / "__pycache__").mkdir()
    return folder


def test_the_fingerprint_is_that_of_the_files(package: Path, tmp_path: Path) -> None:
    record = tmp_path / "RECORD"
    seen = {validity.fingerprint(str(package), str(record))}  # it is not there: as empty
    assert validity.fingerprint(str(package), str(record)) in seen
    (package / "__pycache__/x.pyc").write_text("says nothing that its source does not")
    os.utime(package / "__pycache__", (1, 1))
    assert validity.fingerprint(str(package), str(record)) in seen
    record.write_text("pkg/__init__.py,sha256=x,6\n")
    times = os.stat(package / "__init__.py")
    changes: tuple[Callable[[], object], ...] = (
        lambda: (package / "__init__.py").write_text("a = 2\n"),  # of the same size and time
        lambda: (package / "inner/data").write_text("longer"),
        lambda: (package / "nowhere").write_text("now it leads somewhere"),
        lambda: record.write_text("pkg/__init__.py,sha256=y,6\n"),
    )
    for change in changes:
        seen.add(validity.fingerprint(str(package), str(record)))
        change()
        os.utime(package / "__init__.py", ns=(times.st_atime_ns, times.st_mtime_ns))
    seen.add(validity.fingerprint(str(package), str(record)))
    assert len(seen) == len(changes) + 2


def test_only_so_many_entries_are_compared(tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(validity.RECORDED_ENTRIES + 1):
        (folder / f"{number:04}").touch()
    os.utime(folder, (1, 1))
    record = tmp_path / "RECORD"
    record.write_text("many/0000,,\n")
    seen = [(validity.fingerprint(str(folder), ""), validity.fingerprint(str(folder), str(record)))]
    (folder / f"{validity.RECORDED_ENTRIES:04}").write_text("changed")
    seen.append((validity.fingerprint(str(folder), ""), validity.fingerprint(str(folder), str(record))))
    assert seen[0][0] != seen[1][0]
    assert seen[0][1] == seen[1][1]  # the RECORD shows it


def test_a_copy_that_others_may_write_or_that_is_gone_is_not_ours(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_mounts, "environment_directory", lambda _: "/")
    folder = tmp_path / "copies"
    folder.mkdir(mode=0o700)
    assert validity.state(str(folder), str(package)) == validity.ABSENT
    copy = folder / f"tree{package}"
    copy.mkdir(parents=True)
    for path in (folder / "tree", copy):
        path.chmod(0o700)
    assert validity.state(str(folder), str(package)) == validity.CHANGED  # it is not known from what it was made
    stamp = validity.stamp_file(str(folder), str(package))
    os.mkdir(os.path.dirname(stamp))
    with open(stamp, "w", encoding="ascii") as file:
        file.write(f"{validity.fingerprint(str(package), '')}\n\n{package}\n")
    assert validity.state(str(folder), str(package)) == validity.GOOD
    os.rename(copy, tmp_path / "aside")
    copy.symlink_to(package)
    assert validity.state(str(folder), str(package)) == validity.ABSENT  # a neighbour of copies
    copy.unlink()
    os.rename(tmp_path / "aside", copy)
    copy.chmod(0o777)
    assert validity.state(str(folder), str(package)) == validity.UNTRUSTED
    os.rename(folder, tmp_path / "moved")
    folder.symlink_to("moved")
    assert validity.state(str(folder), str(package)) == validity.UNTRUSTED  # a link is nobody's
    monkeypatch.setattr(image_mounts, "environment_directory", lambda _: "")
    assert validity.state(str(folder), str(package)) == validity.HOST
