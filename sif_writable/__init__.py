"""Make Python packages work in a read-only container image.

Imported at every interpreter start of an environment that has it installed, so this module imports nothing
and defines nothing but the version. The hook is in :mod:`sif_writable.startup`.
"""

__version__ = "0.1.0"
