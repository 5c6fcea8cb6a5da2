"""``python -m sif_writable``."""

import sys

from sif_writable.commands.cli import main

if __name__ == "__main__":
    sys.exit(main())
