"""One proof of a session's key; item of the operation PROVE."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

import msgspec

#: a context that showed the key is believed for this long
PROOF_LIFE: Final = timedelta(minutes=10)


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """The key of a session was shown in a context. proof_id: a proof is good once."""

    tenant_id: str
    session_id: str
    proof_id: str
    context_key: str
    at: datetime
