"""What became of each SET of each stream, and sending SETs again: redrive and replay."""
