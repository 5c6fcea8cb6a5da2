"""What survives of a layer, and what it survives, in a real rootless SIF: the tables of container/README.md."""

from __future__ import annotations

import glob
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from subprocess import CompletedProcess

    from tests.lab.apptainer_root import Apptainer

SITE = "/opt/venv/lib/python3.11/site-packages"
WRITE = f"""
write() {{ /opt/venv/bin/python -c "
import valuing, os, sys
open('{SITE}/written-' + sys.argv[1], 'w').close()
$2" "$1" >/dev/null; }}
look() {{ /opt/venv/bin/python -c "
import valuing, os
print(*sorted(name[8:] for name in os.listdir('{SITE}') if name.startswith('written-')))
$1" | grep -v executed; }}
KILL='os.kill(os.getpid(), 9)'
"""
ENDS = """
write end
write exec "os.execv('/bin/true', ['true'])"
write terminated "os.kill(os.getpid(), 15)"
write killed "$KILL"
"""
"""The last one waits for the next start, as each of the three does: so the others are published by the one after."""
LOST = "what was written here when this machine stopped is lost, since half of it may be missing"
ALL = "end exec killed terminated\n"


def run(apptainer: Apptainer, sif: str, script: str, options: Sequence[str] = ()) -> CompletedProcess[str]:
    return apptainer.exec(sif, ["sh", "-c", WRITE + script], options=options)


def published(storage: str) -> str:
    """Return what the newest generation in a place outside has."""
    found = glob.glob(f"{glob.escape(storage)}/**/gen-*", recursive=True)
    newest = max(found, key=lambda path: int(path.rpartition("-")[2]))
    return " ".join(sorted(name[8:] for name in os.listdir(f"{newest}/tree{SITE}") if name.startswith("written-")))


def test_on_disk_everything_outlives_but_the_crash_of_the_node(apptainer: Apptainer, sif: str) -> None:
    storage = f"{apptainer.places.home}/.cache"
    assert "killed" not in run(apptainer, sif, ENDS).stdout
    assert published(storage) == "end exec terminated"
    later = run(apptainer, sif, 'look; write crashed "$KILL"')
    assert (later.stdout, published(storage) + "\n") == (ALL, ALL), later
    for about in glob.glob(f"{glob.escape(storage)}/**/upper-*/about", recursive=True):
        with open(about, "r+", encoding="utf-8") as file:
            file.write("another-run")
    after = run(apptainer, sif, "look")
    assert after.stdout == ALL, after
    assert LOST in after.stderr


def test_beside_storage_that_cannot_hold_it_what_was_not_published_goes_with_a_private_var_tmp(
    apptainer: Apptainer, sif: str
) -> None:
    lower, upper, work, point = (apptainer.inside(apptainer.places.new_folder(name)) for name in "luwp")
    private = [apptainer.inside(apptainer.places.new_folder(name)) for name in ("first", "second")]
    mounted = f"fuse-overlayfs -o lowerdir={lower},upperdir={upper},workdir={work} {point}"
    inside = f"apptainer --silent exec --bind {point}:/sif-writable {apptainer.inside(sif)} sh -c"
    script = f"""
{mounted}
{inside.replace("exec", f"exec --bind {private[0]}:/var/tmp")} "$1"
{inside.replace("exec", f"exec --bind {private[0]}:/var/tmp")} "$2"
{inside.replace("exec", f"exec --bind {private[1]}:/var/tmp")} "$2"
fusermount3 -u {point} 2>/dev/null
"""
    looks = f'{WRITE}look; write again-$(date +%N) "$KILL"'
    done = apptainer.beside(["sh", "-c", script, "sh", f"{WRITE}{ENDS}grep -c var/tmp/sif-w /proc/mounts", looks])
    assert done.stdout == f"0\n{ALL}{ALL}", done  # the second `again` was not published, and its upper is gone


def test_in_memory_it_outlives_the_container_where_the_memory_does(apptainer: Apptainer, sif: str) -> None:
    given = ["--env", "SIF_WRITABLE_DIR=/dev/shm"]
    run(apptainer, sif, 'write killed "$KILL"', given)
    assert run(apptainer, sif, "look", given).stdout == "killed\n"
    for _ in range(2):
        assert run(apptainer, sif, f"{ENDS}look", ["--containall"]).stdout == ALL
    assert run(apptainer, sif, "look", ["--containall"]).stdout == "\n"
