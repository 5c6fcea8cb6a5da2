"""Whether a filesystem answers: asked of those that another machine or a program serves, before anything else is."""

import os

from sif_writable import let_pass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

LOCAL, REMOTE, FUSE = "s", "n", "f"
"""Who serves a filesystem: this kernel, a remote server, or a FUSE daemon. The last two can hang."""

TIMEOUT = 10.0
"""Seconds. A filesystem that has not answered by then is looked at no more."""

timed_out: "list[str]" = []
"""Mount points and paths that did not answer this process; what lies below them is not looked at any more."""

_MAX_LINKS = 40
_LONGEST = 4096
"""Bytes. The kernel does not take longer paths."""


def path_in_table(point: bytes) -> str:
    """Return a path of the kernel's table of mounts with its blanks and other characters that are escaped there."""
    return os.fsdecode(point).replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")


def may_hang_in(mounted: "Iterable[bytes]", kinds: "Iterable[bytes]", local: bytes) -> "dict[str, str]":
    """Return where filesystems are that may stop answering, but for the root, with REMOTE or FUSE.

    :param mounted: mount points, as in the kernel's table.
    :param kinds: the type of the filesystem at each.
    :param local: types that do not (:data:`sif_writable.warm.LOCAL`).
    """
    found = {}
    for point, kind in zip(mounted, kinds):
        if b" %s " % kind not in local and point != b"/":
            found[path_in_table(point)] = FUSE if kind.startswith(b"fuse") else REMOTE
    return found


def hangable_mount_on(path: str, points: "Mapping[str, str]") -> "tuple[str, str]":
    """Return (mount point, kind) of the first of ``points`` that resolving a path passes through, or ("", LOCAL).

    Only what lies before that mount is looked at, since links there may lead to it.

    :param path: absolute.
    :param points: from :func:`may_hang_in`.
    """
    for _ in range(_MAX_LINKS if points and len(path) < _LONGEST else 0):
        here = ""
        parts = [part for part in path.split("/") if part not in ("", ".")]
        for number, part in enumerate(parts):
            parent, here = here, f"{here}/{part}"
            if part == "..":
                here = os.path.dirname(parent)
            if here in points:
                return here, points[here]
            try:
                leads_to = os.readlink(here)
            except OSError as error:  # it is none, or is not there
                if error.errno not in (2, 20, 22):  # ENOENT, ENOTDIR, EINVAL
                    let_pass(error)
                continue
            path = os.path.join(parent or "/", leads_to, *parts[number + 1 :])
            break
        else:
            break
    return "", LOCAL


class Waiting:
    """Waits for filesystems that may stop answering, for each once."""

    def __init__(self, points: "dict[str, str]") -> None:
        """Take the points, from :func:`may_hang_in`."""
        self.points = points
        self._left = dict(points)

    def wait_for(self, path: str, *, first: bool = True) -> None:
        """Wait until the filesystems on the way to a path have answered.

        :param first: whether storage may have to be there: else nobody waits.
        :raises TimeoutError: one does not, or would have to be waited for.
        """
        while self._left:
            point, kind = hangable_mount_on(path, self._left)
            if not point:
                break
            if not first:
                raise TimeoutError
            if times_out(point, kind):
                timed_out.append(point)  # who decides anew shall not wait for it again
                raise TimeoutError
            del self._left[point]


def times_out(path: str, kind: str) -> bool:
    """Whether the filesystem under a path does not answer for :data:`TIMEOUT` seconds.

    No call has a time limit, so somebody else has to ask. A thread costs a third of a child. But from a FUSE server
    that has taken a request and is stuck with it, not even SIGKILL frees who asked (request_wait_answer in the kernel's
    fs/fuse/dev.c), and no process ends before its threads.

    :param kind: :data:`REMOTE` or :data:`FUSE`.
    """
    return _times_out_for_child(path) if kind == FUSE and _is_alone() else _times_out_for_thread(path)


def _is_alone() -> bool:
    """Whether this process may fork: what other threads have locked would stay locked in the child."""
    try:
        return len(os.listdir("/proc/self/task")) == 1
    except OSError as error:
        let_pass(error)
        return False


def _ask(path: str) -> None:
    try:
        os.statvfs(path)  # always reaches the server; stat may be answered from the attribute cache
    except (OSError, ValueError):
        return  # which is an answer, too


def _times_out_for_thread(path: str) -> bool:
    import _thread

    asked = _thread.allocate_lock()
    asked.acquire()
    names: list[str] = []

    def ask() -> None:
        names.append(f"/proc/self/task/{_thread.get_native_id()}")
        _ask(path)
        asked.release()

    try:
        _thread.start_new_thread(ask, ())
    except RuntimeError as error:  # this process may have no more threads: all is as with a filesystem that answers
        let_pass(error)
        return False
    if not asked.acquire(True, TIMEOUT):
        return True
    # It has done its work and is about to end. The program must not meet it: with two threads os.fork warns, since
    # CPython 3.12, and unshare(2) makes no user namespace.
    for _ in range(1000):
        if not os.access(names[0], os.F_OK):
            break
        asked.acquire(True, 0.00002)
    return False


def _times_out_for_child(path: str) -> bool:
    from sif_writable import signals

    own = signals.own_child()
    try:
        with own:
            own.pid = signals.fork()
            return _is_given_up(own.pid, path)
    except (OSError, RuntimeError) as error:  # no more processes, or none from here: as above
        let_pass(error)
        return False


def _is_given_up(child: int, path: str) -> bool:
    import time

    if not child:
        try:
            # A reader of the parent's pipe sees no end of file while this child holds the write end.
            os.closerange(0, 1 + max([int(name) for name in os.listdir("/proc/self/fd")]))
            _ask(path)
        finally:
            os._exit(0)
    begun, pause, killed = time.monotonic(), 0.0002, False
    try:
        while os.waitpid(child, os.WNOHANG)[0] == 0:
            if killed and time.monotonic() > begun + TIMEOUT + 1:
                return True
            if not killed and time.monotonic() > begun + TIMEOUT:
                os.kill(child, 9)
                killed = True
            time.sleep(pause)
            pause = min(1.5 * pause, 0.02)
    except OSError as error:  # nobody waits for children here (SIGCHLD is ignored), and this one has ended
        let_pass(error)
        return killed
    return killed
