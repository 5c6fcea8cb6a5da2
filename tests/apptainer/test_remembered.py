"""What is remembered in a real SIF: copies of the image's own only, nothing outside it, and the way back."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from tests.conftest import BY_COPY

if TYPE_CHECKING:
    from tests.lab.apptainer_root import Apptainer
    from tests.lab.squashfs_root import SquashfsRoot

PYTHON = "/opt/venv/bin/python"
SP = "/opt/venv/lib/python3.11/site-packages"
WHERE = "import json, early; print(json.dumps([early.__file__, getattr(early, 'VALUE', 0)]))"


def _python(apptainer: Apptainer, sif: str, code: str, *binds: str, **env: str) -> Any:
    options = [word for bind in binds for word in ("--bind", bind)]
    return apptainer.exec(sif, [PYTHON, "-c", code], options=options, env={**BY_COPY, **env})


def _last(result: Any) -> Any:
    assert result.returncode == 0, result
    return json.loads(result.stdout.splitlines()[-1])


def test_only_the_images_own_is_copied_and_it_can_be_forgotten(apptainer: Apptainer, sif: str) -> None:
    project = apptainer.places.new_folder("a project")
    for name in ("early", "mine"):
        os.makedirs(f"{project}/{name}")
    inside = apptainer.inside(project)
    writes = "import os\nVALUE = {}\nopen(os.path.join(os.path.dirname(__file__), 'made'), 'a').close()\n"
    reads = "VALUE = {}\n"
    copy, _ = _last(_python(apptainer, sif, WHERE))
    assert copy.endswith(f"/tree{SP}/early/__init__.py")
    over = f"{inside}/early:{SP}/early:ro"
    for value in (1, 2):  # a development version bound over it, and the user's own project, which he edits
        for name, text in (("early", reads), ("mine", writes)):
            with open(f"{project}/{name}/__init__.py", "w", encoding="utf-8") as file:
                file.write(text.format(value))
        assert _last(_python(apptainer, sif, WHERE, over)) == [f"{SP}/early/__init__.py", value]
        found = _python(
            apptainer, sif, "import mine", f"{inside}:/srv/project:ro", APPTAINERENV_PYTHONPATH="/srv/project"
        )
        assert "Read-only file system" in found.stderr
        assert found.returncode == 1
    assert _last(_python(apptainer, sif, WHERE)) == [copy, 0]
    tree = copy.partition("/tree/")[0] + "/tree"
    script = f"""
cd /; ls {tree}/srv 2>/dev/null; sif-writable cache forget nonsense; echo $?
sif-writable cache forget early >/dev/null; echo $?; sif-writable cache list --json
"""
    result = apptainer.exec(sif, ["sh", "-c", script], env=BY_COPY)
    assert result.stdout.splitlines()[:2] == ["2", "0"]
    assert "nothing was learned of nonsense in this image; can be forgotten: early" in result.stderr
    again = _python(apptainer, sif, WHERE)
    assert again.stdout.count("executed early") == 2  # from the image first, as if nothing had been learned


def test_a_path_that_failed_once_is_not_written_elsewhere_ever_after(apptainer: Apptainer, sif: str) -> None:
    """A forgotten bind: the workflow manager tries again, and again it fails; a later bind holds what it holds."""
    code = "import cycler, os; os.makedirs('/opt/results', exist_ok=True); open('/opt/results/x', 'w').close()"
    code += "; print('job done')"
    for _ in range(2):
        result = _python(apptainer, sif, code, SIF_WRITABLE_OVERLAY="auto")
        assert (result.returncode, "job done" in result.stdout) == (1, False)
        assert "--bind DIRECTORY:/opt/results" in result.stderr
    real = apptainer.places.new_folder("real")
    with open(f"{real}/x", "w", encoding="utf-8") as file:
        file.write("mine")
    bind = f"{apptainer.inside(real)}:/opt/results:ro"
    read = _python(apptainer, sif, "print(open('/opt/results/x').read())", bind, SIF_WRITABLE_OVERLAY="auto")
    assert (read.stdout, read.stderr) == ("mine\n", "")
    declare = {"SIF_WRITABLE_OVERLAY": "auto", "APPTAINERENV_SIF_WRITABLE_OVERLAY_PATHS": "/opt/results"}
    declared = _python(apptainer, sif, code, bind, **declare)
    assert declared.returncode == 1
    with open(f"{real}/x", encoding="utf-8") as file:
        assert file.read() == "mine"


def test_on_a_kernel_mount_without_user_namespaces(squashfs_root: SquashfsRoot) -> None:
    """Files are root's: what is the image's is copied, what is bound is not; a copy is forgotten by its path."""
    development = squashfs_root.places.new_folder("development")
    over = [f"{development}:{SP}/early:ro"]

    def run(*argv: str, binds: list[str] | None = None) -> Any:
        environment = {"CH_RUNNING": "1"}
        return squashfs_root.run([PYTHON, *argv], binds=binds or [], env=environment, userns=False)

    copy, _ = _last(run("-c", WHERE))
    assert copy.endswith(f"/tree{SP}/early/__init__.py")
    for value in (1, 2):
        with open(f"{development}/__init__.py", "w", encoding="utf-8") as file:
            file.write(f"VALUE = {value}\n")
        assert _last(run("-c", WHERE, binds=over)) == [f"{SP}/early/__init__.py", value]
    assert _last(run("-c", WHERE)) == [copy, 0]
    report = json.loads(run("-m", "sif_writable", "cache", "forget", f"{SP}/early", "--json").stdout)
    assert (report["forgotten"], report["failed"]) == (["early"], [])
    assert run("-c", WHERE).stdout.count("executed early") == 2
