"""Upkeep of streams: what is held has limits, what is settled goes, who is silent is paused."""
