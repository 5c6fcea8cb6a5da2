"""Everything that checks sif_writable; `tests/run` runs all of it."""
