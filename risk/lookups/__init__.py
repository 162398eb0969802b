"""Looking at findings: lists, single ones, and what was known at any time."""
