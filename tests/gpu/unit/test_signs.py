"""The files and variables that say something about GPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sif_writable.gpu.signs import gather, set_by_image

if TYPE_CHECKING:
    from pathlib import Path


def test_signs_are_read_below_the_root_that_is_given(tmp_path: Path) -> None:
    version = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.124.06  Release Build  (dvs-builder)\n"
    for folder in ("dev", "proc/driver/nvidia/gpus/0000:01:00.0", ".singularity.d/libs", "usr/local/cuda-12.4/compat"):
        (tmp_path / folder).mkdir(parents=True)
    for file in ("dev/nvidia0", "dev/nvidiactl", "dev/null", "dev/dxg", ".singularity.d/libs/libcuda.so.1"):
        (tmp_path / file).touch()
    (tmp_path / "proc/driver/nvidia/version").write_text(version)
    compat = tmp_path / "usr/local/cuda-12.4/compat"
    (compat / "libcuda.so.550.54.15").touch()
    (compat / "libcuda.so.1").symlink_to("libcuda.so.550.54.15")
    (tmp_path / "usr/local/cuda").symlink_to("cuda-12.4")
    environ = {"LD_LIBRARY_PATH": "/nowhere::/usr/local/cuda/compat/:/.singularity.d/libs"}

    seen = gather(environ, [], root=str(tmp_path))
    assert seen.nodes == ("dxg", "nvidia0", "nvidiactl")
    assert (seen.driver, seen.gpus, seen.libs) == ("570.124.06", 1, ("libcuda.so.1",))
    assert seen.libcuda is not None
    assert (seen.libcuda.path, seen.libcuda.version) == ("/usr/local/cuda/compat/libcuda.so.1", "550.54.15")
    assert {one.version for one in seen.compat} == {"550.54.15"}

    seen = gather({"LD_LIBRARY_PATH": "/.singularity.d/libs"}, [], root=str(tmp_path))
    assert seen.libcuda is not None
    assert seen.libcuda.version == "", "the file that --nv binds has no version in its name"

    (tmp_path / "proc/self").mkdir()
    point = "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.535.104.05"
    for shown, mounted in ((point, (point,)), ("/.singularity.d/libs/libnvidia-ml.so.1", ()), ("/data", ())):
        line = f"99 68 254:0 /usr/lib64/libnvidia-ml.so.535.104.05 {shown} ro,nosuid,nodev - ext4 /dev/vda rw\nbad\n"
        (tmp_path / "proc/self/mountinfo").write_text(line)
        assert gather({}, [], root=str(tmp_path)).mounted == mounted

    seen = gather({}, [], root=str(tmp_path / "empty"))
    assert seen.mounted == ()
    assert (seen.nodes, seen.driver, seen.gpus, seen.libs, seen.libcuda, seen.compat) == ((), "", 0, None, None, ())


DOCKER = 'export NVIDIA_VISIBLE_DEVICES="${NVIDIA_VISIBLE_DEVICES:-"all"}"\n'
"""What Apptainer makes of a line of a Dockerfile (internal/pkg/build/sources/conveyorPacker_oci.go)."""


@pytest.mark.parametrize(
    ("script", "environ", "found"),
    [
        (DOCKER, {"NVIDIA_VISIBLE_DEVICES": "all"}, {"NVIDIA_VISIBLE_DEVICES"}),
        (DOCKER, {"NVIDIA_VISIBLE_DEVICES": "2,3"}, set()),
        (DOCKER, {}, set()),
        ("export CUDA_VISIBLE_DEVICES=0\n", {"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES"}),
        ("export PATH=/all\n", {"NVIDIA_VISIBLE_DEVICES": "all"}, set()),
        ("", {"NVIDIA_VISIBLE_DEVICES": "all"}, {"NVIDIA_VISIBLE_DEVICES"}),
        ("", {"NVIDIA_VISIBLE_DEVICES": "0", "CUDA_VISIBLE_DEVICES": "all"}, set()),
    ],
)
def test_what_an_image_sets_is_distinguished_from_what_the_job_sets(
    tmp_path: Path, script: str, environ: dict[str, str], found: set[str]
) -> None:
    if script:
        folder = tmp_path / ".singularity.d/env"
        folder.mkdir(parents=True)
        (folder / "10-docker2singularity.sh").write_text("#!/bin/sh\n" + script)
        (folder / "20-folder.sh").mkdir()  # which no image has
        (folder / "inject-singularity-env.sh").write_text("export NVIDIA_VISIBLE_DEVICES=2,3\n")
    assert set_by_image(environ, str(tmp_path)) == found
