"""The front doors of the inline decision: one evaluator, several ways to ask it.

    native          POST /v1/sessions/{sid}/evaluate ──┐
    authzen         POST /access/v1/evaluation(s) ─────┼─▶ SessionQuestion ─▶ hub.inline.evaluate
    forward_auth         /v1/forward-auth ─────────────┘

A door parses, asks and renders; it decides nothing.
"""
