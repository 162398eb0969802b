"""Expectations that many checks share."""

from __future__ import annotations

from collections.abc import Collection

from conformance.suite.checks import Verdict
from conformance.suite.http import JSON_MEDIA_TYPE, Answer

#: an error body that claims to be JSON is parsed by the OpenID suite (SSF-OP-53)
PARSEABLE = "SSF-OP-53"


def status_is(
    v: Verdict, answer: Answer, expected: int | Collection[int], *requirement_ids: str
) -> bool:
    """Demand a status; a body that says it is JSON must be it."""
    allowed = {expected} if isinstance(expected, int) else set(expected)
    named = " or ".join(str(status) for status in sorted(allowed))
    ok = v.must(answer.status in allowed, *requirement_ids, told=f"{named}: {answer.told()}")
    if answer.body and answer.media_type.endswith("json") and PARSEABLE in v.allowed:
        v.must(answer.json is not None, PARSEABLE, told=f"a JSON body parses: {answer.told()}")
    return ok


def status_should_be(
    v: Verdict, answer: Answer, expected: int | Collection[int], *requirement_ids: str
) -> bool:
    """Wish for a status: a rule that is a reading of the standard, not its letter."""
    allowed = {expected} if isinstance(expected, int) else set(expected)
    named = " or ".join(str(status) for status in sorted(allowed))
    return v.should(answer.status in allowed, *requirement_ids, told=f"{named}: {answer.told()}")


def need_object(v: Verdict, answer: Answer, status: int, *requirement_ids: str) -> None:
    """Demand a status and a JSON object, without which the check ends. Raises StopCheck."""
    v.need(answer.status == status, *requirement_ids, told=f"{status}: {answer.told()}")
    ok = answer.media_type == JSON_MEDIA_TYPE and isinstance(answer.json, dict)
    v.need(ok, *requirement_ids, told=f"an application/json object: {answer.told()}")
