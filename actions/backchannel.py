"""OpenID Connect Back-Channel Logout as the caller: the message and its answer. Pure.

A logout token is not a SET: it has `exp`, `aud` is a client id, `sub` is a claim, and its event
URI begins with `http:` (EGW-46). Source: OpenID Connect Back-Channel Logout 1.0 with errata set 1,
§2.4 to §2.8; requirements BCL-3 to BCL-8, BCL-11, BCL-12.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlencode

import msgspec

from actions.message import LogoutMessage
from actions.model import Proof
from actions.outcomes import Outcome, OutcomeClass, classify_status
from actions.subjects import naming_value
from runtime.outbound import OutboundRequest
from ssf.jose import SigningKey, sign

TYP: Final = "logout+jwt"
EVENT_URI: Final = "http://schemas.openid.net/event/backchannel-logout"
#: at most two minutes; requirement BCL-7
VALIDITY_S: Final = 120
RESIDUAL: Final = "tokens already issued work until they expire, offline refresh tokens longer"

_LOGGED_OUT: Final = frozenset({200, 204})
_REFUSED: Final = frozenset({400, 422})


def render_claims(message: LogoutMessage) -> dict[str, object]:
    """Return the claims of a logout token: with a `sid` for one session, else for all; no `nonce`.

    Raises ValueError when the subject's format has no single value. Requirements BCL-3 to BCL-5.
    """
    sub = naming_value(message.subject)
    if sub is None:
        raise ValueError("the subject has no value that can be the claim sub")
    return {
        "iss": message.issuer,
        "aud": message.client_id,
        "sub": sub,
        "iat": message.issued_at_s,
        "exp": message.issued_at_s + VALIDITY_S,
        "jti": message.jti,
        "events": {EVENT_URI: {}},
        **({"sid": message.sid} if message.sid else {}),
    }


def build_request(message: LogoutMessage, key: SigningKey) -> OutboundRequest:
    """Return the request that carries a logout token. key: of purpose `logout`.

    Raises ValueError as `render_claims`. Requirements BCL-6, BCL-8, BCL-12.
    """
    token = sign(msgspec.json.encode(render_claims(message)), key, typ=TYP)
    return OutboundRequest(
        method="POST",
        url=message.endpoint_url,
        headers={"content-type": "application/x-www-form-urlencoded"},
        body=urlencode({"logout_token": token.decode()}).encode(),
    )


def classify_answer(status: int, retry_after_s: float | None) -> Outcome:
    """Decide what an answer means for the logout.

    status: HTTP status, 0 when no answer came. A 400 may mean that this app knows the user by
    another name, so the next subject format is tried. Raises nothing. Requirement BCL-11.
    """
    if status in _LOGGED_OUT:
        return Outcome(
            klass=OutcomeClass.DONE,
            detail="the app ended the user's sessions",
            status=status,
            proves=Proof.EFFECTIVE,
            residual=RESIDUAL,
        )
    if status in _REFUSED:
        return Outcome(
            klass=OutcomeClass.NEXT_FORMAT,
            detail=f"the app refused the logout token ({status})",
            status=status,
        )
    return classify_status(status, retry_after_s)
