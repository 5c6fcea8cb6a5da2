"""What CUDA_VISIBLE_DEVICES names, as torch reads it, and which of the GPUs that are there."""

from __future__ import annotations

import pytest

from sif_writable.gpu.visible import chosen, gpus_to_query, hidden, visible
from tests.gpu.unit.answers import card


@pytest.mark.parametrize(
    ("value", "expected"),
    [  # what torch 2.x makes of it (torch/cuda/__init__.py, _parse_visible_devices)
        ("", []),
        ("0", [0]),
        ("2,0", [2, 0]),
        (" 1 , 2 ", [1, 2]),
        ("9" * 5000, [999999999]),
        ("1gpu2,2ampere", [1, 2]),
        ("+1", [1]),
        ("0,-1,1", [0]),
        ("-1", []),
        ("0,,1", [0]),
        ("0,0", []),
        ("0,1,0", []),
        ("NoDevFiles", []),
        ("GPU-a,GPU-b", ["GPU-a", "GPU-b"]),
        ("GPU-a,GPU-a", []),
        ("GPU-a,MIG-b", ["GPU-a"]),
        ("GPU-a,1", ["GPU-a"]),
        ("MIG-a,MIG-b,GPU-c", ["MIG-a", "MIG-b"]),
        ("0,GPU-a", [0]),
    ],
)
def test_visible_devices_are_read_as_torch_reads_them(value: str, expected: list[int] | list[str]) -> None:
    assert visible(value) == expected


@pytest.mark.parametrize(
    ("value", "is_hidden"),
    [("", True), ("-1", True), ("NoDevFiles", True), ("none", True), ("0", False), ("0,0", False), ("GPU-a", False)],
)
def test_only_what_hides_everything_is_on_purpose(value: str, is_hidden: bool) -> None:
    assert hidden(value) is is_hidden


@pytest.mark.parametrize(
    ("value", "indexes", "stale"),
    [
        ("0", [1], ""),  # GPU 0 is somebody else's: CUDA's first device is NVML's second
        ("1", [], "1"),
        ("GPU-bbbb", [1], ""),
        ("GPU-", [1], ""),
        ("GPU-aaaa", [], "GPU-aaaa"),
        ("MIG-GPU-bbbb2222-0000/1/0", [1], ""),
        ("GPU-bbbb,GPU-bbbb2", [], ""),
    ],
)
def test_gpus_without_permission_have_no_number(value: str, indexes: list[int], stale: str) -> None:
    gpus = [card(0, 4, "Insufficient Permissions"), card(1)]
    units, missing = chosen({"CUDA_VISIBLE_DEVICES": value}, gpus)
    assert ([one.index for one, _ in units], missing) == (indexes, stale)


def test_a_prefix_that_fits_two_gpus_fits_none() -> None:
    assert chosen({"CUDA_VISIBLE_DEVICES": "GPU-"}, [card(), card(1)]) == ([], "GPU-")


@pytest.mark.parametrize(
    ("environ", "count"),
    [
        ({}, 0),
        ({"CUDA_VISIBLE_DEVICES": "0"}, 1),
        ({"CUDA_VISIBLE_DEVICES": "2,0"}, 3),
        ({"CUDA_VISIBLE_DEVICES": "GPU-a"}, 0),
    ],
)
def test_no_more_gpus_are_woken_than_must_be(environ: dict[str, str], count: int) -> None:
    assert gpus_to_query(environ) == count
