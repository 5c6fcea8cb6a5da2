"""Apply a function to many things on all processors, where that can be had; in this process where not."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

T = TypeVar("T")
R = TypeVar("R")


def parallel(
    function: Callable[[T], R], things: Sequence[T], *, many: int = 16, at_once: int = 1
) -> Generator[R, None, None]:
    """Yield the results in the order of the things.

    :param function: a function of a module, which does not depend on what this process did before.
    :param many: things from which on starting more processes pays; :param at_once: things that one gets together.
    """
    processes = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # PyPy
    done = 0
    if len(things) >= many and processes > 1:
        from concurrent.futures import BrokenExecutor, ProcessPoolExecutor

        # Without /dev/shm there are no semaphores, and short of memory a process may be killed.
        lacking = contextlib.suppress(ImportError, NotImplementedError, OSError, BrokenExecutor)
        with lacking, ProcessPoolExecutor(processes) as pool:
            for result in pool.map(function, things, chunksize=at_once):
                yield result
                done += 1
    for thing in things[done:]:
        yield function(thing)
