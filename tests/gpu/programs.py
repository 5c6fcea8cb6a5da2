"""Programs that tests run in a container."""

from __future__ import annotations

IMPORT = "import os; from sif_writable.gpu import check; check.enforce('torch', os.environ)\n"
CAUSE = IMPORT + "print(os.environ['SIF_WRITABLE_GPU_CHECKED'].split('|')[1])\n"
"""Prints the code of what was found."""
THREADED = "import threading, time; threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
"""Begins a program such that NVML is asked in a fresh interpreter, and not in a fork."""
