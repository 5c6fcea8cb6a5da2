"""The kinds of files in storage, and what each needs of its place."""

DATA = "data"
"""Downloads, shared between images."""
COMPILED = "compiled"
"""Object code, and code that is valid for one image: per image and interpreter, where files can be executed."""
CONFIG = "config"
"""Settings and small files, per image."""
RUNTIME = "runtime"
"""Sockets and temporary files: short path, local filesystem."""
KINDS = (COMPILED, CONFIG, DATA)
