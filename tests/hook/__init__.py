"""Tests of the hook: the built wheel, fresh environments, and a child interpreter each time."""
