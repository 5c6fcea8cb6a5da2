"""What the hook adds to imports of large frameworks: ``python -m tests.benchmarks.frameworks [--rounds N] [NAME ...]``.

Each import is timed in a container of its own from a SIF, with the hook and a new layer, and with ``SIF_WRITABLE=off``,
turn by turn. The images are those of ``tests/run --frameworks``; names of environments leave the others out. The aim is
1.02.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from tests.benchmarks.layer import MADE, WITHOUT, alone
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
    parser.add_argument("--rounds", type=int, default=10, help="containers of each way (default: 10)")
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

        def run(argv: Sequence[str], env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
            return apptainer.exec(image, argv, env=env, timeout=3600)

        for module in MODULES[environment]:
            alone(run, f"{PREFIXES}/{environment}/bin/python", module, rounds, (WITHOUT, MADE))


if __name__ == "__main__":
    main()
