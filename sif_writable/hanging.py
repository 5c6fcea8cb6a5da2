"""Whether a filesystem answers: asked of those that another machine or a program serves, before anything else is."""

import os

import sif_writable
from sif_writable import let_pass

LOCAL, REMOTE, FUSE = "s", "n", "f"
"""Who serves a filesystem: this kernel, a remote server, or a FUSE daemon. The last two can hang."""

TIMEOUT = 10.0
"""Seconds. A filesystem that has not answered by then is looked at no more."""

timed_out: "list[str]" = []
"""Mount points and paths that did not answer this process; what lies below them is not looked at any more."""

_MAX_LINKS = 40
_LONGEST = 4096
"""Bytes. The kernel does not take longer paths."""


def path_in_table(point):  # type: (bytes) -> str
    """Return a path of the kernel's table of mounts with its spaces and other characters that are escaped there."""
    return os.fsdecode(point).replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")


def may_hang_in(mounted, kinds, local):  # type: (list[bytes], list[bytes], bytes) -> dict[str, str]
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


def hangable_mount_on(path, points):  # type: (str, dict[str, str]) -> tuple[str, str]
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


def wait_for(path, points, *, first=True):  # type: (str, dict[str, str], bool) -> None
    """Wait until the filesystems on the way to a path have answered.

    :param points: from :func:`may_hang_in`; what has answered is taken out, and not waited for again.
    :param first: whether storage may have to be there: else nobody waits.
    :raises TimeoutError: one does not, or would have to be waited for.
    """
    while points:
        point, kind = hangable_mount_on(path, points)
        if not point:
            break
        if not first:
            raise TimeoutError
        if times_out(point, kind):
            timed_out.append(point)  # who decides anew shall not wait for it again
            raise TimeoutError
        del points[point]


def answer_as_then(
    waited,  # type: dict[str, str]
    reached,  # type: frozenset[str]
    points,  # type: dict[str, str]
    left,  # type: dict[str, str]
):
    # type: (...) -> bool
    """Wait for what was waited for then, if the same may hang now.

    :param reached: all directories on the way to what is asked.
    :param points: where filesystems are that may; :param left: those that have not answered yet.
    :raises TimeoutError: one does not answer.
    """
    if {point: kind for point, kind in points.items() if point in reached} != waited:
        return False
    for point in waited:
        wait_for(point, left)
    return True


def times_out(path, kind):  # type: (str, str) -> bool
    """Whether the filesystem under a path does not answer for :data:`TIMEOUT` seconds.

    No call has a time limit, so somebody else has to ask: a thread, which costs a third of a child, or a child.

    :param kind: :data:`REMOTE` or :data:`FUSE`.
    """
    return bool(sif_writable.follow("fuse").times_out(path)) if kind == FUSE else times_out_for_thread(path)


def first_that_times_out(kinds, roots):  # type: (str, list[str]) -> str
    """Return the first of a session's storage roots that does not answer, or an empty string.

    :param kinds: a letter for each root.
    """
    for kind, root in zip(kinds, roots):
        if kind != LOCAL and times_out(root, kind):
            return root
    return ""


def ask(path):  # type: (str) -> None
    """Wait for an answer."""
    try:
        os.statvfs(path)  # always reaches the server; stat may be answered from the attribute cache
    except (OSError, ValueError):
        return  # which is an answer, too


def times_out_for_thread(path):  # type: (str) -> bool
    """Let a thread ask, for :data:`TIMEOUT` seconds."""
    import _thread

    asked = _thread.allocate_lock()
    asked.acquire()
    names: list[str] = []

    def in_thread():  # type: () -> None
        names.append(f"/proc/self/task/{_thread.get_native_id()}")
        ask(path)
        asked.release()

    try:
        _thread.start_new_thread(in_thread, ())
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
