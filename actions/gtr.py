"""Global Token Revocation: the message and what its answer means. Pure.

Source: draft-parecki-oauth-global-token-revocation-05 §3; the signed-JWT authentication is the
widely deployed vendor shape. Requirements GTR-1 to GTR-3, GTR-12, GTR-20 to GTR-23.
"""

from __future__ import annotations

from typing import Final

import msgspec

from actions.message import LogoutMessage
from actions.model import Proof
from actions.outcomes import Outcome, OutcomeClass, classify_status
from runtime.outbound import OutboundRequest
from ssf.jose import SigningKey, sign

TYP: Final = "global-token-revocation+jwt"
#: the JWT is valid this long before and after it is made; requirement GTR-21
VALIDITY_S: Final = 300
RESIDUAL: Final = "access tokens already issued work until they expire"

_ACCEPTED: Final = frozenset({200, 202, 204})
_OTHER_FORMAT: Final = frozenset({400, 422})
_NOT_FOUND: Final = 404


def render_claims(message: LogoutMessage) -> dict[str, object]:
    """Return the claims of the bearer JWT; the user is only in the body (EGW-48)."""
    return {
        "iss": message.issuer,
        "sub": message.client_id,
        "aud": message.endpoint_url,
        "jti": message.jti,
        "iat": message.issued_at_s,
        "nbf": message.issued_at_s - VALIDITY_S,
        "exp": message.issued_at_s + VALIDITY_S,
    }


def build_request(message: LogoutMessage, key: SigningKey) -> OutboundRequest:
    """Return the request that asks an app to revoke a user's tokens and sessions.

    key: of purpose `gtr`. Raises nothing. Requirements GTR-1, GTR-2, GTR-20, GTR-21, GTR-23.
    """
    token = sign(msgspec.json.encode(render_claims(message)), key, typ=TYP)
    return OutboundRequest(
        method="POST",
        url=message.endpoint_url,
        headers={
            "authorization": f"Bearer {token.decode()}",
            "content-type": "application/json",
        },
        body=msgspec.json.encode({"sub_id": dict(message.subject)}),
    )


def classify_answer(status: int, retry_after_s: float | None) -> Outcome:
    """Decide what an answer means for the logout.

    status: HTTP status, 0 when no answer came. Raises nothing. Requirements GTR-7, GTR-8, GTR-12.
    """
    if status in _ACCEPTED:
        return Outcome(
            klass=OutcomeClass.DONE,
            detail="the app began to revoke the user's tokens",
            status=status,
            proves=Proof.ACCEPTED,
            residual=RESIDUAL,
        )
    if status == _NOT_FOUND:
        return Outcome(
            klass=OutcomeClass.DONE,
            detail="the app knows no such user: nothing to log out",
            status=status,
            proves=Proof.EFFECTIVE,
        )
    if status in _OTHER_FORMAT:
        return Outcome(
            klass=OutcomeClass.NEXT_FORMAT,
            detail=f"the app does not take this subject ({status})",
            status=status,
        )
    return classify_status(status, retry_after_s)
