"""Push delivery (RFC 8935): what an answer means for the sender, and how a refusal is written."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

import msgspec

from ssf.errors import SETError
from ssf.jose import SET_BYTES_MAX

__all__ = [
    "ANSWER_BYTES_MAX",
    "SECEVENT_MEDIA_TYPE",
    "SET_BYTES_MAX",
    "PushClass",
    "PushOutcome",
    "classify_response",
    "render_error",
]

SECEVENT_MEDIA_TYPE: Final = "application/secevent+jwt"
ANSWER_BYTES_MAX: Final = 64 * 1024
DETAIL_CHARS_MAX: Final = 500
ERR_CHARS_MAX: Final = 100
RETRY_AFTER_S_MAX: Final = 24 * 3600.0


class PushClass(StrEnum):
    """What the sender does next.

    DELIVERED: done. TRANSIENT: the endpoint is in trouble, back off the stream. PERMANENT: this SET
    is refused for good, set it aside. CREDENTIALS: retry slowly and alert. KEY_PROBLEM: few
    retries after minutes, then alert: it concerns every SET. STREAM_MISCONFIGURED: pause and alert.
    """

    DELIVERED = "delivered"
    TRANSIENT = "transient"
    PERMANENT = "permanent"
    CREDENTIALS = "credentials"
    KEY_PROBLEM = "key_problem"
    STREAM_MISCONFIGURED = "stream_misconfigured"


@dataclass(frozen=True, slots=True, kw_only=True)
class PushOutcome:
    """One push answer, judged.

    err: the peer's error code, if it gave one. detail: printable text for logs, at most
    DETAIL_CHARS_MAX characters. retry_after_s: seconds from now the peer asked to wait.
    """

    klass: PushClass
    err: str | None
    detail: str
    retry_after_s: float | None


_BY_ERR: Final[Mapping[str, PushClass]] = MappingProxyType(
    {
        "invalid_request": PushClass.PERMANENT,
        "invalid_key": PushClass.KEY_PROBLEM,
        "invalid_issuer": PushClass.STREAM_MISCONFIGURED,
        "invalid_audience": PushClass.STREAM_MISCONFIGURED,
        "authentication_failed": PushClass.CREDENTIALS,
        "access_denied": PushClass.CREDENTIALS,
        "invalid_state": PushClass.PERMANENT,
    }
)
_DELIVERED: Final = frozenset({200, 202, 204})
_TRANSIENT: Final = frozenset({408, 425, 429})
_CREDENTIALS: Final = frozenset({401, 403})


def classify_response(*, status: int, body: bytes, retry_after_s: float | None) -> PushOutcome:
    """Decide what one push answer means for the SET and its stream.

    status: HTTP status, 0 when no answer came. body: at most ANSWER_BYTES_MAX are read.
    retry_after_s: seconds from now, as the peer asked; capped at RETRY_AFTER_S_MAX.
    Raises nothing: every input has exactly one outcome.
    Source: RFC 8935 §2.2 to §2.4, RFC 9110 §10.2.3; requirements PUSH-8, PUSH-30 to PUSH-46.
    """
    err, description = _read_error(body) if 400 <= status < 500 else (None, "")  # noqa: PLR2004 - the 4xx class
    klass = _classify(status, err)
    return PushOutcome(
        klass=klass,
        err=err,
        detail=_detail(status, description),
        retry_after_s=None if klass is PushClass.DELIVERED else _bounded(retry_after_s),
    )


def render_error(error: SETError) -> bytes:
    """Render a refusal as the JSON body of a 400 answer.

    The caller adds `Content-Type: application/json` and `Content-Language: en`. Raises nothing.
    Source: RFC 8935 §2.3; requirement PUSH-12.
    """
    return msgspec.json.encode({"err": error.code, "description": error.description})


def _classify(status: int, err: str | None) -> PushClass:
    if status in _DELIVERED:
        return PushClass.DELIVERED
    if status == 400:  # noqa: PLR2004 - the status with error codes
        return _BY_ERR.get(err or "", PushClass.PERMANENT)
    if status in _CREDENTIALS:
        return PushClass.CREDENTIALS
    if 300 <= status < 400:  # noqa: PLR2004 - redirects are never followed (PUSH-45)
        return PushClass.STREAM_MISCONFIGURED
    if status in _TRANSIENT or not 200 <= status < 500:  # noqa: PLR2004 - 5xx, or no final answer
        return PushClass.TRANSIENT
    return PushClass.PERMANENT


def _read_error(body: bytes) -> tuple[str | None, str]:
    """Read what the peer says, without trust: a broken body is no error code."""
    if len(body) > ANSWER_BYTES_MAX:
        return None, ""
    try:
        answer: Any = msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None, ""
    if not isinstance(answer, dict):
        return None, ""
    err, description = answer.get("err"), answer.get("description")
    return (
        err if isinstance(err, str) and len(err) <= ERR_CHARS_MAX and err.isprintable() else None,
        description if isinstance(description, str) else "",
    )


def _detail(status: int, description: str) -> str:
    if status == 0:
        return "no answer"
    if status in _DELIVERED and status != 202:  # noqa: PLR2004 - RFC 8935 §2.2 knows only 202
        return f"status {status} taken for 202"
    printable = "".join(letter for letter in description[:DETAIL_CHARS_MAX] if letter.isprintable())
    return f"status {status}: {printable}"[:DETAIL_CHARS_MAX] if printable else f"status {status}"


def _bounded(seconds: float | None) -> float | None:
    if seconds is None or math.isnan(seconds) or seconds < 0:
        return None
    return min(seconds, RETRY_AFTER_S_MAX)
