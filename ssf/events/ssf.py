"""The two event types of the Shared Signals Framework itself. Their subject is the stream."""

from typing import ClassVar, Final

import msgspec

SSF_BASE: Final = "https://schemas.openid.net/secevent/ssf/event-type/"


class Verification(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Proof that the stream works (SSF 1.0 §8.1.4).

    state: echoed from the request; None when the transmitter started it (SSF-VER-3, SSF-VER-4).
    """

    type_uri: ClassVar[str] = SSF_BASE + "verification"

    state: str | None = None


class StreamUpdated(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The transmitter changed the status of the stream (SSF 1.0 §8.1.5).

    status: the new status. A transmitter must send it; one that does not is logged, not refused,
    so on input it may be None (SSF-UPD-1, SSF-UPD-6).
    """

    type_uri: ClassVar[str] = SSF_BASE + "stream-updated"

    status: str | None = None
    reason: str | None = None


SSFEvent = Verification | StreamUpdated

# These reach the receiver whatever its stream asked for (SSF-VER-6, SSF-UPD-4).
STREAM_EVENT_TYPES: Final = frozenset({Verification.type_uri, StreamUpdated.type_uri})
