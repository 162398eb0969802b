"""The inline decision: may this session go on? Every front door asks `evaluate.evaluate`.

    hub.doors ─▶ SessionQuestion ─▶ evaluate ─▶ Answer ─▶ hub.doors

Comes in: who asks, which session, from where. Goes out: one verdict with its reasons. No HTTP here.
"""
