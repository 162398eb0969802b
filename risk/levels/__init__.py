"""The computed level of each user: as it is, how it changed, and when to look again."""
