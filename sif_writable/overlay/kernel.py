"""What an overlay over a declared path needs of the kernel, and a layer does not."""

from __future__ import annotations

import errno

from sif_writable.layer.kernel import NODEV, NOSUID, escaped, mount


def overlay(lower: str, upper: str, work: str, target: str, *, shared: bool) -> None:
    """Mount an overlay that keeps what is written through a crash.

    :param shared: another process may want the same upper layer: one of the two gets EBUSY.
    """
    layers = f"lowerdir={escaped(lower)},upperdir={escaped(upper)},workdir={escaped(work)}"
    # `index=on` is what makes a second use of the upper layer an error rather than a line in the kernel's log.
    layers += ",index=on" if shared else ",index=off"
    try:
        mount("sif-writable", target, "overlay", NOSUID | NODEV, layers + ",userxattr")
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        # Ubuntu's and Debian's kernels before 5.11 allow it without that word, which they do not know.
        mount("sif-writable", target, "overlay", NOSUID | NODEV, layers)


def privileged() -> bool:
    """Whether this process has any capability.

    :raises OSError: /proc does not say.
    """
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        words = [line.split() for line in file if line.startswith(("CapEff:", "CapPrm:"))]
    return any(int(capabilities, 16) for _, capabilities in words)
