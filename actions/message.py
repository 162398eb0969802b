"""The facts a logout message is made of, whatever the protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class LogoutMessage:
    """One request to one app about one user.

    issuer: our issuer, as the app trusts it. client_id: our name at the app (`sub` of GTR, `aud`
    of a logout token). subject: RFC 9493 object of a format the app understands. jti: fresh for
    each attempt. issued_at_s: seconds since 1970. sid: of the one session that is meant, as its
    issuer calls it; "" for all sessions of the user.
    """

    endpoint_url: str
    issuer: str
    client_id: str
    subject: Mapping[str, object]
    jti: str
    issued_at_s: int
    sid: str = ""
