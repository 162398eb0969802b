"""What the hub itself found becomes a signal, on the ordinary way in.

finding ─▶ AcceptedSET of the hub itself ─▶ inbox ─▶ pipeline ─▶ detection
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

import msgspec

from receivers.model import AcceptedSET, ProviderMode, SignalState
from risk.policy import PolicyMode
from runtime.ids import new_id

#: stands for the provider of what the hub says itself
OWN_PROVIDER: Final = "hub"


def own_signal(  # noqa: PLR0913 - a member each, all by name
    *,
    tenant_id: str,
    iss: str,
    jti: str,
    event_type: str,
    subject: Mapping[str, object],
    payload: bytes,
    txn: str | None,
    mode: PolicyMode,
    now: datetime,
) -> AcceptedSET:
    """Return a signal of the hub's own; a repeat with the same iss and jti is a duplicate.

    subject: an identifier, as JSON. mode: of the policies; while they only monitor it is recorded
    and counts nothing. Raises nothing.
    """
    acts = mode is PolicyMode.ENFORCE
    return AcceptedSET(
        tenant_id=tenant_id,
        signal_id=new_id("sig"),
        provider_id=OWN_PROVIDER,
        iss=iss,
        jti=jti,
        event_type=event_type,
        sub_id=msgspec.json.encode(subject),
        payload=payload,
        txn=txn,
        raw=payload.decode(),
        occurred_at=now,
        received_at=now,
        mode=(ProviderMode.ENFORCE if acts else ProviderMode.LOG_ONLY).value,
        state=SignalState.RECEIVED.value,
        detail=None,
    )
