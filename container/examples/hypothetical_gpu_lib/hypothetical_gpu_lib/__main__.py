"""Runs one kernel on each architecture, and says what came of it."""

from __future__ import annotations

import sys

from hypothetical_gpu_lib import CONFIG, kernels, settings


def main() -> None:
    """Print a line for the settings, and one for each architecture."""
    terms = settings.getint("kernel", "terms")
    sys.stdout.write(f"{terms} terms, says {CONFIG}\n")
    for architecture in kernels.architectures():
        kernel = kernels.load(architecture)
        origin = "compiled now" if kernel.compiled else "from the cache"
        sys.stdout.write(f"{architecture}: sum of squares = {kernel.run(terms)}, kernel {origin}\n")


if __name__ == "__main__":
    main()
