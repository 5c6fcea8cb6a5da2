"""Access lists of NFSv4, which the mode of a directory does not show."""

from __future__ import annotations

import struct

import pytest

from sif_writable.system.access import names_others

ALLOW, DENY = 0, 1
READ, PASS = 0x01, 0x20


def listed(*entries: tuple[int, int, bytes]) -> bytes:
    """Put an access list as the kernel's client does."""
    return struct.pack(">I", len(entries)) + b"".join(
        struct.pack(">IIII", kind, 0, rights, len(who)) + who + bytes(-len(who) % 4) for kind, rights, who in entries
    )


OWN = [(ALLOW, READ | PASS, b"OWNER@"), (ALLOW, 0, b"GROUP@"), (DENY, PASS, b"EVERYONE@")]


@pytest.mark.parametrize(
    ("access_list", "found"),
    [
        (listed(), False),
        (listed(*OWN), False),
        (listed(*OWN, (ALLOW, PASS, b"alice@example.org")), True),
        (listed((ALLOW, READ, b"alice@example.org"), *OWN), False),
        (listed((DENY, PASS, b"alice@example.org"), *OWN), False),
        (listed(*OWN)[:-3], False),  # the filling of the last name
        (listed(*OWN)[:-14], True),
        (b"", True),
        (b"\xff" * 40, True),
    ],
)
def test_who_is_named_besides_the_mode(access_list: bytes, found: bool) -> None:
    assert names_others(access_list) is found
