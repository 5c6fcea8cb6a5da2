"""One meaning of sizes for all settings and options, and one way to print them."""

from __future__ import annotations

import pytest

from sif_writable.cleanup import policy
from sif_writable.copies import policy as plan
from sif_writable.gpu import demands
from sif_writable.sizes import MOST, human, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("21474836480", 20 << 30),
        ("7B", 7),
        ("20GiB", 20 << 30),
        ("20 gib", 20 << 30),
        (" 20Gi ", 20 << 30),
        ("20G", 20 << 30),
        ("20GB", 20 * 10**9),
        ("500 M", 500 << 20),
        ("512MiB", 512 << 20),
        ("1.5g", 3 << 29),
        ("0.5GiB", 1 << 29),
        ("64KB", 64000),
        ("1TiB", 1 << 40),
        ("1P", 1 << 50),
        ("0.1K", 102),
        ("9223372036854775807", MOST),
    ],
)
def test_a_size_is_understood(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "lots", "-1", "+1", "-1G", "5 parsecs", "20 gigs", "GiB", "1.GiB", ".5G", "1.5.2G", "1e9", "2 G B"),
        *(
            "inf",
            "nan",
            "infinity",
            "0x10",
            "1,5G",
            "1_000",
            "G20",
            "20GG",
            "20iB",
            "20BG",
            "\u0663G",
            "\u00b2",
            "1G\n2",
        ),
        *("9223372036854775808", "8E", "9" * 30, "9" * 5000, "0." + "1" * 5000 + "G", "9" * 400 + "G"),
    ],
)
def test_what_is_no_size_is_not_understood(text: str) -> None:
    assert parse_size(text) is None


@pytest.mark.parametrize("text", ["20GB", "20G", "20GiB", "20gib", "1.5G", "20 GB", "inf", "-1", "9" * 5000])
def test_all_settings_read_a_size_alike(text: str) -> None:
    """It matters most for GPUs: a card of 80 GB has 79.6 GiB."""
    memory = demands.read({demands.MIN_MEMORY: text}, {})
    limit, note = plan.limit({plan.MAX: text})
    assert (memory.memory or None) == parse_size(text)
    assert limit == (parse_size(text) or plan.MAX_COPIES)
    assert bool(note) == bool(memory.not_understood) == (parse_size(text) is None)


@pytest.mark.parametrize("text", ["", " ", "\t"])
def test_all_settings_take_blanks_for_unset(text: str) -> None:
    assert plan.limit({plan.MAX: text}) == (plan.MAX_COPIES, "")
    assert policy.limit({policy.MAX: text}) == policy.limit({})
    assert not demands.read({demands.MIN_MEMORY: text}, {}).not_understood


@pytest.mark.parametrize(
    ("size", "text"),
    [
        *((0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (64 << 20, "64.0 MiB"), (85520809984, "79.6 GiB")),
        *((200 << 30, "200 GiB"), (5 << 40, "5.0 TiB"), (5 << 50, "5120 TiB")),
    ],
)
def test_sizes_for_people(size: int, text: str) -> None:
    assert human(size) == text


@pytest.mark.parametrize("text", ["", "-1d", "inf", "1e3d", "\u0663d", "9" * 400 + "d", "30", "d"])
def test_what_is_no_duration_is_not_understood(text: str) -> None:
    assert policy.parse_duration(text) is None
