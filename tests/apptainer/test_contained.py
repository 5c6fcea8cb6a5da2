"""Under --containall HOME and /tmp are 64 MiB together: what needs room goes to the bind."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.lab.apptainer_root import Apptainer

LOOK = """
import json, os, tempfile
with tempfile.NamedTemporaryFile() as file:  # as a precompiled header of torch.compile
    for _ in range(100):
        file.write(bytes(1 << 20))
names = ("TMPDIR", "WARP_CACHE_PATH", "KIVY_HOME", "KERAS_HOME", "HF_HUB_CACHE", "JUPYTER_RUNTIME_DIR")
print(json.dumps([tempfile.gettempdir(), {name: os.environ.get(name) for name in names}]))
"""


def test_temporary_files_caches_and_settings_leave_the_small_tmpfs(apptainer: Apptainer, sif: str) -> None:
    bind = f"{apptainer.inside(apptainer.places.new_folder('cache'))}:/sif-writable"
    done = apptainer.exec(sif, ["/opt/venv/bin/python", "-c", LOOK], options=["--containall", "--bind", bind])
    assert (done.returncode, done.stderr) == (0, "")
    temporary, moved = json.loads(done.stdout)
    assert temporary == moved["TMPDIR"] == "/sif-writable/run/tmp"
    assert all(path.startswith("/sif-writable/") for name, path in moved.items()), moved


def test_a_choice_of_the_user_stands(apptainer: Apptainer, sif: str) -> None:
    bind = f"{apptainer.inside(apptainer.places.new_folder('cache'))}:/sif-writable"
    options = ["--containall", "--bind", bind, "--env", "TMPDIR=/dev/shm"]
    done = apptainer.exec(sif, ["/opt/venv/bin/python", "-c", LOOK], options=options)
    assert json.loads(done.stdout)[0] == "/dev/shm"


def test_a_piece_of_the_image_is_no_bind(apptainer: Apptainer, sif: str) -> None:
    done = apptainer.exec(sif, ["/opt/venv/bin/python", "-m", "sif_writable", "doctor"], options=["--underlay"])
    assert done.returncode == 0, done
    assert "PASS storage" in done.stdout, done
    assert "bind at /sif-writable" not in done.stdout
