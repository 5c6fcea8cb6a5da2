"""Which directory is HOME? Asked where the variable does not say it, and by whoever decides anew.

It imports only what is loaded already.
"""

import os

from sif_writable import let_pass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional


def home_directory(found: "Optional[str]") -> str:
    """Return the directory that ``~`` stands for: HOME or, where that is not set, what the passwd entry says.

    :param found: the value of HOME.
    :returns: an empty string where there is neither.
    """
    if found is None:
        import pwd  # built in, and loaded already: site looks for the user's packages below the same directory

        try:
            found = pwd.getpwuid(os.getuid()).pw_dir
        except KeyError:
            return ""
    if found[:1] not in ("", "/"):  # from the working directory on, as everybody reads it
        try:
            return os.path.abspath(found)
        except OSError as error:  # which is gone
            let_pass(error)
    return found
