"""transmitters."""
