"""The recipes of container/examples, run as users run them: their own files and scripts, and a real Apptainer."""

from __future__ import annotations

import os
import re
import shutil
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.conftest import BY_COPY, NOT_RUN, or_skip
from tests.gpu import container
from tests.lab import apt, examples, scratch
from tests.lab.apptainer_root import Apptainer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from subprocess import CompletedProcess

    from tests.lab.apptainer_root import Runtime
    from tests.lab.built import Built

PACKAGE = "/opt/venv/lib/python3.11/site-packages/hypothetical_gpu_lib"
NO_SETTINGS = f"OSError: [Errno 30] Read-only file system: '{PACKAGE}/config.ini'"
CACHE = "/tmp/hypothetical_gpu_cache"
COMPILED, CACHED = "compiled now", "from the cache"
OFF = {"SIF_WRITABLE": "off"}
HOLD = """
apptainer exec --overlay my_overlay.img overlay.sif sh -c 'touch held; while [ ! -e stop ]; do sleep 0.1; done' &
while [ ! -e held ]; do kill -0 $! || exit 99; sleep 0.1; done
"""
"""A shell line that leaves a process with the overlay in the background, until there is a file `stop`."""


class Report(NamedTuple):
    """What a run of the library reported."""

    terms: int
    config: str
    kernels: dict[str, str]
    """Where the kernel of each architecture came from."""


def report(result: CompletedProcess[str]) -> Report:
    """Return what a run reported, and see that each kernel has computed what it should."""
    assert result.returncode == 0, result.stderr
    settings, *lines = result.stdout.splitlines()
    terms, config = settings.split(" terms, says ")
    squares = sum(number * number for number in range(int(terms)))
    kernels = {}
    for line in lines:
        architecture, rest = line.split(f": sum of squares = {squares}, kernel ")
        kernels[architecture] = rest
    return Report(int(terms), config, kernels)


class Folder:
    """A copy of the folder in which a user works, with the images that were built there."""

    def __init__(self, apptainer: Apptainer) -> None:
        """Copy the scripts."""
        self.apptainer = apptainer
        self.path = apptainer.places.work
        for name in os.listdir(examples.FOLDER):
            if name.endswith(".sh"):
                shutil.copy(os.path.join(examples.FOLDER, name), self.path)

    def image(self, name: str, **beside: str) -> Built:
        """Build an image."""
        made: Built = or_skip(lambda: examples.sif(name, **beside))
        os.symlink(self.apptainer.inside(made.path), os.path.join(self.path, f"{name}.sif"))
        return made

    def run(self, *argv: str, env: dict[str, str] | None = None) -> CompletedProcess[str]:
        """Run a command in the folder."""
        path = f"{os.path.dirname(self.apptainer.runtime.program)}:{apt.SYSTEM_PATH}"
        return self.apptainer.beside(argv, env={"PATH": path, "APPTAINER_SILENT": "1", **(env or {})})

    def shell(self, script: str) -> CompletedProcess[str]:
        """Run a shell script in the folder."""
        return self.run("bash", "-c", script)

    def files(self, name: str) -> list[str]:
        """Return the files in a folder of it."""
        found = os.walk(os.path.join(self.path, name))
        return sorted(
            os.path.relpath(os.path.join(here, file), self.path) for here, _, files in found for file in files
        )

    def kept_settings(self, storage: str) -> list[str]:
        """Return where the newest generations in storage have the settings."""
        found = [os.path.join(here, "config.ini") for here, _, files in os.walk(storage) if "config.ini" in files]
        return [path for path in found if "/layer/gen-" in path]


def folder_of(apptainer: Apptainer) -> Folder:
    """Return a folder, or skip the test where the scripts cannot run."""
    folder = Folder(apptainer)
    if folder.run("apptainer", "--version").returncode:
        pytest.skip(f"{NOT_RUN}the examples call apptainer, and this machine has {apptainer.runtime.program}")
    return folder


@pytest.fixture
def folder(apptainer: Apptainer) -> Folder:
    """Return a folder of its own for a test."""
    return folder_of(apptainer)


@pytest.fixture(scope="module")
def kernels(apptainer_runtime: Runtime) -> Iterator[str]:
    """Return a folder with kernels, made outside of any image as files.def says."""
    with scratch.fresh() as places:
        folder = folder_of(Apptainer(apptainer_runtime, places))
        folder.image("bind")
        report(folder.run("./bind.sh"))
        yield os.path.join(folder.path, "gpu_cache")


def test_without_the_hook_the_library_cannot_be_imported(folder: Folder) -> None:
    folder.image("bind")
    for script in ("./bind.sh", "./bind-storage.sh"):
        result = folder.run(script, env=OFF)
        assert result.returncode == 1
        assert result.stderr.splitlines()[-1] == NO_SETTINGS
    assert folder.files("gpu_cache") == []


def test_bind_keeps_the_kernels(folder: Folder) -> None:
    folder.image("bind")
    first, second = report(folder.run("./bind.sh")), report(folder.run("./bind.sh"))
    assert first.kernels == {"cpu": COMPILED}
    assert second == first._replace(kernels={"cpu": CACHED})
    assert first.config == f"{PACKAGE}/config.ini"
    (config,) = folder.kept_settings(folder.apptainer.places.home)
    assert "/.cache/sif-writable/image-" in config
    copied = folder.run("./bind.sh", env=BY_COPY)
    assert "/.cache/sif-writable/image-" in report(copied).config
    assert folder.files("gpu_cache") == ["gpu_cache/cpu-cpython-311.kernel"]
    assert report(folder.run("./bind.sh", "--contain")).kernels == {"cpu": CACHED}


def test_bind_storage_keeps_the_settings_and_what_has_a_bind_of_its_own(folder: Folder) -> None:
    folder.image("bind")
    first, second = report(folder.run("./bind-storage.sh")), report(folder.run("./bind-storage.sh"))
    assert (first.kernels, second.kernels) == ({"cpu": COMPILED}, {"cpu": CACHED})  # in /tmp, which lasts here
    contained = ["./bind-storage.sh", "--contain"]
    assert [report(folder.run(*contained)).kernels for _ in range(2)] == [{"cpu": COMPILED}] * 2
    both = [*contained, "--bind", f"gpu_cache:{CACHE}"]
    assert [report(folder.run(*both)).kernels for _ in range(2)] == [{"cpu": COMPILED}, {"cpu": CACHED}]
    last = report(folder.run(*both))
    assert first.config == second.config == last.config == f"{PACKAGE}/config.ini"
    assert folder.kept_settings(os.path.join(folder.path, "gpu_cache"))
    with open(os.path.join(examples.FOLDER, "README.md"), encoding="utf-8") as file:
        (change,) = re.findall(r"`(apptainer exec --bind gpu_cache:/sif-writable .*)`", file.read())
    assert folder.shell(change.replace("python3.12", "python3.11")).returncode == 0
    assert report(folder.run(*contained)).terms == 30


def test_a_kernel_for_each_architecture(folder: Folder, tmp_path: Path) -> None:
    if not shutil.which("cc"):
        pytest.skip(f"{NOT_RUN}there is no C compiler")
    folder.image("bind")
    shutil.copy(container.build(tmp_path), folder.path)
    with open(os.path.join(folder.path, "libnvidia-ml.conf"), "w", encoding="utf-8") as file:
        file.write("count 3\ngpu0.capability 80\ngpu1.capability 90\ngpu2.capability 80\n")
    options = []
    for name in (container.NVML, "libnvidia-ml.conf"):
        options += ["--bind", f"{folder.apptainer.inside(folder.path)}/{name}:/.singularity.d/libs/{name}"]
    for origin in (COMPILED, CACHED):
        assert report(folder.run("./bind.sh", *options)).kernels == {"sm_80": origin, "sm_90": origin}
    assert report(folder.run("./bind.sh")).kernels == {"cpu": COMPILED}


def test_a_fixed_path_that_cannot_be_written_is_named_with_its_remedy(folder: Folder) -> None:
    folder.image("bind")
    result = folder.run("./bind-storage.sh", "--no-mount", "tmp")
    assert result.returncode == 1
    line = result.stderr.splitlines()[-1]
    assert line.startswith(f"sif_writable: {CACHE} cannot be written, and it belongs to no package")
    assert line.endswith(f"Remedy: bind a directory there (apptainer exec --bind DIRECTORY:{CACHE}).")
    remedy = ["--no-mount", "tmp", "--bind", f"gpu_cache:{CACHE}"]
    assert report(folder.run("./bind-storage.sh", *remedy)).kernels == {"cpu": COMPILED}


@pytest.mark.parametrize("env", [{}, OFF], ids=["hook", "off"])
def test_files_needs_nothing_at_run_time(folder: Folder, kernels: str, env: dict[str, str]) -> None:
    folder.image("files", gpu_cache=kernels)
    expected = Report(2000, f"{PACKAGE}/config.ini", {"cpu": CACHED})
    assert report(folder.run("./files.sh", "--contain", env=env)) == expected
    assert report(folder.run("./files.sh", env=env)) == expected


def test_files_leaves_alone_what_came_later(folder: Folder, kernels: str) -> None:
    folder.image("files", gpu_cache=kernels)
    there = os.path.join(folder.apptainer.places.tmp, "hypothetical_gpu_cache")
    shutil.copytree(kernels, there)
    (kernel,) = os.listdir(there)
    shutil.chown(os.path.join(there, kernel), os.stat(folder.path).st_uid)
    newer = os.stat(os.path.join(there, kernel)).st_mtime + 1000
    os.utime(os.path.join(there, kernel), (newer, newer))
    report(folder.run("./files.sh"))
    assert os.stat(os.path.join(there, kernel)).st_mtime == newer


def test_prestage_bakes_the_settings_and_reports_where_the_kernels_went(folder: Folder) -> None:
    output = " ".join(folder.image("prestage").output.split())
    assert f"written into packages, where it stays: {PACKAGE}/config.ini" in output
    assert f"written to {CACHE}: a run covers /tmp with another, so it is not found there" in output
    expected = Report(1000, f"{PACKAGE}/config.ini", {"cpu": CACHED})
    assert report(folder.run("./prestage.sh", "--contain")) == expected
    assert report(folder.run("./prestage.sh", "--contain", env=OFF)) == expected
    # `exec` does not pass by %runscript.
    without = folder.run("apptainer", "exec", "--contain", "prestage.sif", "hypothetical-gpu-lib")
    assert report(without) == expected._replace(kernels={"cpu": COMPILED})


@pytest.fixture
def overlaid(folder: Folder) -> Folder:
    """Return a folder with the image of way 3, on a machine that can make overlay images."""
    if folder.shell("PATH=$PATH:/usr/sbin:/sbin; command -v mkfs.ext3").returncode:
        pytest.skip(f"{NOT_RUN}there is no mkfs.ext3 beside this machine's Apptainer")
    folder.image("overlay")
    return folder


def test_overlay_keeps_the_settings(overlaid: Folder) -> None:
    expected = Report(1000, f"{PACKAGE}/config.ini", {"cpu": COMPILED})
    assert report(overlaid.run("./overlay.sh")) == expected
    assert not [name for name in os.listdir(overlaid.path) if name.endswith(".new")]
    change = ["sed", "-i", "s/1000/30/", expected.config]
    assert overlaid.run("apptainer", "exec", "--overlay", "my_overlay.img", "overlay.sif", *change).returncode == 0
    # The hook has no part in it.
    assert report(overlaid.run("./overlay.sh", "--contain", env=OFF)) == expected._replace(terms=30)
    assert not os.path.exists(os.path.join(overlaid.apptainer.places.home, ".cache", "sif-writable"))


def test_overlay_keeps_the_kernels_where_tmp_is_the_images(overlaid: Folder) -> None:
    contained = ["./overlay.sh", "--contain"]
    assert [report(overlaid.run(*contained)).kernels for _ in range(2)] == [{"cpu": COMPILED}] * 2
    inside = ["./overlay.sh", "--no-mount", "tmp"]
    assert [report(overlaid.run(*inside)).kernels for _ in range(2)] == [{"cpu": COMPILED}, {"cpu": CACHED}]


@pytest.mark.parametrize("options", ["", "-E root_owner=$(id -u):$(id -g)"], ids=["plain", "root_owner"])
def test_a_plain_filesystem_is_refused(overlaid: Folder, options: str) -> None:
    made = overlaid.shell(
        f"PATH=$PATH:/usr/sbin:/sbin; truncate -s 64M my_overlay.img && mkfs.ext3 -q {options} my_overlay.img"
    )
    assert made.returncode == 0, made.stderr
    refused = overlaid.run("./overlay.sh")
    assert refused.returncode == 255
    assert re.search(r"failed to create \S*/upper directory: .*permission denied", refused.stderr)
    assert "Do one of these" not in refused.stderr


def test_apptainers_own_overlay_image_serves_as_well(overlaid: Folder) -> None:
    made = overlaid.run("apptainer", "overlay", "create", "--size", "64", "my_overlay.img")
    assert made.returncode == 0, made.stderr
    assert report(overlaid.run("./overlay.sh")).kernels == {"cpu": COMPILED}


def test_a_second_process_is_told_what_to_do_instead(overlaid: Folder) -> None:
    report(overlaid.run("./overlay.sh"))
    result = overlaid.shell(f"{HOLD} ./overlay.sh; code=$?; touch stop; wait; exit $code")
    assert result.returncode == 255
    assert "currently in use by another process" in result.stderr  # Apptainer's own words
    assert (
        "./overlay.sh: another process uses my_overlay.img, and an overlay image serves one at a time" in result.stderr
    )
    (remedy,) = [line for line in result.stderr.splitlines() if line.startswith("        apptainer exec")]
    os.unlink(os.path.join(overlaid.path, "stop"))
    os.unlink(os.path.join(overlaid.path, "held"))
    beside = overlaid.shell(f"{HOLD} {remedy}; code=$?; touch stop; wait; exit $code")
    assert report(beside).config == f"{PACKAGE}/config.ini"


def test_what_a_killed_process_leaves_can_be_ended(overlaid: Folder) -> None:
    report(overlaid.run("./overlay.sh"))
    result = overlaid.shell(f"""{HOLD}
    kill -9 $!; wait
    ./overlay.sh 2> said && exit 98
    remedy=$(grep pkill said) || exit 97
    eval "$remedy" || exit 96
    while pgrep fuse2fs > /dev/null; do sleep 0.1; done
    ./overlay.sh""")
    assert report(result).terms == 1000
