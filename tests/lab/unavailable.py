"""What a lab part raises when this machine cannot provide it."""

from __future__ import annotations


class LabUnavailable(Exception):  # noqa: N818
    """The reason, in words; tests that need the part are reported as not run, with these words."""
