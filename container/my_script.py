"""A program to try an image with: it compiles a function, and says whether the result was in the cache.

It needs numba, as the images here have it. `python my_script.py NUMBER`; in an array job the number is the task's.
"""

from __future__ import annotations

import os
import sys

import numba


@numba.njit(cache=True)
def square(x: int) -> int:
    """Return the square."""
    return x * x


number = int(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("SLURM_ARRAY_TASK_ID", "7"))
result = square(number)
print(f"{number} squared is {result}: {'loaded from' if square.stats.cache_hits else 'compiled into'} the cache")
