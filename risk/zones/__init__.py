"""Zones: named parts of the net, what they are good for, and where a request comes from.

Owns the zones of a tenant: lists of addresses and rules about AS, place and category, for policies
or as blocklists, and the exempt list. Comes in: the chain of addresses a request came through.
Goes out: its `Origin`: the client's address and what is known of it, the zones it is in, whether it
is exempt or blocked, and why::

    service.judge(tenant, chain)
      chain.client_of            (pure)     trusted hops are looked through, from our side
      networks.lookup            (memory)   what is known of each hop
      matcher.zones_of           (pure)     all zones at once, on bit sets
      model                      (pure)     exempt, then blocklists

A change of a zone reaches every process through the change feed.
"""

from __future__ import annotations
