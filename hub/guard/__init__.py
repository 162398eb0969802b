"""Guards: whom a runaway provider may not harm, and who is never locked out automatically.

::

    assessments ─▶ who was marked HIGH by whom ─▶ too many at once? ─▶ quarantine, assess again
                                              └▶ too many this hour? ─▶ hold their containments

It runs in the pipeline's transaction and counts in SQL, so that batches, processes and restarts
make no difference. The limit on containments per time is in `actions`.
"""
