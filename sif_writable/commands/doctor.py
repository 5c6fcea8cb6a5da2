"""``sif-writable doctor``: the preflight that a job script or ``%test`` calls first."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sif_writable.report import checks, status, text

if TYPE_CHECKING:
    import argparse


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--require-gpu", action="store_true", help="fail where no GPU meets what is demanded")
    parser.add_argument("--json", action="store_true", help="print the checks as JSON (schema 1)")


def run(arguments: argparse.Namespace) -> int:
    """Print the checks; return 1 when one of them is FAIL."""
    found = checks.checks(status.status(ran=arguments.hook_ran, gpu_required=arguments.require_gpu))
    failed = any(check.level == checks.FAIL for check in found)
    if arguments.json:
        print(json.dumps({"schema": 1, "ok": not failed, "checks": [check._asdict() for check in found]}, indent=2))
        return int(failed)
    paint = text.Painter()
    styles = {checks.PASS: "good", checks.INFO: "head", checks.WARN: "warn", checks.FAIL: "bad"}
    for check in found:
        if arguments.quiet and check.level in (checks.PASS, checks.INFO):
            continue
        print(paint(check.level, styles[check.level]) + text.paragraph(f"{check.name}: {check.text}", 5)[4:])
        if check.remedy:
            print(text.paragraph(f"remedy: {check.remedy}", 5))
    return int(failed)
