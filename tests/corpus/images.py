"""SIFs that hold the environments of cases below /opt/cases, with sif-writable in each as a user installs it."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from tests.corpus import cases as table
from tests.lab import apptainer_root, image, scratch, wheels
from tests.lab.store import LAB, provide

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.corpus.cases import Case

_LAB = "/mnt"
"""Where builds see the lab: every image has this folder."""

_DEFINITION = """Bootstrap: {agent}
From: {base}

%post
    set -e
    for package in {debian}; do
        dpkg-query -s "$package" >/dev/null 2>&1 && continue
        apt-get -qq update && apt-get -qq install -y --no-install-recommends {debian} && break
    done
    ls {locks} | xargs -n 1 -P "$(nproc)" sh -c '
        python3 -m venv --without-pip "/opt/cases/$1" &&
        python3 -m pip --python "/opt/cases/$1/bin/python" install --quiet --disable-pip-version-check \\
            --no-index --no-deps --find-links {wheels} --find-links {dependencies} --find-links {hook} \\
            --requirement "{locks}/$1"' sh
    # The mount point of a HOME that can be written, where nothing can make one.
    mkdir /data
"""


def sif(name: str, cases: Sequence[Case]) -> str:
    """Return an image with the environments of these cases.

    :param name: of the part in the lab, of which only the newest is kept.
    """
    environments = {case.environment: case for case in cases}
    packages = tuple(sorted({package for case in cases for package in case.debian}))
    lock = tuple(sorted({requirement for case in cases for requirement in case.lock}))
    source = tuple(sorted({requirement for case in cases for requirement in case.source}))
    with ThreadPoolExecutor() as pool:  # it is mostly waiting for mirrors
        runtime = pool.submit(apptainer_root.find)
        base = pool.submit(image.base, *packages)
        wheel = pool.submit(wheels.project_wheel)
        dependencies = pool.submit(wheels.download, "dependencies", wheels.DEPENDENCIES)
        wheelhouse = wheels.pinned(f"wheelhouse-{name}", lock, source, kept=1)
        folders = {
            "wheels": wheelhouse,
            "dependencies": dependencies.result(),
            "hook": os.path.dirname(wheel.result()),
        }
    agent, start = base.result()

    def make(path: str) -> None:
        with scratch.fresh() as places:
            for environment, case in environments.items():
                own = {requirement.partition("==")[0].lower() for requirement in case.lock}
                lines = [*case.lock, *(needed for needed in wheels.DEPENDENCIES if needed not in own), "sif-writable"]
                with open(os.path.join(places.work, environment), "w", encoding="utf-8") as file:
                    file.write("\n".join(lines))
            definition = _DEFINITION.format(
                agent=agent,
                base=runtime.result().inside(start) if agent == "localimage" else start,
                debian=" ".join(packages),
                **{key: _seen(folder) for key, folder in (*folders.items(), ("locks", places.work))},
            )
            bind = f"--bind={runtime.result().inside(LAB)}:{_LAB}"
            image.build(runtime.result(), definition, path, bind, online=agent == "docker")

    recipe = (start, folders, sorted((name, case.lock) for name, case in environments.items()), _DEFINITION)
    return provide(f"corpus-{name}.sif", recipe, make, kept=1)


def frameworks(environment: str) -> str:
    """Return the image with all frameworks of one environment of `frameworks.json`."""
    return sif(f"frameworks-{environment}", [case for case in table.frameworks() if case.environment == environment])


def _seen(folder: str) -> str:
    return os.path.join(_LAB, os.path.relpath(folder, LAB))
