"""A free-threaded CPython, which no release of Debian has: compiled from Debian's source, once, in some minutes."""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import tempfile

from tests.lab import apt, debian
from tests.lab.store import provide
from tests.lab.unavailable import LabUnavailable

VERSION, _RELEASE = "3.13", "trixie"
_KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
_OPTIONS = ("--disable-gil", "--disable-test-modules", "--with-ensurepip=no", "LDFLAGS=-s")


def interpreter() -> str:
    """Return the path of the interpreter."""
    debian.require_root()

    def make(path: str) -> None:
        apt.install("gcc", "make", "libc6-dev", "libffi-dev", "zlib1g-dev", "xz-utils")
        with tempfile.TemporaryDirectory() as folder:
            source = _source(folder)
            for command in (
                ["./configure", "-q", f"--prefix={path}/usr", *_OPTIONS],
                ["make", "-s", f"-j{os.cpu_count() or 1}"],
                ["make", "-s", "install"],
            ):
                done = subprocess.run(["nice", *command], cwd=source, capture_output=True, text=True, check=False)
                if done.returncode != 0:
                    raise LabUnavailable(f"compiling it failed: {' '.join(done.stderr.split())[-200:]}")

    return os.path.join(provide("python-313t", (_RELEASE, _OPTIONS, 1), make), "usr", "bin", f"python{VERSION}t")


def _source(folder: str) -> str:
    """Fetch the source and unpack it; return where."""
    with open(f"{folder}/sources.list", "w", encoding="utf-8") as file:
        file.write(f"deb-src [signed-by={_KEYS}] {apt.debian_mirror()} {_RELEASE} main\n")
    for name in ("lists/partial", "cache/archives/partial"):
        os.makedirs(f"{folder}/{name}")
    options = {
        "Dir::Etc::SourceList": f"{folder}/sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State::Lists": f"{folder}/lists",
        "Dir::Cache": f"{folder}/cache",
        "Acquire::Check-Valid-Until": "false",
        "APT::Sandbox::User": "root",
    }
    words = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in options.items())]
    for command in (["update"], ["source", "--download-only", "--tar-only", f"python{VERSION}"]):
        done = subprocess.run([*words, *command], cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise LabUnavailable(f"Debian's source could not be fetched: {done.stderr.strip()[-200:]}")
    (archive,) = glob.glob(f"{glob.escape(folder)}/*.orig.tar.*")
    shutil.unpack_archive(archive, folder)
    (source,) = glob.glob(f"{glob.escape(folder)}/Python-*")
    return source
