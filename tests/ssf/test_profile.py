"""The old form of the wire, and that receivers of it understand what we make."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from ssf.errors import StreamError
from ssf.events.common import UnknownEvent
from ssf.profile import FINAL, OLD_METHODS, SSE, old_subject, profile_of
from ssf.secevent import Expectation, SecurityEventToken, parse_set, render_set
from ssf.stream import parse_create
from ssf.stream_requests import as_profile, named_audience
from ssf.subject import parse_subject

REVOKED = "https://schemas.openid.net/secevent/caep/event-type/session-revoked"
EMAIL = {"format": "email", "email": "rosa@corp.example"}
OLD_PUSH = "https://schemas.openid.net/secevent/risc/delivery-method/push"
OLD_POLL = "https://schemas.openid.net/secevent/risc/delivery-method/poll"
DEVICE = {"format": "opaque", "id": "LT-1"}


def token(subject: dict[str, Any]) -> SecurityEventToken:
    return SecurityEventToken(
        iss="https://hub.example",
        jti="J1",
        iat=1_774_000_000,
        aud=("https://feed.example",),
        sub_id=parse_subject(subject),
        event=UnknownEvent(type_uri=REVOKED, payload={"event_timestamp": 1_774_000_000}),
        event_type=REVOKED,
    )


@pytest.mark.requirement("SET-9", "SET-10", "OLD-1")
@pytest.mark.parametrize(
    ("subject", "shown"),
    [
        (EMAIL, {"user": EMAIL}),
        (
            {"format": "complex", "user": EMAIL, "device": DEVICE},
            {"user": EMAIL, "device": DEVICE},
        ),
        (
            {"format": "jwt_id", "iss": "https://idp.example", "jti": "t-1"},
            {"format": "jwt_id", "iss": "https://idp.example", "jti": "t-1"},
        ),
    ],
)
def test_the_subject_is_inside_the_event_or_beside_it_and_never_both(
    subject: dict[str, Any], shown: dict[str, Any]
) -> None:
    old = msgspec.json.decode(render_set(token(subject), SSE))
    assert old["events"] == {REVOKED: {"event_timestamp": 1_774_000_000, "subject": shown}}
    assert "sub_id" not in old
    assert old_subject(subject) == shown
    final = msgspec.json.decode(render_set(token(subject)))
    assert final["events"] == {REVOKED: {"event_timestamp": 1_774_000_000}}
    assert final["sub_id"] == subject


@pytest.mark.requirement("OLD-1", "SET-10")
def test_a_receiver_of_old_drafts_reads_it() -> None:
    expect = Expectation(
        issuer="https://hub.example",
        audiences=frozenset({"https://feed.example"}),
        legacy_subject=True,
    )
    subject = {"format": "complex", "user": EMAIL, "device": DEVICE}
    read = parse_set(render_set(token(subject), SSE), expect, 1_774_000_000)
    assert read.sub_id == parse_subject(subject)


@pytest.mark.requirement("OLD-2", "SSF-DEL-5")
def test_old_names_of_methods_are_for_receivers_of_old_drafts() -> None:
    assert set(OLD_METHODS) == {OLD_PUSH, OLD_POLL}
    for delivery in (
        {"method": OLD_PUSH, "endpoint_url": "https://a.example/"},
        {"method": OLD_POLL},
    ):
        wanted = parse_create(msgspec.json.encode({"delivery": delivery}))
        assert as_profile(wanted, SSE).method.value == OLD_METHODS[delivery["method"]]
        with pytest.raises(StreamError, match="not supported"):
            as_profile(wanted, FINAL)
    for profile in (SSE, FINAL):
        wanted = parse_create(b'{"delivery": {"method": "urn:ietf:rfc:8936"}}')
        assert as_profile(wanted, profile).method.value == "urn:ietf:rfc:8936"


@pytest.mark.parametrize(
    ("aud", "named"),
    [
        ("a", ("a",)),
        (["a", "b", "a"], ("a", "b")),
        (None, None),
        ([], "aud is no"),
        ("", "aud is no"),
        ([1], "aud is no"),
        ({"a": 1}, "aud is no"),
        (["a"] * 6, "aud is no"),
        ("a" * 1025, "aud is no"),
    ],
)
def test_only_a_receiver_of_an_old_draft_names_its_audience(aud: Any, named: Any) -> None:
    wanted = parse_create(msgspec.json.encode({"aud": aud, "iss": "x", "stream_id": "s"}))
    assert named_audience(wanted, FINAL) is None
    assert as_profile(wanted, FINAL).transmitter_supplied == wanted.transmitter_supplied
    assert dict(as_profile(wanted, SSE).transmitter_supplied) == {"stream_id": "s"}
    if isinstance(named, str):
        with pytest.raises(StreamError, match=named):
            named_audience(wanted, SSE)
    else:
        assert named_audience(wanted, SSE) == named


def test_a_profile_that_nobody_knows_is_the_final_one() -> None:
    assert profile_of("sse") is SSE
    assert profile_of("of a later release") is FINAL
