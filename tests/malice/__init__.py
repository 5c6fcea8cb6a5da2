"""Hostile neighbours, locks that do not work, and what a session leaves behind."""
