"""Measurements of the hub, one file per promise. Not installed, not part of the test run."""
