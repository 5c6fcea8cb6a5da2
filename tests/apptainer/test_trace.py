"""`sif-writable trace --save` in `%post`: what it finds out is known to everybody who runs the image."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.conftest import or_skip
from tests.lab import built
from tests.lab.overlaid import PACKAGES, Sif, ask

if TYPE_CHECKING:
    from tests.lab.apptainer_root import Apptainer

WRITER = (
    "import ctypes, os; os.makedirs('/var/log/tool'); open('/var/log/tool/log', 'w').close(); "
    f"open('{PACKAGES}/kivy/made', 'w').close(); ctypes.CDLL(None).open(b'{PACKAGES}/numpy/made', 0o101, 0o644)"
)
POST = f"""
    sif-writable trace --save -- python -c "{WRITER}"
    sif-writable trace --save -- python -c "{WRITER}"
    sif-writable trace --save -- sh -c 'exit 7' || echo "ended with $?"
    ls {PACKAGES}/kivy/made {PACKAGES}/numpy/made /var/log/tool || true
    cat {PACKAGES}/sif_writable.manifest
"""


@pytest.fixture(scope="module")
def made() -> built.Built:
    """Return an image that traced a program while it was built."""
    found: built.Built = or_skip(built.built, POST)
    return found


def test_the_build_says_what_was_found_and_keeps_the_image_clean(made: built.Built) -> None:
    assert re.search(r"[34] writes in the environment; the command ended with 0", made.output), made.output
    assert "ended with 7" in made.output
    assert "only writes of Python code were seen" not in made.output
    assert made.output.count("No such file or directory") == 3, made.output
    assert re.findall(r"^(?:package|overlay): \S+", made.output, re.MULTILINE) == [
        "package: kivy",
        "package: numpy",
        "overlay: /var/log/tool",
    ]


def test_the_run_knows_it_from_the_start(made: built.Built, apptainer: Apptainer) -> None:
    code = """
wanted = importhook.install().copies.wanted()
problem = overlay.at_start(os.environ, IMAGE)
answer([sorted({"kivy", "numpy"} & set(wanted)), problem, overlay.current(os.environ), os.mkdir("/var/log/tool")])
"""
    assert ask(Sif(apptainer, made.path), code) == [["kivy", "numpy"], "", ["/var/log"], None]
