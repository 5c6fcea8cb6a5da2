"""Many at once: array jobs of a real Slurm, and hundreds of interpreters that start together."""
