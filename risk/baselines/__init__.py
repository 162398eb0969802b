"""What is known-good of each user, and of each tenant's users together.

good sign-in, accepted context ─▶ service.Recorder ─▶ RECORD_GOOD (batched) ─▶ one row per user
                                                                                  │
behaviours, familiar dimensions ◀─ service.Baselines (LRU) ◀─ change feed ◀───────┘

Only what succeeded with the assurance that policy asked for enters, and it is withdrawn when its
session turns out to be compromised.
"""
