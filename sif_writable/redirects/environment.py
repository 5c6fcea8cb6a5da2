"""Set what was decided: folders and links are made, then variables are set, then the decisions are handed down."""

import os
import sys

from sif_writable import DIR, SESSION
from sif_writable.child import COPIES, MORE_HEAVY, PATHS, PYCACHE, SHARED_IN, inputs
from sif_writable.hanging import LOCAL, hangable_mount_on, timed_out
from sif_writable.redirects.decision import Outcome
from sif_writable.session import OLD, REFUSED, SAID, check_sum, was_set
from sif_writable.storage import candidates, layout
from sif_writable.storage.kinds import COMPILED, CONFIG
from sif_writable.system.timeouts import has_timed_out, may_hang

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Optional

    from sif_writable.redirects.decision import Decision
    from sif_writable.redirects.locations import Locations
    from sif_writable.storage.chosen import Storage
    from sif_writable.system.surroundings import Facts

_DECLARED = {MORE_HEAVY: ("heavy", ",,"), PATHS: ("overlay", "::")}
"""Lists to which the image's manifest adds: its key, and what stands between the user's own part and the image's."""


def decide(
    facts: "Facts", storage: "Storage", environ: "Mapping[str, str]", queries: "Optional[Locations]" = None
) -> "Decision":
    """Run the decisions on the default locations as they are.

    :param queries: is asked for them; it knows the answers afterwards.
    """
    from sif_writable.redirects import decide as redirects
    from sif_writable.redirects.locations import Locations

    return redirects.decide(facts, storage, queries or Locations(facts.home), environ)


def apply(
    decision: "Decision", facts: "Facts", storage: "Storage", environ: "Mapping[str, str]", token: str
) -> Outcome:
    """Make what must exist, then set the environment, then hand the decisions down to children.

    :param environ: the environment as it was decided on; os.environ is what changes.
    :param token: names this container run (:func:`sif_writable.child.token`).
    """
    outcome = Outcome(facts, storage, decision)
    from sif_writable.redirects import links

    links.provide(outcome, environ)
    for redirect in decision.redirects:
        _set(redirect.variable, redirect.value, outcome)
    for beside, variable, path in decision.companions:
        if beside in outcome.replaced and not has_timed_out(path) and os.access(path, os.R_OK):
            _set(variable, path, outcome)
    if decision.home:
        _set("HOME", decision.home, outcome)
    _name_user(outcome, environ)
    if decision.pycache and sys.pycache_prefix is None and not sys.dont_write_bytecode:
        sys.pycache_prefix = decision.pycache
        root = os.path.basename(storage.slots[COMPILED].root)
        if hangable_mount_on(decision.pycache, may_hang())[1] == LOCAL and root != f"{candidates.FOLDER}-{facts.user}":
            _set("PYTHONPYCACHEPREFIX", decision.pycache, outcome)
        else:
            os.environ[PYCACHE] = decision.pycache
    if facts.manifest.get("user-site") == ["no"] and "PYTHONNOUSERSITE" not in environ:
        _ignore_user_site(outcome)
    elif decision.home and getattr(sys.modules.get("site"), "USER_SITE", None):
        from sif_writable import usersite

        usersite.follow_home(make=True)
    if "TMPDIR" in outcome.replaced and "tempfile" in sys.modules:
        sys.modules["tempfile"].tempdir = None  # type: ignore[attr-defined]
    for variable, (key, mark) in _DECLARED.items():
        declared = facts.manifest.get(key)
        if declared:
            values = mark[0].join([value.partition(" ")[0] for value in declared])
            _set(variable, f"{environ.get(variable, '')}{mark}{values}", outcome)
    roots = storage.roots()
    kinds = "".join([hangable_mount_on(root, may_hang())[1] for root in roots]) if may_hang() else ""
    copies = storage.root(COMPILED) or storage.root(CONFIG)
    if copies:  # the prefix is said too, since another environment of this image is another identity
        os.environ[COPIES] = f"{facts.prefix}:{copies}/{layout.image(facts.identity)}"
    _hand_down_shared(decision, storage)
    done = ",".join([was_set(name, os.environ[name], before) for name, before in outcome.replaced.items()])
    os.environ[SESSION] = f"2{kinds};{token};{done};{inputs()};{':'.join(roots)}"
    _report(storage, outcome)
    return outcome


def _report(storage: "Storage", outcome: Outcome) -> None:
    """Say what became of a place that the user gave, or that a filesystem does not answer."""
    unshared = [str(storage.unshared)] if storage.unshared else []
    if storage.refused and storage.refused[0][0].label == DIR:
        from sif_writable.storage.unserved import unmet

        problem = unmet(storage)
        if problem:
            os.environ[REFUSED] = f"{problem.text}\n{problem.remedy}"
            _say_once([str(problem), *unshared], outcome)
    elif storage.loose and storage.loose[0][0].given:
        from sif_writable.storage.unserved import unmet

        _say_once([str(unmet(storage, storage.loose[0][0].label) or ""), *unshared], outcome)
    elif unshared:
        _say_once(unshared, outcome)
    elif timed_out:
        from sif_writable.storage.unserved import hanging

        _say_once([hanging(path) for path in timed_out], outcome)


def _hand_down_shared(decision: "Decision", storage: "Storage") -> None:
    """Export to children where a group shares downloads: what they make there is opened to it."""
    if storage.shared and any([redirect.shared for redirect in decision.redirects]):  # noqa: C419
        os.environ[SHARED_IN] = storage.shared.folder


def _say_once(lines: "list[str]", outcome: Outcome) -> None:
    """Say lines on stderr, unless an ancestor of a process that is decided anew has said the same."""
    from sif_writable.stderr import say

    outcome.said += lines
    said = check_sum("\n".join(lines))
    if getattr(sys.modules.get("sif_writable.session"), "said", "") != said:
        say(lines)
    os.environ[SAID] = said


def _set(variable: str, value: str, outcome: Outcome) -> None:
    if variable not in outcome.replaced:
        before = outcome.replaced[variable] = os.environ.get(variable)
        if before is not None:
            os.environ[OLD + variable] = before
    os.environ[variable] = value


def _ignore_user_site(outcome: Outcome) -> None:
    """Take the user's own packages off the path, as the image declares; children never look for them."""
    _set("PYTHONNOUSERSITE", "1", outcome)
    from sif_writable import usersite

    usersite.ignore()


def _name_user(outcome: Outcome, environ: "Mapping[str, str]") -> None:
    """Give a uid without a passwd entry a name, which getpass.getuser() demands (torch before 2.13 at import)."""
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        if environ.get(name):
            return
    import pwd

    try:
        pwd.getpwuid(outcome.facts.uid)
    except KeyError:
        outcome.decision.user = f"uid{outcome.facts.uid}"
        _set("USER", outcome.decision.user, outcome)
        _set("LOGNAME", outcome.decision.user, outcome)
