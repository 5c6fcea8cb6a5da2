"""``sif-writable status``: what was seen, decided and done, and why."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sif_writable.report import status, text

if TYPE_CHECKING:
    import argparse


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--json", action="store_true", help="print the status as JSON (schema 1)")
    parser.add_argument("--full", action="store_true", help="count all sizes, however long it takes")
    parser.add_argument("--no-gpu", action="store_true", help="do not ask NVML for the GPUs")
    parser.add_argument("--verbose", action="store_true", help="list each location that was left alone, too")


def run(arguments: argparse.Namespace) -> int:
    """Print the status; always 0."""
    model = status.status(ran=arguments.hook_ran, full=arguments.full, gpu=not arguments.no_gpu)
    if arguments.json:
        print(json.dumps(model, indent=2))
    else:
        print(text.render(model, text.Painter(), verbose=arguments.verbose), end="")
    return 0
