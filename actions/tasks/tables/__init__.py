"""The tables of tasks."""
