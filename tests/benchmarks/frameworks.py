"""What the hook adds to imports of large frameworks: ``python -m tests.benchmarks.frameworks [--rounds N] [NAME ...]``.

Each import is timed in fresh processes in a SIF, with the hook and a new layer, and with ``SIF_WRITABLE=off``, turn by
turn. The images are those of ``tests/run --frameworks``; names of environments leave the others out. The aim is 1.02.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from typing import TYPE_CHECKING

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from tests.benchmarks import imports
from tests.benchmarks.layer import MADE, WITHOUT, measure, ratio
from tests.corpus import images
from tests.corpus.replay import PREFIXES
from tests.lab import apptainer_root, scratch
from tests.lab.apptainer_root import Apptainer
from tests.lab.unavailable import LabUnavailable

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping, Sequence

MODULES = {
    "torch": ("torch", "transformers", "datasets", "sentence_transformers", "lightning", "accelerate", "bitsandbytes"),
    "numerics": ("numba", "jax", "pytensor", "pymc", "taichi"),
    "tensorflow": ("tensorflow", "keras"),
    "services": ("warp", "openvino", "onnxruntime", "ray", "mlflow", "wandb", "gradio"),
}
"""Environment to what is imported."""


def main() -> None:
    """Measure, and print a line for each module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10, help="starts of each way (default: 10)")
    parser.add_argument("environments", nargs="*", metavar="NAME", help=f"of: {', '.join(MODULES)}")
    arguments = parser.parse_args()
    print(f"load before: {os.getloadavg()[0]:.1f}, {os.cpu_count()} processors")
    for environment in arguments.environments or MODULES:
        _measure(environment, arguments.rounds)
    print(f"load after: {os.getloadavg()[0]:.1f}")


def _measure(environment: str, rounds: int) -> None:
    try:
        image = images.frameworks(environment)
    except LabUnavailable as why:
        print(f"{environment} is not measured: {why}")
        return
    with scratch.fresh() as places:
        apptainer = Apptainer(apptainer_root.find(), places)
        shutil.copy(imports.__file__, places.work)

        def run(argv: Sequence[str], env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
            return apptainer.exec(image, argv, env=env, timeout=3600)

        python, script = f"{PREFIXES}/{environment}/bin/python", os.path.basename(imports.__file__)
        for module in MODULES[environment]:
            found = measure(run, python, module, script, rounds, (WITHOUT, MADE))
            ratio(f"import of {module}", found[MADE], found[WITHOUT], "imported", 1.02)


if __name__ == "__main__":
    main()
