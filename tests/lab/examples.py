"""The images of container/examples, built from the very files that users copy."""

from __future__ import annotations

import glob
import os

from tests.lab import apptainer_root, image, wheels
from tests.lab.built import OUTPUT, Built
from tests.lab.store import REPOSITORY, digest_of_files, provide

FOLDER = os.path.join(REPOSITORY, "container", "examples")

_BASE = """Bootstrap: {agent}
From: {base}

%files
    {dependencies} /wheels

%post
    echo "[global]
disable-pip-version-check = true
no-index = true
find-links = /wheels" > /etc/pip.conf
"""
"""As on a machine without network: pip knows where wheels are, so that the definition files need no option for it."""


def base() -> str:
    """Return what the examples are built from in place of their base: a tree in which pip finds what they need."""
    runtime = apptainer_root.find()
    agent, source = image.base()
    dependencies = wheels.download("wheelhouse-examples", ("hatchling", *wheels.DEPENDENCIES))
    words = {"dependencies": dependencies, "base": source}
    seen = {name: runtime.inside(path) if os.path.isabs(path) else path for name, path in words.items()}
    definition = _BASE.format(agent=agent, **seen)

    def make(path: str) -> None:
        image.build(runtime, definition, path, "--sandbox", online=agent == "docker")

    return provide("examples-base", definition, make)


def sif(name: str, **beside: str) -> Built:
    """Return the image of a definition file, built from that file as it is, beside what lies in its folder.

    :param beside: what the user puts there, as the file's first lines say: name, and the path of it.
    """
    runtime = apptainer_root.find()
    start, wheel = base(), wheels.project_wheel()
    everything = glob.glob(os.path.join(FOLDER, "**"), recursive=True)
    sources = [path for path in everything if path.endswith((f"/{name}.def", ".py", ".toml", ".ini"))]
    arguments = {"BOOTSTRAP": "localimage", "BASE": runtime.inside(start)}
    options = [word for item in arguments.items() for word in ("--build-arg", "=".join(item))]

    def make(path: str) -> None:
        with open(os.path.join(FOLDER, f"{name}.def"), encoding="utf-8") as file:
            definition = file.read()
        own = {entry: os.path.join(FOLDER, entry) for entry in ("hypothetical_gpu_lib", "config.ini")}
        own[os.path.basename(wheel)] = wheel
        output = image.build(runtime, definition, path, *options, beside={**own, **beside})
        with open(path + OUTPUT, "w", encoding="utf-8") as file:
            file.write(output)

    path = provide(
        f"example-{name}.sif", (start, wheel, digest_of_files(sources), sorted(beside), OUTPUT), make, kept=1
    )
    with open(path + OUTPUT, encoding="utf-8") as file:
        return Built(path, file.read())
