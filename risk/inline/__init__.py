"""The inline check of a live session: what is held in memory, how it is judged, what is written.

Comes in: a session, its present context, what is known of the place, levels, policies. Goes out: a
verdict, and a stand to be written where it is not an ALLOW::

    memory.LiveSessions        sessions with the contexts they stand in, LRU, kept by the feed
    model.judge       (pure)   changes -> score -> policies -> what was settled before -> Verdict
    model.settle      (pure)   what a stand becomes when the same context is judged again
    service.SETTLE             one stand per (session, context): unique, before the answer
    service.NOTE               contexts that were let pass: behind the answer, within a second

A *stand* is what was settled about one context of one session: it was there first (anchor), was let
pass (accepted), has to prove itself (asked), did so (passed), or did not (refused, terminated).
"""
