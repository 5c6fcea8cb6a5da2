"""The GPU check: against a library that speaks NVML's ABI everywhere, and for real where there is a GPU."""
