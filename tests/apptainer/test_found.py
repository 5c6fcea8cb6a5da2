"""What the user has is found in a real image: with a given place, after the first start, in the image's own HOME."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from tests.lab.hooked import write
from tests.lab.store import ORDINARY_UID

if TYPE_CHECKING:
    from subprocess import CompletedProcess

    from tests.lab.apptainer_root import Apptainer
    from tests.lab.squashfs_root import SquashfsRoot

# /etc/skel is a HOME of the image's own, which Debian fills with small files.
SCRIPT = """
PATH=/opt/venv/bin:$PATH
export SIF_WRITABLE_OPT_IN=KERAS_HOME
report() { python - "$1" <<'END'
import json, os, sys
def read(variable, name):
    try:
        with open(os.path.join(os.environ[variable], name)) as file:
            return file.read()
    except OSError as error:
        return type(error).__name__
def rewrite(path):
    try:
        with open(os.path.expanduser(path), "a") as file:
            file.write("mine")
        return os.path.islink(os.path.expanduser(path))
    except OSError as error:
        return type(error).__name__
print(json.dumps({
    "weights": read("TORCH_HOME", "hub/checkpoints/a.pth"),
    "token": read("XDG_CACHE_HOME", "huggingface/token") if "XDG_CACHE_HOME" in os.environ else "",
    "keras": read("KERAS_HOME", "keras.json"),
    "ipython": read("IPYTHONDIR", "profile_default/ipython_config.py") if "IPYTHONDIR" in os.environ else "",
    "r": os.environ.get("R_LIBS_USER", ""),
    "nltk": "NLTK_DATA" in os.environ,
    "cffi": "CFFI_TMPDIR" in os.environ,
    "nni": os.access(os.path.dirname(os.environ.get("NNI_CONFIG_DIR", "/nowhere/nni")), os.W_OK),
    "home": rewrite("~/.profile") if sys.argv[1] == "skel" else "",
}))
END
}
report first
mkdir -p ~/.cache/huggingface ~/.keras ~/.ipython/profile_default ~/R
printf token > ~/.cache/huggingface/token
printf keras > ~/.keras/keras.json
printf ipython > ~/.ipython/profile_default/ipython_config.py
report second
export HOME=/etc/skel
unset SIF_WRITABLE_DIR
report skel
"""


def check(result: CompletedProcess[str], home: str) -> None:
    """Check what three starts reported."""
    assert result.returncode == 0, result
    first, second, skel = (json.loads(line) for line in result.stdout.splitlines())
    assert first["weights"] == second["weights"] == "weights"
    assert [first[name] for name in ("token", "keras", "ipython")] == ["FileNotFoundError"] * 3
    assert [second[name] for name in ("token", "keras", "ipython")] == ["token", "keras", "ipython"]
    assert ":" not in first["r"]
    assert second["r"].endswith(f":{home}/R/%p-library/%v")
    assert skel["home"] is False  # a copy, which could be rewritten
    for report in (first, second, skel):
        assert (report["nltk"], report["cffi"], report["nni"]) == (False, False, True)


def have(home: str) -> None:
    """Let the user have weights."""
    write(os.path.join(home, ".cache/torch/hub/checkpoints/a.pth"), "weights")
    for folder, _, names in os.walk(home):
        for path in (folder, *(os.path.join(folder, name) for name in names)):
            os.chown(path, ORDINARY_UID, ORDINARY_UID)


def test_rootless(apptainer: Apptainer, sif: str) -> None:
    have(apptainer.places.home)
    store = apptainer.inside(apptainer.places.new_folder("store"))
    check(apptainer.exec(sif, ["sh", "-c", SCRIPT], options=["--bind", f"{store}:/sif-writable"]), apptainer.home)


def test_a_kernel_mount_without_user_namespaces(squashfs_root: SquashfsRoot) -> None:
    have(squashfs_root.places.home)
    environment = {"CH_RUNNING": "1", "SIF_WRITABLE_DIR": "/tmp/given"}
    binds = [f"{squashfs_root.places.home}:/data"]
    check(squashfs_root.run(["sh", "-c", SCRIPT], env=environment, home="/data", binds=binds, userns=False), "/data")
