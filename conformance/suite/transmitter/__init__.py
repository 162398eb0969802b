"""The transmitter under test: what we know of it, and the checks it is put to."""
