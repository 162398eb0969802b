"""Refusals: SETs that were not taken in, kept so that people see why and can try them again.

::

    accept, check_caller  ──note──▶ log.RefusalLog ──▶ store.NOTE_REFUSALS
                                    counts all, keeps a few     counts, and a ring of the newest
                                                                per provider and code

Noting never waits and never fails: intake answers as fast with a flood of bad SETs as without.
What is kept is sealed, decoded with its secrets masked when somebody looks, and verified again
like any other SET when it is replayed.
"""
