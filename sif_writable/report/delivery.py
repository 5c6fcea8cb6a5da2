"""How the hook got into this interpreter, or why it did not, and what to do then."""

from __future__ import annotations

import os
import site
import sys
from typing import NamedTuple

from sif_writable.attach import variables

_CALL = "a call of sif_writable.run()"


class Delivery(NamedTuple):
    """How the hook is delivered."""

    how: str
    """The file that starts it, or an empty string."""
    problem: str
    """Why it does not run at interpreter start, or an empty string."""
    remedy: str
    """What to do about the problem."""


def delivery(ran: bool) -> Delivery:
    """Find out what starts the hook in this environment.

    :param ran: whether the hook had run by itself when this process began.
    """
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    parent = os.path.dirname(package)
    custom = getattr(sys.modules.get("sitecustomize"), "__file__", None) or ""
    ours = os.path.join(package, "hook", "sitecustomize.py")
    if ran:
        on_path = os.path.join(package, "hook") in map(os.path.realpath, os.environ.get("PYTHONPATH", "").split(":"))
        for directory in _site_directories():
            for name in ("sif_writable.pth", variables.PTH):
                path = os.path.join(directory, name)
                if os.path.isfile(path):
                    return Delivery(path, "", "")
        if on_path or os.path.realpath(custom) == os.path.realpath(ours):
            return Delivery(ours, "", "")
        found = os.path.join(parent, "sif_writable.pth")
        if parent in sys.path and parent not in os.environ.get("PYTHONPATH", "").split(":") and os.path.isfile(found):
            return Delivery(found, "", "")  # by site.addsitedir of another one: a virtual environment above ours
        # Where the host's PYTHONPATH follows an attached folder's, this package may be the host's.
        return Delivery(custom if custom.endswith("/sif_writable/hook/sitecustomize.py") else _CALL, "", "")
    if sys.flags.no_site:
        return Delivery("", "this interpreter was started with -S, which switches every start-up hook off", "drop -S")
    if any(os.path.isfile(os.path.join(d, "sif_writable.pth")) for d in _site_directories()):
        return Delivery(
            "",
            "sif_writable.pth is in place but did not run; its first lines on stderr say why",
            "run: python -v -c pass 2>&1 | grep sif_writable",
        )
    return Delivery(
        "",
        f"{parent} is not a site directory of this interpreter (pip install --target?), so its .pth file is not read",
        f"set PYTHONPATH={os.path.join(package, 'hook')}, or install into the environment itself",
    )


def _site_directories() -> list[str]:
    directories = list(site.getsitepackages())
    if site.ENABLE_USER_SITE:
        directories.append(site.getusersitepackages())
    return directories
