"""What people read in a real SIF: status in a ticket, variables that lead nowhere, what is kept, what is refused."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tests.apptainer.inside import PYTHON

if TYPE_CHECKING:
    from tests.lab.apptainer_root import Apptainer

SCRIPT = f"""
end() {{ echo ====; }}
write='import os, requests; os.makedirs(os.environ["HF_HOME"] + "/hub")'
cached='import os; p = os.environ["NUMBA_CACHE_DIR"]; os.makedirs(p); open(p + "/k", "w").write("x" * 5000)'
{PYTHON} -c "$write" 2>&1; end
MNE_DATA=/gpfs/mne {PYTHON} -c 'import requests; open("/gpfs/mne/raw.fif", "w")' 2>&1
{PYTHON} -c 'import requests; open("/gpfs/of-nobody/x", "w")' 2>&1; end
{PYTHON} -c "$cached"; sif-writable status; end
sif-writable doctor; end
sif-writable cache list; end
find /sif-writable -type d -empty; end
unset HF_HOME; cd /tmp; SIF_WRITABLE_DIR=mine SIF_WRITABLE_DIRR=/x {PYTHON} -c pass 2>&1; ls; end
SIF_WRITABLE_DIRR=/x sif-writable doctor -q; end
sif-writable doctor --require-gpu -q; echo $?; end
sif-writable trace -- true; end
"""


def test_what_people_read(apptainer: Apptainer, sif: str) -> None:
    place = apptainer.places.new_folder("gpu_cache")  # as mkdir makes it
    assert os.stat(place).st_mode & 0o777 == 0o755
    done = apptainer.exec(
        sif,
        ["sh", "-c", SCRIPT],
        options=["--bind", f"{apptainer.inside(place)}:/sif-writable"],
        env={"HF_HOME": "/scratch/me/hf", "XDG_DATA_HOME": "/scratch/me/data", "XDG_RUNTIME_DIR": "/run/user/1000"},
    )
    failed, missing, status, doctor, listed, empty, relative, misspelt, gpu, traced = done.stdout.split("====\n")[:10]
    (line,) = [line for line in failed.splitlines() if line.startswith("sif_writable: ")]
    assert line.startswith("sif_writable: /scratch cannot be written: ")
    assert "HF_HOME=/scratch/me/hf" in line
    assert "(apptainer exec --bind /scratch), or unset " in line

    (line,) = [line for line in missing.splitlines() if line.startswith("sif_writable: ")]
    assert line.startswith("sif_writable: /gpfs/mne/raw.fif is not there: MNE_DATA=/gpfs/mne leads there. Remedy: bind")

    assert len(status.splitlines()) <= 25, status
    words = " ".join(status.split())
    for part in ("active, started by /", "container Apptainer, image /", "(identity ", "storage ", "numba 8.0 KiB"):
        assert part in words, status
    cannot = "does not exist here and cannot be made; remedy: bind it (--bind /scratch), or unset"
    assert f"HF_HOME=/scratch/me/hf {cannot} HF_HOME" in words
    assert f"XDG_DATA_HOME=/scratch/me/data {cannot} XDG_DATA_HOME" in words

    folded = " ".join(doctor.split())
    assert "WARN redirects: HF_HOME=/scratch/me/hf, set outside this package, does not exist here" in folded
    assert "INFO redirects: XDG_RUNTIME_DIR=/run/user/1000 " in folded
    assert "none of the user's own is wrong" not in folded
    assert folded.count("bind it (--bind /scratch), or unset XDG_DATA_HOME") == 2  # as libraries ask for it, too
    assert "INFO GPU: There is no NVIDIA GPU" in folded

    assert listed.startswith("/sif-writable  8.0 KiB\n"), listed
    assert "numba" in listed
    assert "not looked into" not in listed
    unused = [os.path.basename(path) for path in empty.splitlines() if "/layer/" not in path and "/locks" not in path]
    assert sorted(unused) == ["cache", "kivy", "matplotlib"]  # the image has both packages

    said, *there = relative.splitlines()
    assert said.startswith("sif_writable: SIF_WRITABLE_DIR=mine is not an absolute path")
    assert 'Remedy: write the whole path, such as SIF_WRITABLE_DIR="$PWD/mine".' in said
    assert "mine" not in there
    assert "SIF_WRITABLE_DIRR is not known and has no effect; did you mean SIF_WRITABLE_DIR?" in " ".join(
        misspelt.split()
    )
    assert "PASS" not in misspelt
    assert "although --require-gpu is given." in " ".join(gpu.split())
    assert gpu.endswith("\n1\n")
    assert "0 writes under the image; the command ended with 0" in traced
    assert "can be written here" not in traced


def test_without_proc_each_command_says_what_is_lacking(apptainer: Apptainer, sif: str) -> None:
    """A layer that is left cannot be asked about then, and counts as in use."""
    assert apptainer.exec(sif, [PYTHON, "-c", "import early"]).returncode == 0
    commands = ("status", "doctor", "cache list", "cache prune --older-than 0min", "trace -- true")
    script = "; ".join(f"sif-writable {words} 2>&1; echo ==== $?" for words in commands)
    done = apptainer.exec(sif, ["sh", "-c", script], options=["--no-mount", "proc"])
    outputs = done.stdout.split("====")
    assert [each.split("\n")[0].strip() for each in outputs[1:]] == ["0"] * len(commands), done.stdout
    status, doctor = (" ".join(each.split()) for each in outputs[:2])
    lacking = "none: /proc is not mounted here, so threads cannot be counted"
    assert f"layer {lacking}" in status
    assert f"WARN layer: {lacking}; nor are there copies, " in doctor
    assert "remedy: start it with /proc mounted (Apptainer: without --no-mount proc)" in doctor
