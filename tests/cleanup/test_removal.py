"""Copies are removed beside programs that import from them, and what programs wrote in them outlives them."""

from __future__ import annotations

import glob
import json
import os
import re
import time
from typing import TYPE_CHECKING, Any

import pytest

from sif_writable.cleanup import housekeeping, removal
from sif_writable.cleanup.contents import inspect_root
from sif_writable.cleanup.measure import Bound
from sif_writable.cleanup.policy import DAY, KNOWN, Limit
from sif_writable.copies import changes
from tests.lab.store import ORDINARY_UID

if TYPE_CHECKING:
    from tests.lab.writing_image import Image

WANTED = {"SIF_WRITABLE_PACKAGES": "large"}
# Runs steps one after the other: our commands, and programs that import more whenever they are asked to.
_DRIVER = """
import json, os, signal, subprocess, sys
LATE = '''
import os, sys, time
import large
def wait():
    while not os.path.exists("/tmp/go"):
        time.sleep(0.01)
print("in", os.getpid(), flush=True)
for line in sys.stdin:
    exec(line)
    print("done", flush=True)
'''
answers, running = [], {}
def start(name):
    running[name] = subprocess.Popen([sys.executable, "-c", LATE], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                     stderr=subprocess.STDOUT, text=True)
    while not (line := running[name].stdout.readline()).startswith("in "):
        assert line, name
    return int(line.split()[1])
def send(name, code):
    running[name].stdin.write(code + "\\n")
    running[name].stdin.flush()
    return running[name].stdout.readline()
def end(name, kill=False):
    if kill:
        running[name].kill()
    return [*running[name].communicate(), running[name].returncode]
def go():
    open("/tmp/go", "w").close()
def cache(*words):
    done = subprocess.run([sys.executable, "-m", "sif_writable", "cache", *words], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return [done.returncode, done.stdout, done.stderr]
for step, *arguments in json.loads(sys.argv[1]):
    answers.append({"start": start, "send": send, "end": end, "go": go, "cache": cache}[step](*arguments))
print(json.dumps(answers))
"""
ALL_COPIES = "packages-cpython-311"


def drive(image: Image, *steps: tuple[Any, ...], **env: str) -> list[Any]:
    """Return what each step said."""
    result = image.run(argv=["-S", "-c", _DRIVER, json.dumps(steps)], env={**WANTED, **env})
    assert (result.returncode, result.stderr) == (0, ""), result
    found: list[Any] = json.loads(result.stdout)
    return found


def test_a_program_keeps_the_copies_that_it_imports_from(one_image: Image) -> None:
    name = os.path.basename(_folder_of(one_image))
    first, listed, cleared, pruned, more, ended, removed, after = drive(
        one_image,
        ("start", "a"),
        ("cache", "list"),
        ("cache", "clear", "--yes", name),
        ("cache", "prune", "--yes", "--older-than", "0min"),
        ("send", "a", "import large.part7"),
        ("end", "a"),
        ("cache", "clear", "--yes", name),
        ("cache", "list"),
    )
    in_use = f"is imported from by process {first}, and stays until that ends"
    assert in_use in " ".join(listed[1].split())
    for code, out, err in (cleared, pruned):
        assert (code, err) == (1, "")
        assert f"{name} stays: it {in_use}. Remedy: try again when that has ended." in " ".join(out.split())
    assert more == "done\n"
    assert ended == ["", None, 0]
    assert removed[0] == 0, removed
    assert name not in after[1]


def test_children_and_crashes(one_image: Image) -> None:
    """A forked child keeps them beyond its parent's end, an executed one does not; a killed program keeps nothing."""
    name = os.path.basename(_folder_of(one_image))
    fork = "os.fork() or (wait(), __import__('large.part9'), os._exit(0)); sys.stdin.close()"
    execute = (
        "import subprocess; n = -3; subprocess.Popen(['sleep', '60'], stdin=n, stdout=n, stderr=n, close_fds=False)"
    )
    clear = ("cache", "clear", "--yes", name)
    answers = drive(one_image, ("start", "a"), ("send", "a", fork), clear, ("go",), ("end", "a"), clear)
    # The file that it reads from was closed under it.
    assert [answers[2][0], answers[4][2], answers[5][0]] == [1, 1, 0], answers
    answers = drive(one_image, ("start", "b"), ("send", "b", execute), ("end", "b", True), clear)
    assert answers[3][0] == 0, answers


def _folder_of(image: Image) -> str:
    image.says("import large", env=WANTED)
    return image.folder


def test_what_programs_wrote_outlives_the_copy_and_returns_to_it(one_image: Image) -> None:
    folder = _folder_of(one_image)
    own = one_image.copy("site-packages/large/own.db")
    changed = one_image.copy("site-packages/large/part3.py")
    _write(own, "mine")
    _write(changed, "value = 33\n")
    _write(one_image.copy("site-packages/made_beside.txt"), "mine")
    (item,) = (
        item for item in inspect_root(os.path.dirname(os.path.dirname(folder)), KNOWN).items if item.kind == "packages"
    )
    assert item.written == 4  # and large.made
    assert item.files > 600
    (pruned, again) = drive(
        one_image,
        ("cache", "prune", "--yes", "--older-than", "0min"),
        ("cache", "prune", "--older-than", "0min"),
    )
    assert pruned[0] == 0, pruned
    assert "nothing to remove" in again[1]
    left = [os.path.join(here, name) for here, _, names in os.walk(folder) for name in names]
    kept = [path for path in left if f"/{changes.WRITTEN}/" in path]
    assert sorted(os.path.basename(path) for path in kept) == ["large.made", "made_beside.txt", "own.db", "part3.py"]
    assert len(left) < 10
    program = "import large, large.part3; print(large.part3.value, open(large.HERE + '/own.db').read())"
    program += "; print(open(large.HERE + '/../made_beside.txt').read())"
    assert one_image.says(program) == "executed large\n33 mine\nmine\n"
    assert not os.path.lexists(f"{folder}/{changes.WRITTEN}")
    assert one_image.says("import large.part4 as p; print(p.value, '/tree/' in p.__file__)").endswith("4 True\n")


def test_a_changed_file_does_not_return_over_another_one_of_the_image(one_image: Image) -> None:
    folder = _folder_of(one_image)
    _write(one_image.copy("site-packages/large/part3.py"), "value = 33\n")
    with open(_record(folder), "rb+") as file:  # as if the copy had been made of another file
        text = re.sub(rb" venv/lib/[^/]+/site-packages/large/part3.py", b" nothing", file.read())
        file.seek(0)
        file.write(text)
        file.truncate()
    (pruned,) = drive(one_image, ("cache", "prune", "--yes", "--older-than", "0min"))
    assert pruned[0] == 0, pruned
    assert one_image.says("import large.part3 as p; print(p.value)", env=WANTED).endswith("\n3\n")
    assert glob.glob(f"{folder}/{changes.WRITTEN}/venv/lib/*/site-packages/large/part3.py")


def _record(folder: str) -> str:
    (name,) = (n for n in os.listdir(f"{folder}/{changes.RECORDS}") if n.startswith("large-"))
    return f"{folder}/{changes.RECORDS}/{name}"


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def test_a_removal_that_was_killed_is_gone_on_with(one_image: Image) -> None:
    folder = _folder_of(one_image)
    _write(one_image.copy("site-packages/large/own.db"), "mine")
    inside = one_image.inside(folder)
    program = (
        "from sif_writable.cleanup import housekeeping, removal\n"
        "from sif_writable.cleanup.measure import Bound\nfrom sif_writable.cleanup.policy import Limit\nimport time\n"
        "save = removal._save_written\n"
        "removal._save_written = None\n"
        f"try:\n    removal.remove_copies({inside!r}, keep_written=True)\n"
        "except TypeError:\n    removal._save_written = save\n"
        "args = Limit(1 << 60, 1 << 60), Bound(60, 1 << 20), time.time() + 61 * 86400\n"
        f"print(housekeeping.tidy({os.path.dirname(os.path.dirname(inside))!r}, '', *args))"
    )
    assert one_image.says(program, env={"SIF_WRITABLE": "off"}) == "True\n"
    found = [name for _, _, names in os.walk(folder) for name in names]
    assert "own.db" in found
    assert "part3.py" not in found
    assert one_image.says("import large; print(open(large.HERE + '/own.db').read())", env=WANTED).endswith("mine\n")


def test_where_files_cannot_be_locked_the_age_decides(one_image: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    folder = _folder_of(one_image)

    def refuse(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    gone, problem = removal.remove_copies(folder, keep_written=False)
    assert (gone, problem.startswith("may be in use")) == ("", True)
    root = os.path.dirname(os.path.dirname(folder))
    assert housekeeping.tidy(root, "", Limit(0, 0), Bound(60, 1 << 20), time.time() + 13 * DAY)
    assert os.path.isdir(f"{folder}/tree")
    assert housekeeping.tidy(root, "", Limit(0, 0), Bound(60, 1 << 20), time.time() + 15 * DAY)
    assert not os.path.lexists(f"{folder}/tree")


def test_of_six_rebuilds_only_the_last_keeps_its_copy(one_image: Image) -> None:
    """Counted as quotas count: bytes on disk, and files, links and folders."""
    root = f"{one_image.places.home}/.cache/sif-writable"
    for build in range(6):
        _rebuild(one_image, build)
        one_image.says("import large; open(large.HERE + '/own.db', 'a').close()", env=WANTED, binds=_labels(one_image))
    six = _count(root)
    for age, name in enumerate(sorted(os.listdir(root), key=lambda name: os.lstat(f"{root}/{name}").st_ctime)):
        if name.startswith("image-"):
            _age(f"{root}/{name}", 100 - age)
    _rebuild(one_image, 6)
    for _ in range(9):  # a round ends after a second
        os.utime(f"{root}/{housekeeping.STAMP}", (1, 1))
        one_image.says("import large", env=WANTED, binds=_labels(one_image))
        if os.lstat(f"{root}/{housekeeping.STAMP}").st_mtime > time.time() - 600:
            break
        _forget_plans(root)
    bytes_left, entries_left = _count(root)
    assert six[1] > 6 * 600
    assert entries_left < six[1] / 6 + 6 * 20, (six, entries_left)
    assert bytes_left < six[0] / 5
    kept = [path for path in _files(root) if path.endswith("/own.db")]
    assert len(kept) == 6  # what programs wrote stays
    status = one_image.run(argv=["-m", "sif_writable", "status", "--json"], binds=_labels(one_image))
    (usage,) = json.loads(status.stdout)["usage"]
    assert (usage["images"], usage["written_files"], usage["complete"]) == (7, 6 * 2 + 1, True)
    assert (usage["limit_bytes"], usage["limit_files"]) == (10 << 30, 100_000)
    assert abs(usage["files"] - entries_left) < 7 * 15  # the folders that hold all this are not counted
    limited = {"SIF_WRITABLE_MAX": f"{usage['size_bytes']},100000"}
    doctor = one_image.run(argv=["-m", "sif_writable", "doctor", "--json"], binds=_labels(one_image), env=limited)
    (growth,) = (check for check in json.loads(doctor.stdout)["checks"] if check["name"] == "growth")
    assert (growth["level"], "SIF_WRITABLE_MAX" in growth["remedy"]) == ("WARN", True)


def _forget_plans(root: str) -> None:
    for path in _files(root):
        if os.path.basename(path).startswith("plan-"):
            os.unlink(path)


def _labels(image: Image) -> list[str]:
    return [f"{image.places.work}/labels.json:/.singularity.d/labels.json:ro"]


def _rebuild(image: Image, build: int) -> None:
    """Let the image say that it was built once more."""
    _write(f"{image.places.work}/labels.json", json.dumps({"org.label-schema.build-date": str(build)}))


def _age(image: str, days: float) -> None:
    """Let an image have been used so many days ago."""
    then = time.time() - days * DAY
    for path in _files(image):
        if os.path.basename(path).startswith("plan-") or path.endswith(("/lease", "/own.db", "/large.made")):
            os.utime(path, (then, then))


def _files(root: str) -> list[str]:
    return [os.path.join(here, name) for here, _, names in os.walk(root) for name in names]


def _count(root: str) -> tuple[int, int]:
    found = [os.path.join(here, name) for here, folders, names in os.walk(root) for name in (*folders, *names)]
    return sum(os.lstat(path).st_blocks * 512 for path in found), len(found)


@pytest.mark.parametrize("folder", ["data", "image/config", "image/compiled-cpython-311", "image", "data/torch"])
def test_what_somebody_mounted_in_storage_is_his(one_image: Image, folder: str) -> None:
    """A bind of the user's own project, with names like ours in it: nothing in it is listed, counted or removed."""
    root = f"{one_image.places.home}/.cache/sif-writable"
    one_image.says("pass")
    (image,) = (name for name in os.listdir(root) if name.startswith("image-"))
    project = one_image.places.new_folder("project")
    names = (
        "torch/checkpoint",
        "numba/results",
        "config/ipython/notes",
        "compiled-cpython-311/numba/results",
        "torch.db",
    )
    for name in names:
        os.makedirs(os.path.dirname(f"{project}/{name}"), exist_ok=True)
        _write(f"{project}/{name}", "precious")
    _give_to_the_user(project)
    os.makedirs(f"{root}/data/torch", exist_ok=True)
    point = one_image.inside(f"{root}/{folder.replace('image', image, 1)}")
    result = one_image.run(
        argv=["-S", "-c", _DRIVER, json.dumps([
            ("cache", "list"),
            ("cache", "prune", "--all-images", "--older-than", "1d", "--dead", "--max-size", "0", "--yes"),
            ("cache", "clear", "--all-images", "torch", "numba", "ipython", image, "--yes"),
        ])],
        binds=[f"{project}:{point}"],
    )  # fmt: skip
    assert (result.returncode, result.stderr) == (0, ""), result
    left = sorted(os.path.relpath(path, project) for path in _files(project))
    assert set(names) <= set(left), (left, result.stdout)
    assert "precious" not in result.stdout


@pytest.mark.parametrize("folder", ["config", "compiled-cpython-311", ""])
def test_an_old_image_with_something_mounted_in_it_does_not_go_by_itself(one_image: Image, folder: str) -> None:
    root = f"{one_image.places.home}/.cache/sif-writable"
    image = f"image-{'0' * 16}"
    project = one_image.places.new_folder("project")
    for name in ("compiled-cpython-311/numba/results", "numba/results", "plan-b"):
        for top in (project, f"{root}/{image}"):
            os.makedirs(os.path.dirname(f"{top}/{name}"), exist_ok=True)
            _write(f"{top}/{name}", "precious")
    os.makedirs(f"{root}/{image}/config")
    for top in (project, f"{one_image.places.home}/.cache"):
        _give_to_the_user(top)
    before = sorted(_files(project))
    at = f"{one_image.inside(root)}/{image}/{folder}".rstrip("/")
    program = (
        "from sif_writable.cleanup import housekeeping\nfrom sif_writable.cleanup.measure import Bound\n"
        "from sif_writable.cleanup.policy import Limit\nimport time\n"
        f"print(housekeeping.tidy({one_image.inside(root)!r}, '', Limit(0, 0), Bound(60, 1 << 20), "
        "time.time() + 61 * 86400))"
    )
    assert one_image.says(program, env={"SIF_WRITABLE": "off"}, binds=[f"{project}:{at}"]) == "True\n"
    assert sorted(_files(project)) == before


def _give_to_the_user(folder: str) -> None:
    """Let files be old and his."""
    for here, _, files in os.walk(folder, topdown=False):
        for path in (*(f"{here}/{name}" for name in files), here):
            os.utime(path, (1_000_000_000, 1_000_000_000))
            if os.getuid() == 0:
                os.chown(path, ORDINARY_UID, ORDINARY_UID)
