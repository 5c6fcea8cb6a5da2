"""Tests of the writable layer."""
