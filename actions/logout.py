"""The Universal Logout message: one place that knows which protocol an app wants. Pure."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from actions import backchannel, gtr
from actions.message import LogoutMessage
from actions.model import LogoutMethod
from actions.outcomes import Outcome
from runtime.outbound import OutboundRequest
from ssf.jose import SigningKey

__all__ = ["KEY_PURPOSE", "LogoutMessage", "build_request", "classify_answer"]

#: which of our keys signs for a method; each purpose has its own `kid`s (BCL-12, contracts §8)
KEY_PURPOSE: Final = MappingProxyType({LogoutMethod.GTR: "gtr", LogoutMethod.BCL: "logout"})


def build_request(
    method: LogoutMethod, message: LogoutMessage, *, key: SigningKey
) -> OutboundRequest:
    """Return the signed request for one attempt. key: of the purpose KEY_PURPOSE[method].

    Raises ValueError for `ssf`, which is published to a stream and not called.
    """
    match method:
        case LogoutMethod.GTR:
            return gtr.build_request(message, key)
        case LogoutMethod.BCL:
            return backchannel.build_request(message, key)
        case LogoutMethod.SSF:
            raise ValueError("session-revoked goes out through the app's stream")


def classify_answer(method: LogoutMethod, *, status: int, retry_after_s: float | None) -> Outcome:
    """Decide what an answer means for the logout. Total; raises nothing."""
    if method is LogoutMethod.BCL:
        return backchannel.classify_answer(status, retry_after_s)
    return gtr.classify_answer(status, retry_after_s)
