"""Faults at the kernel boundary: failing and killed system calls, full and vanishing storage, damaged records."""
