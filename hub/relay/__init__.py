"""Relay: what one provider tells us goes out to other streams, by rule and under our own name.

::

    signal ─▶ echo of our own? ─▶ rules in order ─▶ subject of each stream ─▶ publish, record

Rules are an admin's, per tenant (`relays`). It runs in the pipeline's transaction, so a signal and
what is relayed of it are one. Comes in: signals of a batch, as risk read them. Goes out: events to
publish, and a record per signal and rule with the upstream's `iss`, `jti` and `txn`.
"""
