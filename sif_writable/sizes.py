"""How sizes and counts are written, by the user and for the user: the one place that reads and prints them.

The units are those of GNU coreutils ("Block size" in its manual): ``20G`` and ``20GiB`` are 20 x 1024^3 bytes,
``20GB`` is 20 x 1000^3. So cards that are sold as 80 GB (NVML counts 85,520,809,984 bytes) meet a demand of ``80GB``.
"""

MOST = (1 << 63) - 1
"""Bytes; more than any filesystem or memory holds."""

FORMS = "bytes, or a number with a unit, such as 500MiB or 20G (powers of 1024) or 20GB (powers of 1000)"
"""What :func:`parse_size` understands, for messages."""

_LETTERS = "KMGTPE"
_UNITS = {"": 1, "B": 1}
for _power, _letter in enumerate(_LETTERS, 1):
    _UNITS[_letter] = _UNITS[_letter + "IB"] = _UNITS[_letter + "I"] = 1024**_power
    _UNITS[_letter + "B"] = 1000**_power


def parse_size(text: str) -> "int | None":
    """Return the bytes that a text such as ``21474836480``, ``20GiB``, ``20 GB`` or ``1.5g`` stands for, or None.

    Capitals do not matter. A sign, an exponent, ``inf`` and what is larger than :data:`MOST` are not understood.
    """
    text = text.strip().upper()
    number = text.rstrip("B" + _LETTERS + "I \t")
    unit = _UNITS.get(text[len(number) :].strip())
    whole, point, fraction = number.partition(".")
    digits = whole + fraction
    if unit is None or not digits.isascii() or not whole.isdigit() or (point and not fraction.isdigit()):
        return None
    if len(digits) > 40:  # no size; and int() refuses 4,300 digits and more
        return None
    size = int(digits) * unit // 10 ** len(fraction)
    return size if size <= MOST else None


def count(number: int, one: str = "file", many: str = "") -> str:
    """Return a number of things in words, such as ``1 file`` or ``1,200 files``.

    :param many: where that is not the singular and an s.
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def human(size: int) -> str:
    """Return a number of bytes in the unit that reads best, such as ``1.5 GiB``."""
    if size < 1024:
        return f"{size} B"
    value, unit = size / 1024, "KiB"
    for larger in ("MiB", "GiB", "TiB"):
        if value >= 1024:
            value, unit = value / 1024, larger
    return f"{value:.0f} {unit}" if value >= 100 else f"{value:.1f} {unit}"
