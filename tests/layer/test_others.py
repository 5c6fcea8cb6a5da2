"""What a layer cannot serve: another user's files get copies, and what its own mode closes stays closed."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.conftest import NOT_RUN
from tests.lab import environments
from tests.lab.environments import PYTHON

if TYPE_CHECKING:
    from tests.layer.conftest import Box

WRITE = "import os\ndef write(*p): open(os.path.join(os.path.dirname(__file__), *p), 'w').write('x')\n"
PACKAGES = {
    "ours": {"__init__": f"{WRITE}write('x')"},
    "theirs": {"__init__": f"{WRITE}write('x')"},
    "theirs_inner": {"__init__": f"{WRITE}write('inner', 'x')", "inner/a": ""},
    "theirs_open": {"__init__": f"{WRITE}write('open', 'x')", "open/a": ""},
    "theirs_later": {"__init__": WRITE},
    "theirs_sub": {"__init__": "", "main": f"{WRITE}write('x')"},
    "closed": {"__init__": f"{WRITE}write('x')"},
    "beside": {"__init__": f"{WRITE}write('../../../../closed', 'x')"},
}
THEIRS = ("theirs", "theirs_inner/inner", "theirs_open/open", "theirs_later", "theirs_sub")


def _environment(box: Box, many: int) -> str:
    """Make an environment with these packages, and with many files before them; return its directory of packages."""
    if os.getuid() != 0:
        pytest.skip(f"{NOT_RUN}only root can give files away")
    owner = os.stat(box.environment).st_uid
    box.environment = environments.copy(box.environment, f"{box.places.folder}/environment")
    site = environments.packages(box.environment)
    for package, files in PACKAGES.items():
        for name, text in files.items():
            path = f"{site}/{package}/{name}{'' if '/' in name else '.py'}"
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
    os.makedirs(f"{box.environment}/closed", 0o555)
    os.mkdir(f"{box.environment}/0")
    for number in range(many):
        with open(f"{box.environment}/0/{number}", "w", encoding="utf-8"):
            pass
    subprocess.run(["chown", "-R", "-h", f"{owner}:{owner}", box.environment], check=True)
    return site


def test_what_is_another_users_in_a_layer_gets_a_copy_and_what_its_mode_closes_none(box: Box) -> None:
    site = _environment(box, 2100)
    subprocess.run(["chown", "-R", "0:0", *(f"{site}/{name}" for name in THEIRS)], check=True)
    os.chmod(f"{site}/theirs_open/open", 0o777)
    os.chmod(f"{site}/closed", 0o555)
    programs = [f"import {name} as m" for name in PACKAGES]
    programs[list(PACKAGES).index("theirs_sub")] = "import theirs_sub.main as m"
    programs[list(PACKAGES).index("theirs_later")] = 'import theirs_later as m; m.write("x")'
    show = 'print("copy" if "/tree/" in m.__file__ else "image")'
    script = "\n".join(f"{PYTHON} -c '{program}; {show}' 2>>said || echo failed" for program in programs * 2)
    result = box.shell(script, env={"SIF_WRITABLE": ""})
    with open(f"{box.places.work}/said", encoding="utf-8") as file:
        text = file.read()
    first, second = result.stdout.split()[: len(programs)], result.stdout.split()[len(programs) :]
    # Where not the package but something in it is another user's, that shows as it fails.
    assert first == ["image", "copy", "failed", "failed", "failed", "copy", "failed", "failed"], (result, text)
    assert second == ["image", "copy", "copy", "copy", "copy", "copy", "failed", "failed"], (result, text)
    assert text.count("from the next run on it is imported from a writable copy") == 3, text
    assert text.count("sif_writable:") == 5, text
    assert text.count("/closed/x cannot be written, and it belongs to no package") == 2, text
    assert text.count("PermissionError") == 6, text
    assert text.count("[Errno 75]") == 1, text


def test_where_the_owner_may_not_write_where_the_packages_are_copies_serve_at_once(box: Box) -> None:
    """As in an image whose maker has closed the environment: the first process of a container is the right one."""
    site = _environment(box, 0)
    subprocess.run(["chmod", "-R", "a-w", site], check=True)
    show = 'print("copy" if "/tree/" in m.__file__ else "image")'
    programs = [f"{PYTHON} -c 'import {name} as m; {show}'" for name in ("ours", "closed")]
    script = "\n".join([*programs, "sif-writable status --no-gpu"])
    result = box.shell(script, env={"SIF_WRITABLE": ""})
    assert (result.returncode, result.stderr) == (0, ""), result
    assert result.stdout.startswith("copy\ncopy\n"), result
    where = f"/venv{site[len(box.environment) :]}"
    assert f"making a file in {where} in it fails: Permission denied" in " ".join(result.stdout.split())


def test_another_environment_whose_program_is_started_in_a_layer_has_copies(box: Box) -> None:
    """Of the image's two environments, a layer is over the one whose program made it."""
    environments.copy(box.environment, box.machine.in_image("/opt/two"))
    writes = "import open_import as m; print(m.__file__)"
    child = f'import quiet, subprocess; subprocess.run(["/opt/two/bin/python", "-c", "{writes}"])'
    script = f"{PYTHON} -c '{child}'\n{PYTHON} -c '{writes}'\n/opt/two/bin/python -c '{writes}'"
    result = box.shell(script, env={"SIF_WRITABLE": ""})
    assert (result.returncode, result.stderr) == (0, ""), result
    *_, copy, made, own, again, last = result.stdout.splitlines()
    assert (made, again) == ("made", "made"), result
    assert copy.endswith(f"/tree/opt/two{own[len('/venv') :]}"), result
    assert (own[:6], last) == ("/venv/", f"/opt/two{own[len('/venv') :]}"), result
