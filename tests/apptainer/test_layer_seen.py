"""What is reported about layers in a real rootless SIF, and what is done with what they keep: status, doctor, cache."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.apptainer.inside import PYTHON, SITE, run

if TYPE_CHECKING:
    from tests.lab.apptainer_root import Apptainer

WRITER = f"""
import os, subprocess, sys, requests
open("{SITE}/requests/new.json", "w").write("12345")
open("{SITE}/requests/py.typed", "w").write("of the layer")
open("{SITE}/requests/models.py", "a").write("# changed")
open("{SITE}/own.pth", "w").close()
open("{SITE}/requests/certs.of-no-interpreter.so", "w").close()  # in the place of certs.py
os.makedirs("{SITE}/idna_x"); open("{SITE}/idna_x/__init__.py", "w").close()
os.makedirs("{SITE}/idna_x-1.0.dist-info")
open("{SITE}/idna_x-1.0.dist-info/RECORD", "w").write("idna_x/__init__.py,,\\nidna_x-1.0.dist-info/RECORD,,\\n")
if "quiet" in sys.argv:
    sys.exit()
for more, argv in (({{}}, ["status", "--json"]), ({{"SIF_WRITABLE_OVERLAY": "off"}}, ["status", "--verbose"])):
    subprocess.run(["sif-writable", *argv, "--no-gpu"], env={{**os.environ, **more}})
    print("====", flush=True)
"""
LOOK = f"""
import os, requests
print(os.path.exists("{SITE}/requests/new.json"), open("{SITE}/requests/py.typed").read()[:6],
    "# changed" in open("{SITE}/requests/models.py").read(), os.path.exists("{SITE}/own.pth"))
"""


def parts(text: str) -> list[str]:
    return text.split("====\n")


def test_status_doctor_and_cache_know_the_layer_and_its_generations(apptainer: Apptainer, sif: str) -> None:
    script = f"""
end() {{ echo ====; }}
{PYTHON} -c "$1"
sif-writable status --no-gpu; end
sif-writable status --no-gpu --verbose; end
sif-writable doctor; end
sif-writable cache list; end
sif-writable cache list --json; end
{PYTHON} -c "$2"; end
sif-writable cache forget no-such-name 2>&1; echo $?; end
sif-writable cache forget {SITE}/requests/new.json; echo $?; end
{PYTHON} -c "$2"; end
sif-writable cache list; end
sif-writable cache forget /opt/venv/; sif-writable status --no-gpu; end
"""
    result = run(apptainer, sif, ["sh", "-c", script, "sh", WRITER, LOOK])
    inside, off, after, verbose, doctor, listed, data, seen, unknown, forgot, gone, empty, untried = parts(
        result.stdout
    )[:13]
    layer = json.loads(inside)["layer"]
    assert (layer["inside"], layer["over"][0], layer["why"], layer["number"]) == (True, "/opt/venv", "", 0), layer
    pending = layer["pending"]
    assert (pending["files"], pending["written"]) == (7, ["idna_x", "own.pth", "requests"]), pending
    assert "SIF_WRITABLE_OVERLAY=off cannot take a program out of the one that it was" in " ".join(off.split())
    assert (
        f"{SITE}/idna_x-1.0.dist-info and 5 more: code in the place of the image's, or installed; gone with"
        in result.stderr
    )
    brief = " ".join(after.split())
    assert "layer programs can write in /opt/venv" in brief
    assert "kept: 17 B in 2 files, by requests" in brief
    assert len(after.splitlines()) <= 25
    section = " ".join(verbose.partition("writable layer")[2].split())
    assert "programs can write in /opt/venv, " in section
    assert ": what they write is theirs, and the image stays as it is" in section
    assert "kept: 17 B in 2 files in " in section
    assert f"in place of files of the image: {SITE}/requests/py.typed" in section
    assert "this process is in a layer" not in section
    assert "not kept yet" not in section
    assert "PASS layer: tried, and possible over /opt/venv, " in doctor
    assert "(ext4, " in doctor
    assert "1 layer without anything to keep" in doctor
    words = " ".join(listed.split())
    assert "kept, by requests; published by" in words
    assert f"in place of files of the image: {SITE}/requests/py.typed" in words
    entries = {entry["kind"]: entry for entry in json.loads(data)["roots"][0]["entries"]}
    assert entries["generation"]["layer"]["overridden"] == [f"{SITE}/requests/py.typed"]
    assert entries["generation"]["written_files"] > 0
    assert seen == "True of the False False\n"
    assert "nothing was learned of no-such-name in this image; can be forgotten: " in unknown
    assert unknown.endswith("\n2\n")
    assert "forgotten: requests" in forgot
    assert "what programs wrote is kept in " in " ".join(forgot.split())
    assert forgot.endswith("\n0\n")
    assert gone.split()[0] == "False"
    assert "of the" not in gone
    assert "a later one has taken its place" in " ".join(empty.split())
    assert "set aside" in empty
    assert untried.startswith(
        "forgotten: /opt/venv\nwhether a layer is possible here is tried anew by the next start\n"
    )
    assert "none was needed yet" in untried


def test_what_a_child_wants_to_be_kept_counts_as_what_its_parent_wants(apptainer: Apptainer, sif: str) -> None:
    """It has inherited the layer, with or without the variable that says so."""
    write = "import requests, sys; open(requests.__path__[0] + '/models.py', 'a').write('# ' + sys.argv[1])"
    parent = "import os, requests, subprocess, sys; subprocess.run(sys.argv[1:])"
    look = "import requests; print(open(requests.__path__[0] + '/models.py').read().splitlines()[-1].split('# ')[-1])"
    script = f"""
look() {{ {PYTHON} -c "{look}"; }}
{PYTHON} -c "$1" {PYTHON} -c "$2" unset; look
{PYTHON} -c "$1" env SIF_WRITABLE_KEEP=all {PYTHON} -c "$2" all; look
{PYTHON} -c "$1" env SIF_WRITABLE_KEEP= {PYTHON} -c "$2" empty; look
{PYTHON} -c "$1" env -i SIF_WRITABLE_KEEP=all {PYTHON} -c "$2" clean; look
SIF_WRITABLE_KEEP=all {PYTHON} -c "$1" env SIF_WRITABLE_KEEP=NONE {PYTHON} -c "$2" none; look
SIF_WRITABLE_KEEP=all {PYTHON} -c "$1" env SIF_WRITABLE_KEEP= {PYTHON} -c "$2" unset; look
"""
    result = run(apptainer, sif, ["sh", "-c", script, "sh", parent, write])
    seen = result.stdout.splitlines()
    assert seen[1:] == ["all", "all", "clean", "clean", "unset"], result
    assert seen[0] != "unset"


def test_replaced_code_and_what_was_installed_is_kept_only_where_it_is_asked_for(
    apptainer: Apptainer, sif: str
) -> None:
    script = f"""
end() {{ echo ====; }}
export SIF_WRITABLE_KEEP=all
{PYTHON} -c "$1" quiet 2>&1; end
unset SIF_WRITABLE_KEEP
{PYTHON} -c "$2" 2>&1; {PYTHON} -c 'import idna_x'; end
sif-writable cache list; end
sif-writable cache forget requests idna_x own.pth --yes; end
{PYTHON} -c "$2" 2>&1; {PYTHON} -c 'import idna_x' 2>&1; end
SIF_WRITABLE_KEEP=none {PYTHON} -c "$1" quiet 2>&1; end
{PYTHON} -c "$2" 2>&1; sif-writable cache list; end
{PYTHON} -c 'import requests; open(requests.__path__[0] + "/models.py", "a").write("#")' 2>&1; end
sif-writable status --no-gpu; sif-writable doctor; end
"""
    result = run(apptainer, sif, ["sh", "-c", script, "sh", WRITER, LOOK])
    said, seen, listed, forgot, without, quiet, nothing, gone, waiting = parts(result.stdout)[:9]
    (line,) = said.splitlines()
    assert "and 5 more: code in the place of the image's, or installed; later runs have it, too. To undo this: " in line
    assert line.endswith("sif-writable cache forget idna_x own.pth requests")
    assert seen == "True of the True True\n", result
    words = " ".join(listed.split())
    assert "kept, by idna_x, own.pth, requests" in words
    assert f"in place of files of the image: {SITE}/requests/models.py, {SITE}/requests/py.typed" in words
    assert "removed what programs wrote" in forgot
    assert "set-aside" not in forgot
    assert without.splitlines()[0].split() == ["False", "False", "False"]
    assert "No module named 'idna_x'" in without
    assert quiet == ""
    assert nothing.splitlines()[0].split() == ["False", "False", "False"]
    assert "kept, by" not in nothing
    assert "/requests/models.py: code in the place of the image's" in gone
    assert "not kept yet" not in waiting
    assert "of containers that have ended are in" not in waiting, waiting


def test_what_is_reported_about_a_layer_that_is_refused(apptainer: Apptainer, sif: str) -> None:
    script = "sif-writable status --no-gpu --json; echo ====; sif-writable doctor --json"
    result = apptainer.exec(
        sif, ["sh", "-c", script], env={"APPTAINERENV_SIF_WRITABLE_OVERLAY": "layer", "APPTAINERENV_PMI_RANK": "0"}
    )
    status, doctor = parts(result.stdout)
    assert "a rank of an MPI program" in json.loads(status)["layer"]["why"]
    (check,) = checks_of(json.loads(doctor), "layer")
    assert "a rank of an MPI program" in check["text"]


FULL = f"""
import os, requests, subprocess, sys
if "child" in sys.argv:
    sys.exit(subprocess.run([sys.executable, "-c", os.environ["FULL"]]).returncode)
try:
    with open("{SITE}/requests/large", "wb") as file:
        for _ in range(100):
            file.write(bytes(1 << 20))
except OSError as error:
    assert error.errno == 28 and error.filename is None
    if "caught" not in sys.argv:
        raise
if "elsewhere" in sys.argv:
    os.unlink("{SITE}/requests/large")
    raise OSError(28, os.strerror(28), "/dev/full")
"""


def test_a_layer_that_runs_full_is_announced_once_with_what_to_bind(apptainer: Apptainer, sif: str) -> None:
    script = 'export SIF_WRITABLE_DIR=/tmp/given FULL="$1"\n'
    script += (
        f'for how in raised caught "caught elsewhere" child; do {PYTHON} -c "$1" $how 2>&1; echo "$?"; echo ====\n'
    )
    script += "rm -rf /tmp/given/sif-writable/image-*/layer/*; done"
    result = run(apptainer, sif, ["sh", "-c", script, "sh", FULL], options=["--containall"])
    raised, caught, elsewhere, child = parts(result.stdout)[:4]
    for said, code in ((raised, 1), (caught, 0)):
        (line,) = [line for line in said.splitlines() if line.startswith("sif_writable: what is written in the env")]
        assert "it has no space left (tmpfs of 64 MiB), so such writes fail. Remedy: bind a directory of a" in line
        assert "--bind DIR:/sif-writable" in line
        assert said.splitlines()[-1] == str(code)
    assert child.count("it has no space left") == 2  # the child's error, and the end of its parent
    assert "what is written in the env" not in elsewhere
    assert "No space left on device: '/dev/full'" in elsewhere


def checks_of(report: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [check for check in report["checks"] if check["name"] == name]
