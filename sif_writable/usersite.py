"""The directory of the user's own packages, where HOME is another one than when ``site`` looked for them.

``site`` derives it from HOME before any hook runs, but in a virtual environment. Afterwards all is as in a
process that finds the new HOME from the beginning.
"""

import os
import sys

from sif_writable import let_pass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional


def follow_home(*, make: bool = False, switched_on: bool = False) -> None:
    """Let ``site`` and ``sys.path`` have the user's own packages below the HOME of now.

    :param make: HOME is one of our own: the directory is made, so that what is installed there later is found by a
        process that runs already. ``site`` leaves out what is not there.
    :param switched_on: PYTHONNOUSERSITE was of our making, and has been taken back.
    """
    site: Any = sys.modules.get("site")
    old: Optional[str] = getattr(site, "USER_SITE", None)
    if old is None or (os.environ.get("PYTHONUSERBASE") and not switched_on):  # not looked for yet, or not below HOME
        return
    site.USER_BASE = site.USER_SITE = None
    new: str = site.getusersitepackages() or ""
    known = getattr(sys.modules.get("sysconfig"), "_CONFIG_VARS", None)
    if known and "userbase" in known:
        known["userbase"] = site.USER_BASE
    if switched_on and _nothing_else_forbids_it():
        site.ENABLE_USER_SITE = True
    if not new or not site.ENABLE_USER_SITE:  # as with -s and -I, and in most virtual environments
        return
    if make and not os.path.isdir(new):
        _make(new)
    _replace(os.path.abspath(old), os.path.abspath(new), site)


def again(word: str) -> None:
    """Do what an earlier start has decided: ``ignore`` or ``follow``."""
    if word == "ignore":
        ignore()
    else:
        follow_home(make=True)


def ignore() -> None:
    """Take the user's own packages off the path."""
    site: Any = sys.modules.get("site")
    folder = getattr(site, "USER_SITE", None)
    if folder in sys.path:
        sys.path.remove(folder)
    if site is not None:
        site.ENABLE_USER_SITE = False


def _replace(old: str, new: str, site: "Any") -> None:
    own = site.getsitepackages()
    at = next((number for number, path in enumerate(sys.path) if path in own), len(sys.path))
    if old in sys.path[:at]:
        if old == new:
            return
        begin = sys.path.index(old)
        del sys.path[begin:at]  # what the .pth files in it name stands between it and the image's own
        at = begin
    if not os.path.isdir(new):
        return
    after = sys.path[at:]
    del sys.path[at:]
    try:
        site.addsitedir(new)  # what its .pth files name comes along
    finally:
        sys.path += [path for path in after if path not in sys.path]


def _make(path: str) -> None:
    home = os.path.realpath(os.environ.get("HOME", "/")) + "/"
    if os.path.realpath(path).startswith(home):  # a link may lead out of the directory that is ours
        try:
            os.makedirs(path, 0o700)
        except OSError as error:  # then it is not there, as for a child
            let_pass(error)
            return


def _nothing_else_forbids_it() -> bool:
    arguments = getattr(sys, "orig_argv", None)  # since 3.10
    if arguments is None or sys.flags.isolated or sys.prefix != sys.base_prefix or os.getuid() != os.geteuid():
        return False
    for word in arguments[1:]:
        if word[:1] != "-" or word in ("-c", "-m", "--"):
            break
        if word[1] != "-" and "s" in word:  # -s: the user's wish
            return False
    return True
