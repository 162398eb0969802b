"""Upstreams: transmitters that we deal with actively, beyond taking what they push.

An upstream belongs to a provider: the provider says whose word it is and what it is worth, the
upstream how we reach it. Comes in: orders of admins. Goes out: polls (RFC 8936), and calls of SSF
stream management::

    service.add, service.order ──▶ row of `upstreams`, committed; nothing is called
      --- in a delivery process, under the lease of the upstream's bucket ---
      worker.UpstreamSource.due
        poll:   polling.Poller.poll    ack what is stored, ask, hand each SET to service.accept
        order:  client.StreamClient    discover, create, read, update, replace, status, verify …
        verify: the same, by the clock: the round trip that shows that the stream lives
      operations.BEGIN                 durable before what must not happen twice is sent
      operations.SETTLE                fenced: acks to send, the order's outcome, health

Owns the tables `upstreams` and `upstream_states`.
"""
