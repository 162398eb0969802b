"""Sign-ins that cannot be phished, as the index of sessions tells them. Pure.

One of the two words that remedy a hijacked session (`risk.level`). OpenID EAP ACR values `phr` and
`phrh`; RFC 8176 has no word for it but `hwk`, a key in hardware.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from risk import catalogue
from risk.model import Clearance, SignalMode
from risk.sessions.model import Session

PHISHING_RESISTANT: Final = frozenset({"phr", "phrh"})
PHISHING_RESISTANT_METHODS: Final = PHISHING_RESISTANT | {"hwk"}


def is_phishing_resistant(session: Session) -> bool:
    """Return whether the session began with a sign-in that cannot be phished. Raises nothing."""
    return session.acr in PHISHING_RESISTANT or bool(
        PHISHING_RESISTANT_METHODS.intersection(session.amr)
    )


def safe_returns(begun: Iterable[Session]) -> list[Clearance]:
    """Return what sessions that just began say about their users. Raises nothing."""
    return [
        Clearance(
            tenant_id=each.tenant_id,
            entity_id=each.user_id,
            issuer=each.iss,
            remedy=catalogue.PHISHING_RESISTANT_SIGN_IN,
            level=None,
            mode=SignalMode.ENFORCE,
            occurred_at=min(each.started_at, each.created_at),
            signal_id=each.session_id,
        )
        for each in begun
        if is_phishing_resistant(each)
    ]
