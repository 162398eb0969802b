"""Sweeps: after an edit, live sessions and users at risk are judged again, page by page."""
