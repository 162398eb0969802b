"""Sweeps: after an edit of policies, sessions and users at risk are judged again, page by page."""
