"""What it costs: programs that print medians. Run by hand, or by `python -m tests.benchmarks.NAME`."""
