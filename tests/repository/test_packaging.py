"""What is published: the sdist and the wheel, the recipes of other package managers, and the changelog."""

from __future__ import annotations

import email
import os
import re
import shutil
import subprocess
import sys
import types
import zipfile
from typing import TYPE_CHECKING, Any

import pytest

import sif_writable
from tests.conftest import or_skip
from tests.lab import wheels
from tests.lab.store import REPOSITORY

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from pathlib import Path

PACKAGING = os.path.join(REPOSITORY, ".github", "packaging")
RECIPE = os.path.join(PACKAGING, "conda-forge", "recipe.yaml")
ADDRESS = "https://github.com/OWNER/sif_writable"
"""The one spelling of the address, until somebody publishes the project."""
VERSION_OF_THIS = "{}.{}".format(*sys.version_info)

_RENDER = """
import sys
from rattler_build import Stage0Recipe
(variant,) = Stage0Recipe.from_file(sys.argv[1]).render()
assert str(variant.recipe.package.name) == "sif-writable"
"""


def project() -> dict[str, Any]:
    """Return pyproject.toml."""
    with open(os.path.join(REPOSITORY, "pyproject.toml"), "rb") as file:
        return tomllib.load(file)


def bounds(requirements: list[str]) -> dict[str, str]:
    """Return the lower bound of each requirement, such as `filelock>=3.4`."""
    return dict(requirement.replace(" ", "").split(">=") for requirement in requirements)


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a folder with the sdist, and the wheel that is built from it."""
    folder, sources = str(tmp_path_factory.mktemp("dist")), str(tmp_path_factory.mktemp("sources") / "copy")
    # Other tests work below the repository meanwhile, and what they remove would stop the build.
    shutil.copytree(REPOSITORY, sources, ignore=shutil.ignore_patterns(".lab", "__pycache__", ".*_cache"))
    command = [sys.executable, "-m", "build", "--quiet", "--no-isolation", "--outdir", folder, sources]
    subprocess.run(command, check=True, capture_output=True)
    return folder


# --- The package index.


def test_twine_is_content_and_finds_a_fault(distributions: str, tmp_path: Path) -> None:
    twine = str(or_skip(wheels.installed, "twine", ("twine==7.0.0",), VERSION_OF_THIS))
    own = {"PATH": os.environ["PATH"], "PYTHONPATH": twine, "HOME": str(tmp_path)}

    def check(*paths: str) -> int:
        command = [sys.executable, "-m", "twine", "check", "--strict", *paths]
        return subprocess.run(command, env=own, capture_output=True, check=False).returncode

    paths = [os.path.join(distributions, name) for name in os.listdir(distributions)]
    assert sorted(path.rpartition(".")[2] for path in paths) == ["gz", "whl"]
    assert check(*paths) == 0
    (wheel,) = (path for path in paths if path.endswith(".whl"))
    broken = str(tmp_path / os.path.basename(wheel))
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(broken, "w") as new:
        for name in old.namelist():
            text = old.read(name)
            new.writestr(name, re.sub(rb"(?s)\n\n.*", b"\n\n", text) if name.endswith("/METADATA") else text)
    assert check(broken) == 1


def test_the_index_shows_links_that_lead_somewhere(distributions: str) -> None:
    (wheel,) = (name for name in os.listdir(distributions) if name.endswith(".whl"))
    with zipfile.ZipFile(os.path.join(distributions, wheel)) as archive:
        (name,) = (each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
    page = str(metadata.get_payload())
    links = re.findall(r"\]\(([^)\s]+)\)", page)
    assert len(links) > 5
    assert [link for link in links if not link.startswith("https://")] == []
    assert {url.split(", ")[0] for url in metadata.get_all("Project-URL", [])} >= {
        "Homepage",
        "Documentation",
        "Issues",
    }


# --- The address, and the changelog.


def test_the_address_is_one_placeholder() -> None:
    """A rename finds each place: `git grep -lF OWNER/sif_writable`."""
    listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("no git repository")
    found = set()
    for name in listed.stdout.split("\n"):
        path = os.path.join(REPOSITORY, name)
        if os.path.isfile(path):
            with open(path, encoding="utf-8", errors="replace") as file:
                found |= set(re.findall(r"https?://[\w./-]*?[\w.-]+/sif[_-]writable\b", file.read()))
    assert found == {ADDRESS}


def test_each_release_in_the_changelog_has_its_date() -> None:
    with open(os.path.join(REPOSITORY, "CHANGELOG.md"), encoding="utf-8") as file:
        first, *releases = re.findall(r"^## (.+)$", file.read(), re.MULTILINE)
    assert first == "[Unreleased]"
    assert [line for line in releases if not re.fullmatch(r"\[\d+\.\d+\.\d+\] - 20\d\d-\d\d-\d\d", line)] == []


# --- Other package managers.


def test_the_recipe_for_conda_forge(tmp_path: Path) -> None:
    rattler = str(or_skip(wheels.installed, "rattler-build", ("py-rattler-build==0.73.0",), VERSION_OF_THIS))
    own = {"PATH": os.environ["PATH"], "PYTHONPATH": rattler, "HOME": str(tmp_path)}

    def render(path: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", _RENDER, path]
        return subprocess.run(command, env=own, capture_output=True, text=True, check=False)

    done = render(RECIPE)
    assert done.returncode == 0, done.stderr
    with open(RECIPE, encoding="utf-8") as file:
        text = file.read()
    broken = str(tmp_path / "recipe.yaml")
    with open(broken, "w", encoding="utf-8") as file:
        file.write(text.replace("noarch: python", "noarch: snake"))
    assert render(broken).returncode == 1

    declared = project()
    assert f'version: "{sif_writable.__version__}"\n' in text
    lines = [line.strip("- ") for line in text.splitlines() if line.startswith("    - ")]
    assert bounds([line for line in lines if re.fullmatch(r"[\w-]+ >=[\d.]+", line)]) == {
        **bounds(declared["project"]["dependencies"]),
        **bounds(declared["build-system"]["requires"]),
    }
    assert f'python_min: "{declared["project"]["requires-python"].strip(">=")}"\n' in text


def test_the_package_for_spack(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spack is on no package index: its words are taken down, and compared with what pyproject.toml says."""
    said: dict[str, list[tuple[str, Any]]] = {"depends_on": [], "version": [], "license": []}

    class PythonPackage:
        pass

    python = types.ModuleType("spack_repo.builtin.build_systems.python")
    python.PythonPackage = PythonPackage  # type: ignore[attr-defined]
    package = types.ModuleType("spack.package")
    for word, taken in said.items():
        setattr(package, word, lambda name, taken=taken, **options: taken.append((name, options)))
    for name in ("spack", "spack_repo", "spack_repo.builtin", "spack_repo.builtin.build_systems"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, python.__name__, python)
    monkeypatch.setitem(sys.modules, package.__name__, package)
    monkeypatch.setenv("SIF_WRITABLE_SDIST", "/clone/dist")
    path = os.path.join(PACKAGING, "spack", "py_sif_writable", "package.py")
    names: dict[str, Any] = {}
    with open(path, encoding="utf-8") as file:
        exec(compile(file.read(), path, "exec"), names)  # noqa: S102

    declared = project()
    assert names["PySifWritable"].url == f"file:///clone/dist/sif_writable-{sif_writable.__version__}.tar.gz"
    assert [name for name, _ in said["version"]] == [sif_writable.__version__]
    needed = {"run": {}, "build": {}}  # type: dict[str, dict[str, str]]
    for spec, options in said["depends_on"]:
        name, _, least = spec.rstrip(":").partition("@")
        when = "run" if "run" in options["type"] else "build"
        needed[when][name.partition("py-")[2] or name] = least
    python_least = declared["project"]["requires-python"].strip(">=")
    assert needed["run"] == {"python": python_least, **bounds(declared["project"]["dependencies"])}
    assert needed["build"] == bounds(declared["build-system"]["requires"])


def test_the_release_workflow_asks_for_a_dated_section(tmp_path: Path) -> None:
    """The very lines of the workflow, run on this changelog and on one with a release."""
    with open(os.path.join(REPOSITORY, ".github", "workflows", "release.yml"), encoding="utf-8") as file:
        (step,) = re.findall(r"name: The tag is the version.*\n        run: \|\n((?: {10}.*\n)+)", file.read())
    script = re.sub(r"^ {10}", "", step, flags=re.MULTILINE)
    version = sif_writable.__version__
    os.mkdir(tmp_path / "sif_writable")
    shutil.copy(os.path.join(REPOSITORY, "sif_writable", "__init__.py"), tmp_path / "sif_writable")

    def run(tag: str, changelog: str) -> int:
        (tmp_path / "CHANGELOG.md").write_text(changelog)
        own = {"PATH": os.environ["PATH"], "GITHUB_REF_NAME": tag}
        command = ["bash", "-e", "-c", script]
        return subprocess.run(command, cwd=tmp_path, env=own, capture_output=True, check=False).returncode

    assert run(f"v{version}", f"## [Unreleased]\n\n## [{version}] - 2027-01-31\n") == 0
    assert run(f"v{version}", f"## [Unreleased]\n\n## [{version}]\n") != 0
    assert run("v99.0.0", f"## [{version}] - 2027-01-31\n") != 0
