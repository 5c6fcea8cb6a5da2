# Copyright Spack Project Developers. See COPYRIGHT file for details.
#
# SPDX-License-Identifier: (Apache-2.0 OR MIT)

import os

from spack_repo.builtin.build_systems.python import PythonPackage

from spack.package import *


class PySifWritable(PythonPackage):
    """Makes Python packages work in a read-only Apptainer/Singularity image: redirects caches, checks the GPU,
    says what it did."""

    homepage = "https://github.com/OWNER/sif_writable"
    # What `python -m build --sdist` has made in a clone. Once there is a release, one line in its place:
    #   pypi = "sif-writable/sif_writable-0.1.0.tar.gz"
    # and the sha256 of it in the version.
    url = f"file://{os.environ.get('SIF_WRITABLE_SDIST', '/tmp')}/sif_writable-0.1.0.tar.gz"

    license("MIT")

    version("0.1.0")

    depends_on("python@3.9:", type=("build", "run"))
    depends_on("py-hatchling@1.27:", type="build")
    depends_on("py-hatch-fancy-pypi-readme@23.1:", type="build")

    depends_on("py-platformdirs@2.5:", type=("build", "run"))
    depends_on("py-filelock@3.4:", type=("build", "run"))
    depends_on("py-nvidia-ml-py@11.495:", type=("build", "run"))
