"""What a sign-in says of its user becomes a signal of the hub's own."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec

from hub.own_signal import own_signal
from receivers.model import AcceptedSET
from risk.announced import DETECTION
from risk.model import SIGN_INS_ISSUER
from risk.policy import PolicyMode
from risk.signins.detections import Found


def signal_of(  # noqa: PLR0913 - a member each, all by name
    found: Found,
    *,
    tenant_id: str,
    subject: Mapping[str, object],
    trace_id: str,
    jti: str,
    mode: PolicyMode,
    now: datetime,
) -> AcceptedSET:
    """Return the signal of one detection; subject: an identifier of the user, as JSON.

    trace_id: of the sign-in. jti: a second signal with the same one is a duplicate.

    While the policies only monitor it is recorded and counts nothing. Raises nothing.
    """
    return own_signal(
        tenant_id=tenant_id,
        iss=SIGN_INS_ISSUER,
        jti=jti,
        event_type=DETECTION,
        subject=subject,
        payload=msgspec.json.encode(
            {
                "name": found.name,
                "level": found.level.name,
                "confidence": found.confidence,
                "reasons": [found.reason],
            }
        ),
        txn=trace_id,
        mode=mode,
        now=now,
    )
