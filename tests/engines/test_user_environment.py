"""A user's own virtual environment above the image's Python, in a place that he can write."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

from tests.conftest import or_skip
from tests.lab import environments, pythons

if TYPE_CHECKING:
    from tests.lab.squashfs_root import SquashfsRoot

BESIDE = "import os\nopen(os.path.join(os.path.dirname(__file__), 'made'), 'a').close()\n"
ASK = """
import json, os, sys
hook = sys.modules.get("sif_writable")
try:
    import writes_beside
    served = os.path.exists(os.path.join(os.path.dirname(writes_beside.__file__), "made"))
except ImportError:
    served = None
print(json.dumps([hook and hook.state, served]))
"""
SCRIPT = """
set -e
cd /tmp
/usr/bin/python3 -m venv --without-pip --system-site-packages above
/usr/bin/python3 -m venv --without-pip plain
cp -a above by-uv
cat > by-uv/pyvenv.cfg <<'END'
home = /usr/bin
implementation = CPython
uv = 0.13.9
version_info = 3.11.2
include-system-site-packages = true
END
/usr/bin/python3 -m venv --without-pip stacked
echo 'import site; site.addsitedir("/opt/other/lib/python3.11/site-packages")' > \
    stacked/lib/python3.11/site-packages/other.pth
for name in above by-uv plain stacked; do $name/bin/python -c "$1"; done
above/bin/python -m sif_writable status --json
above/bin/python -m sif_writable doctor | grep hook:
COLUMNS=200 stacked/bin/python -m sif_writable status | grep -e '^root' -e started
"""


def test_what_the_image_has_is_served_where_it_is_used(squashfs_root: SquashfsRoot) -> None:
    (python,) = [python for python in pythons.found() if python.name == "3.11"][:1] or [or_skip(pythons.get, "3.11")]
    layer = squashfs_root.places.new_folder("layer")
    packages = f"{layer}/usr/lib/python3/dist-packages"
    other = f"{layer}/opt/other/lib/python3.11/site-packages"  # a virtual environment of the image's, as a base of ones
    os.makedirs(f"{packages}/writes_beside")
    subprocess.run(["cp", "-a", f"{environments.packages(environments.hooked(python))}/.", packages], check=True)
    with open(f"{packages}/writes_beside/__init__.py", "w", encoding="utf-8") as file:
        file.write(BESIDE)
    os.makedirs(other)
    subprocess.run(["cp", "-a", f"{packages}/.", other], check=True)
    home = [f"{squashfs_root.places.home}:/data"]  # which can be used, so that only the packages are something to do
    done = squashfs_root.run(["sh", "-c", SCRIPT, "sh", ASK], layer=layer, home="/data", binds=home)
    assert done.returncode == 0, done
    above, by_uv, plain, stacked, *rest = done.stdout.splitlines()
    assert [json.loads(line) for line in (above, by_uv, plain)] == [["active", True], ["active", True], [None, None]]
    assert json.loads(stacked) == ["active", True]
    status, end = json.JSONDecoder().raw_decode("\n".join(rest))
    assert (status["hook"]["state"], status["root"]["prefix"], status["root"]["writable"]) == ("active", "/usr", False)
    end_lines = "\n".join(rest)[end:]
    assert "hook: active, for the packages of /usr" in end_lines, done
    site = "/opt/other/lib/python3.11/site-packages"
    assert f"active, started by {site}/sif_writable.pth" in end_lines, done
    assert f"root       {site} is read-only for this user" in end_lines, done
