"""The transmitter role: streams, the outbox, push and poll delivery, metadata and keys.

Owns streams (what a client asked to hear, and where), events (stored once) and deliveries (one
light row per stream that selects the event; `jti` and `iat` are fixed there). Comes in: events
from the pipeline, stream management and polls from clients. Goes out: Security Event Tokens,
rendered and signed when they are delivered; a repeat keeps `jti`, `iat` and `kid`::

    hub/pipeline ─▶ publish ─▶ events ─┬─▶ deliveries of a push stream ─▶ worker ─▶ POST, settle
      one transaction, wake after it   │      in order per stream and ordering key
                                       └─▶ deliveries of a poll stream ─▶ poll: acks, errors, then
                                              the oldest that nobody holds, invisible for 30 s

    pending ──▶ delivered ─┐   202, or acknowledged
       │  ▲                │   retry: the stream backs off, or only the key is held
       │  ├─── replay ─────┘
       │  └─── redrive ──┐
       ├──▶ dead ────────┘     dead letter, with its reason
       └──▶ dropped            its stream was disabled or deleted, or held too much
"""

from typing import Any, Final

from runtime.writer import Operation
from transmitters.delivery import operations
from transmitters.upkeep.activity import ACTIVITY

#: the hot writes of the transmitter
OPERATIONS: Final[tuple[Operation[Any, Any], ...]] = (*operations.OPERATIONS, ACTIVITY)

__all__ = ["OPERATIONS"]
