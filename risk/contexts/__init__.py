"""Contexts: from where, with what and on which device a session is used, and what changed.

Comes in: one question about a session, as untrusted text. Goes out: a bounded `Context`, its key,
and the classes of change against the contexts a session was accepted in::

    parsing.bounded            untrusted texts -> a bounded context with its user agent parsed
    agents.parse_agent         user agent -> family, major version, operating system
    model.Context.key          what has to stay the same for an answer to stay the same
    model.classify             (before, after) -> classes of change, the severe ones first

Pure: no I/O, no clock.
"""
