"""What a sign-in says of its user becomes the hub's own signal, on the ordinary way in.

found_by ─▶ AcceptedSET of the hub itself ─▶ inbox ─▶ pipeline ─▶ detection on the user
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

import msgspec

from hub.inline.finding import OWN_PROVIDER
from receivers.model import AcceptedSET, ProviderMode, SignalState
from risk.announced import DETECTION
from risk.policy import PolicyMode
from risk.signins.detections import Found
from runtime.ids import new_id

OWN_ISSUER: Final = "urn:signalhub:sign-ins"


def signal_of(
    found: Found,
    *,
    tenant_id: str,
    subject: Mapping[str, object],
    trace_id: str,
    mode: PolicyMode,
    now: datetime,
) -> AcceptedSET:
    """Return the signal of one detection; subject: an identifier of the user, as JSON.

    While the policies only monitor it is recorded and counts nothing. Raises nothing.
    """
    payload = msgspec.json.encode({"name": found.name, "reasons": [found.reason]})
    acts = mode is PolicyMode.ENFORCE
    return AcceptedSET(
        tenant_id=tenant_id,
        signal_id=new_id("sig"),
        provider_id=OWN_PROVIDER,
        iss=OWN_ISSUER,
        jti=f"{trace_id}:{found.name}",
        event_type=DETECTION,
        sub_id=msgspec.json.encode(subject),
        payload=payload,
        txn=trace_id,
        raw=payload.decode(),
        occurred_at=now,
        received_at=now,
        mode=(ProviderMode.ENFORCE if acts else ProviderMode.LOG_ONLY).value,
        state=SignalState.RECEIVED.value,
        detail=None,
    )
