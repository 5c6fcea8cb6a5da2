"""CUDA versions in the names of distributions, and the drivers that they need."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sif_writable.gpu.cuda import distribution_cuda, has_distribution, highest_cuda, image_cuda, minimum_driver

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("cuda", "driver"),
    [
        ("13.0", "580.65.06"),
        ("12.8", "525.60.13"),
        ("12", "525.60.13"),
        ("11.8", "450.80.02"),
        ("10.1", "418.39"),
        ("9.2", ""),
    ],
)
def test_the_oldest_driver_of_a_cuda_version(cuda: str, driver: str) -> None:
    assert minimum_driver(cuda) == driver


@pytest.mark.parametrize(
    ("driver", "cuda"), [("580.65.06", "13"), ("575.57.08", "12"), ("470.82.01", "11"), ("390.157", "")]
)
def test_the_newest_cuda_of_a_driver(driver: str, cuda: str) -> None:
    assert highest_cuda(driver) == cuda


@pytest.mark.parametrize(
    ("distribution", "cuda"),
    [
        ("torch-2.4.0+cu124", "12.4"),
        ("torch-1.3.0+cu92", "9.2"),
        ("torch-2.4.0+cpu", ""),
        ("torch-2.4.0", ""),
        ("torch-2.4.0+rocm6.1", ""),
        ("nvidia_cuda_runtime_cu12-12.4.127", "12.4"),
        ("nvidia_cuda_runtime-13.0.48", "13.0"),
        ("nvidia_cublas_cu12-12.4.5.8", "12"),
        ("cupy_cuda12x-13.3.0", "12"),
        ("cupy_cuda110-12.0.0", "11.0"),
        ("jax_cuda12_plugin-0.4.30", "12"),
        ("jaxlib-0.4.20+cuda12.cudnn89", "12"),
        ("cudf_cu12-24.8.0", "12"),
        ("cuda_python-12.4.0", ""),
        ("numpy-2.0.0", ""),
    ],
)
def test_cuda_in_the_names_of_distributions(distribution: str, cuda: str) -> None:
    assert distribution_cuda(distribution) == cuda


def test_the_package_that_is_imported_counts_most(tmp_path: Path) -> None:
    for name in ("torch-2.4.0+cu118", "cupy_cuda12x-13.3.0", "nvidia_cuda_runtime_cu12-12.4.127"):
        (tmp_path / f"{name}.dist-info").mkdir()
    path = ["/does/not/exist", str(tmp_path)]
    assert image_cuda(path, {}, "torch") == ("11.8", "torch-2.4.0+cu118")
    assert image_cuda(path, {}, "jax") == ("12.4", "nvidia_cuda_runtime_cu12-12.4.127")
    assert image_cuda([], {"CUDA_VERSION": "12.4.1"}) == ("12.4", "CUDA_VERSION")
    assert image_cuda([], {"CUDA_VERSION": "unknown"}) == ("", "")
    assert has_distribution("cupy_", path)
    assert not has_distribution("onnxruntime_gpu-", path)
