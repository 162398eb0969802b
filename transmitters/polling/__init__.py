"""What pollers are handed, and what they report."""
