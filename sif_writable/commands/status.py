"""``sif-writable status``: what was seen, decided and done, and why."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sif_writable.report import status, summary, text

if TYPE_CHECKING:
    import argparse


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--json", action="store_true", help="print the status as JSON (schema 1)")
    parser.add_argument("--full", action="store_true", help="count all sizes, however long it takes")
    parser.add_argument("--no-gpu", action="store_true", help="do not ask NVML for the GPUs")
    parser.add_argument("--verbose", action="store_true", help="everything, not what fits into a ticket")


def run(arguments: argparse.Namespace) -> int:
    """Print the status; always 0."""
    model = status.status(ran=arguments.hook_ran, full=arguments.full, gpu=not arguments.no_gpu)
    if arguments.json:
        print(json.dumps(model, indent=2))
    elif arguments.quiet:
        print("".join(summary.problems(model)), end="")
    else:
        print((text if arguments.verbose else summary).render(model, text.Painter()), end="")
    return 0
