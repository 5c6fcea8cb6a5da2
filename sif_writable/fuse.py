"""Whether a FUSE server answers: a child asks it.

From a server that has taken a request and is stuck with it, not even SIGKILL frees who asked (request_wait_answer in
the kernel's fs/fuse/dev.c), and no process ends before its threads. It imports what is loaded already.
"""

import os
import time

from sif_writable import hanging, let_pass


def times_out(path: str) -> bool:
    """Whether there is no answer for :data:`sif_writable.hanging.TIMEOUT` seconds."""
    from sif_writable import signals

    if not _is_alone():
        return hanging.times_out_for_thread(path)
    own = signals.own_child()
    try:
        with own:
            own.pid = signals.fork()
            return _is_given_up(own.pid, path)
    except (OSError, RuntimeError) as error:  # no more processes, or none from here: it counts as one that answers
        let_pass(error)
        return False


def _is_alone() -> bool:
    """Whether this process may fork: what other threads have locked would stay locked in the child."""
    try:
        return len(os.listdir("/proc/self/task")) == 1
    except OSError as error:
        let_pass(error)
        return False


def _is_given_up(child: int, path: str) -> bool:
    if not child:
        try:
            # A reader of the parent's pipe sees no end of file while this child holds the write end.
            os.closerange(0, 1 + max([int(name) for name in os.listdir("/proc/self/fd")]))
            hanging.ask(path)
        finally:
            os._exit(0)
    begun, pause, killed = time.monotonic(), 0.0002, False
    try:
        while os.waitpid(child, os.WNOHANG)[0] == 0:
            if killed and time.monotonic() > begun + hanging.TIMEOUT + 1:
                return True
            if not killed and time.monotonic() > begun + hanging.TIMEOUT:
                os.kill(child, 9)
                killed = True
            time.sleep(pause)
            pause = min(1.5 * pause, 0.02)
    except OSError as error:  # nobody waits for children here (SIGCHLD is ignored), and this one has ended
        let_pass(error)
        return killed
    return killed
