"""Database migrations: one head, revisions `0001`, `0002`, …; run by `signalhub migrate`."""
