"""What layers have left: seen as what it is, removed only when nobody needs it, collected where nobody comes back."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

import pytest

from sif_writable.cleanup import contents, housekeeping, policy
from sif_writable.cleanup.contents import inspect_root
from sif_writable.cleanup.measure import Bound
from sif_writable.cleanup.policy import DAY, KNOWN
from sif_writable.cleanup.request import remove
from sif_writable.layer import enter, make, records, survey, trial
from sif_writable.report import layer as report
from tests.layer.node import PKG, Node

if TYPE_CHECKING:
    from pathlib import Path


THIS = "0123456789abcdef"
ALL = policy.Reach("", all_images=True)


class Left(Node):
    """What the layers of an image have left in storage: a generation, a replica, layers, something set aside."""

    def __init__(self, root: Path) -> None:
        """Make it."""
        super().__init__(root.parent)
        self.root = str(root)
        self.storage = self.place = f"{root}/image-{THIS}/layer"
        os.makedirs(self.storage, 0o700)
        self.write(first := self.layer(), "cache/x", "base")
        self.publish(first)
        self.replica()
        self.write(waiting := self.layer(), "cache/y", "waits")
        self.write(lost := self.layer(), "cache/z", "lost")
        self.put(f"{lost}/about", f"another-boot\n\n{self.storage}\n\n/v")
        self.names = {first: "kept", waiting: "waiting", lost: "lost", self.layer(): "empty"}
        self.put(f"{self.storage}/set-aside/1-ab/v/lib/pkg/cache/x", "others")
        self.put(f"{self.place}/trial", "")
        os.makedirs(f"{self.place}/container-1")

    def kinds(self) -> dict[str, tuple[str, int, str]]:
        """Return what is listed: name to kind, files that nothing brings back, and why it cannot be removed."""
        items = inspect_root(self.root, KNOWN).items
        return {self.names.get(i.path, i.name): (i.kind, i.written, i.problem) for i in items if i.name != "image.txt"}

    def pruned(self, **options: object) -> tuple[set[str], list[str]]:
        """Return what would go."""
        found = [inspect_root(self.root, KNOWN)]
        plan = policy.prune(found, reach=ALL, now=time.time() + 90 * DAY, **options)  # type: ignore[arg-type]
        return {self.names.get(removal.item.path, removal.item.name) for removal in plan.removals}, plan.notes


@pytest.fixture
def left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Left:
    """Return them; the kernel says that nobody is in these layers, as they were never mounted."""
    made = Left(tmp_path / "root")
    asked = survey.states(made.place, survey.uppers(made.place))
    if survey.UNKNOWN in asked.values():
        pytest.skip("not run: this machine makes no user namespaces")
    monkeypatch.setattr(survey, "on_this_node", lambda _: iter(()))
    return made


def test_everything_is_listed_as_what_it_is(left: Left) -> None:
    # The image of these layers is not where they say, so what was published cannot be distinguished from what waits.
    assert left.kinds() == {
        "gen-1": ("generation", 1, ""),
        "replica--1": ("replica", 0, ""),
        "kept": ("upper", 1, ""),
        "waiting": ("upper", 1, ""),
        "lost": ("upper", 0, ""),
        "empty": ("upper", 0, ""),
        "1-ab": ("set aside", 1, ""),
    }


def test_prune_takes_what_is_made_again_and_names_what_waits(left: Left) -> None:
    for options in ({"dead": True}, {"older_than": 30 * DAY}):
        gone, notes = left.pruned(**options)
        assert gone == {"replica--1", "lost", "empty"}, options
        words = "has 1 file that a container wrote and that is not kept yet"
        assert len([note for note in notes if words in note]) == 2
    assert left.pruned(max_size=1)[0] == {"replica--1"}


def test_clear_removes_data_too_and_a_newest_generation_is_followed_by_an_empty_one(left: Left) -> None:
    found = [inspect_root(left.root, KNOWN)]
    plan, wrong = policy.clear(found, [f"image-{THIS}/layer"], reach=ALL, now=time.time())
    assert wrong == []
    done = remove(plan.removals, None)
    assert [entry.problem for entry in done] == [""] * 7, done
    assert sorted(os.listdir(left.storage)) == ["container-1", "gen-2", "set-aside", "trial"]
    assert records.read(left.storage, 2).files == 0
    assert left.kinds() == {}


def test_what_images_that_are_used_no_more_leave_is_collected_but_no_data(left: Left) -> None:
    then = time.time() - 99 * DAY
    for path in (f"{left.root}/image-{THIS}", f"{left.root}/image-{THIS}/layer"):
        os.utime(path, (then, then))
    housekeeping.tidy(left.root, "", policy.Limit(1 << 60, 1 << 60), Bound(60.0, 1 << 20), time.time())
    assert set(left.kinds()) == {"gen-1", "kept", "waiting", "1-ab", "replica--1"} - {"replica--1"}


def test_beyond_the_limit_caches_go_and_never_where_a_layer_is_in_use(
    left: Left, monkeypatch: pytest.MonkeyPatch
) -> None:
    then = time.time() - 20 * DAY
    os.makedirs(f"{left.root}/image-{THIS}/compiled-x/numba")
    for path in (f"{left.root}/image-{THIS}/compiled-x", f"{left.root}/image-{THIS}"):
        os.utime(path, (then, then))
    before = set(left.kinds())
    limits = (left.root, "", policy.Limit(1, 1), Bound(60.0, 1 << 20), time.time())
    with monkeypatch.context() as patched:
        patched.setattr(survey, "in_use", lambda path: "is used" if "upper-" in path else "")
        housekeeping.tidy(*limits)
        assert set(left.kinds()) == before
    housekeeping.tidy(*limits)
    assert set(left.kinds()) == {"gen-1", "kept", "waiting", "1-ab"}


def test_what_was_left_on_this_node_is_collected_though_its_image_never_comes_back(
    left: Left, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    top = f"{tmp_path}/sif-writable-0/layers"
    monkeypatch.setattr(enter, "places", lambda _storage, image, _uid: iter([f"{top}/{image}"]))
    for name in ("image-" + "a" * 16, "image-" + "b" * 16, f"image-{THIS}"):
        os.makedirs(f"{top}/{name}", 0o700)
        left.place = f"{top}/{name}"
        left.layer()
        left.put(f"{top}/{name}/replica-3/tree/x", "x")
    left.place = f"{top}/image-" + "b" * 16
    left.write(left.layer(f"{left.place}/replica-3"), "cache/x", "waits")
    os.makedirs(f"{top}/mine")
    future = time.time() + 61 * DAY
    housekeeping.tidy_node(f"image-{THIS}", future)
    assert len(os.listdir(top)) == 4  # it bears no mark of ours
    left.put(f"{top}/{trial.MARKER}", "")
    housekeeping.tidy_node(f"image-{THIS}", time.time() + 59 * DAY)
    assert len(os.listdir(top)) == 5
    housekeeping.tidy_node(f"image-{THIS}", future)
    assert sorted(os.listdir(top)) == [trial.MARKER, f"image-{THIS}", "image-" + "b" * 16, "mine"]
    assert min(os.listdir(f"{top}/image-" + "b" * 16)) == "replica-3"  # what waits was made from it
    (found,) = contents.on_this_node()
    assert {item.name for item in found.items if item.image == "b" * 16 and item.written} == {
        os.path.basename(path) for path in survey.uppers(left.place)
    }


def test_what_is_being_made_and_a_generation_that_is_mounted_itself_count_as_in_use(
    left: Left, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = f"{left.place}/.new-{os.path.basename(left.layer())}"
    os.rename(made.replace(".new-", ""), made)
    assert survey.remove(made) == "is being made"
    os.utime(made, (1.0, 1.0))
    assert survey.in_use(made) == ""
    link = f"{left.place}/replica-x-1"
    os.symlink(f"{left.storage}/gen-1", link)
    user = os.path.basename(left.layer(link))
    monkeypatch.setattr(survey, "states", lambda _, names: {n: "alive" if n == user else "dead" for n in names})
    says = "is used by programs that run, and stays until they end"
    assert (survey.in_use(f"{left.storage}/gen-1"), survey.in_use(link)) == (says, says)
    assert survey.in_use(f"{left.place}/replica--1") == ""


def test_what_is_reported_of_single_things(left: Left) -> None:
    items = {left.names.get(item.path, item.name): item for item in inspect_root(left.root, KNOWN).items}
    left.put(f"{left.image}{PKG}/only-here", "")
    reported = {name: " ".join(report.about(item)) for name, item in items.items()}
    assert reported["gen-1"] == f"kept, by {PKG}/cache; published by {os.uname().nodename}"
    assert reported["waiting"] == f"1 file of {PKG}/cache, not kept yet"
    assert "is lost: the machine has been started since" in reported["lost"]
    assert reported["empty"] == "nothing was written to it"
    assert reported["1-ab"] == f"not kept: {PKG}/cache/x"
    assert reported["replica--1"] == "a copy of generation 1 for this machine"
    left.write(left.layer(), "cache/w", "newer")
    left.publish(left.place + "/" + survey.uppers(left.place)[-1])
    assert "a later one has taken its place" in " ".join(report.about(items["gen-1"]))


def test_a_layer_with_nothing_to_keep_waits_for_nobody(left: Left, monkeypatch: pytest.MonkeyPatch) -> None:
    left.put(f"{(layer := left.layer())}/about", f"{make.boot()}\n\n{left.storage}\n\n{left.image}/v")
    left.write(layer, "__init__.py", "changed")
    assert (survey.is_kept(layer), survey.is_kept(layer, of_this_image=True)) == (False, True)
    name = os.path.basename(layer)
    assert left.kinds()[name] == ("upper", 1, "")  # it may be over another image's directories
    monkeypatch.setenv("SIF_WRITABLE_COPIES", f"{sys.prefix}:{left.root}/image-{THIS}")
    assert left.kinds()[name] == ("upper", 0, "")
    left.write(layer, "new", "")
    assert left.kinds()[name] == ("upper", 2, "")
