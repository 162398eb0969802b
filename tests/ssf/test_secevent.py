"""Tests of ssf.secevent: the order of the checks, and what we write."""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssf.errors import SETError
from ssf.events.caep import CAEP_BASE, SessionRevoked
from ssf.events.common import UnknownEvent
from ssf.events.registry import STANDARD_EVENT_TYPES
from ssf.events.risc import RISC_BASE, AccountDisabled
from ssf.events.scim import Deactivate
from ssf.events.ssf import SSF_BASE, StreamUpdated, Verification
from ssf.events.vendor import OKTA_BASE, DeviceRiskChange
from ssf.jose import check_header, sign, signing_key, split_jws, verification_key, verify
from ssf.secevent import (
    CLOCK_SKEW_S,
    Expectation,
    SecurityEventToken,
    parse_set,
    peek_issuer,
    render_set,
)
from ssf.subject import Subject, complex_subject, email, opaque, parse_subject
from tests.ssf.kit import JSON_VALUES, SUBJECTS, TEXTS, KeyPairs, Vector

ISSUER = "https://vendor.example/t/blue"
AUDIENCE = "https://hub.example/t/blue"
NOW_S = 1_774_000_400
EXPECT = Expectation(issuer=ISSUER, audiences=frozenset({AUDIENCE, "client-7"}))
SESSION_REVOKED = CAEP_BASE + "session-revoked"
ABSENT = object()


def claims(**changed: object) -> dict[str, object]:
    """Return sound claims with some changed, or left out when ABSENT."""
    sound: dict[str, object] = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "iat": NOW_S - 90,
        "jti": "set-1",
        "sub_id": {"format": "email", "email": "rosa@green.example"},
        "events": {SESSION_REVOKED: {}},
    }
    return {name: value for name, value in (sound | changed).items() if value is not ABSENT}


def parse(members: Mapping[str, object], expect: Expectation = EXPECT) -> SecurityEventToken:
    return parse_set(json.dumps(members).encode(), expect, NOW_S)


def refusal(members: Mapping[str, object], expect: Expectation = EXPECT) -> tuple[str, str]:
    with pytest.raises(SETError) as caught:
        parse(members, expect)
    return caught.value.code, caught.value.requirement


def with_(**changed: Any) -> Expectation:
    """Return the usual expectation with some members changed."""
    return replace(EXPECT, **changed)


# --- what is accepted


@pytest.mark.requirement("SET-1", "SET-2", "SET-9", "CR-20")
def test_sound_claims_become_a_typed_token() -> None:
    assert parse(claims(txn="t-1", toe=NOW_S - 100)) == SecurityEventToken(
        iss=ISSUER,
        jti="set-1",
        iat=NOW_S - 90,
        aud=(AUDIENCE,),
        txn="t-1",
        toe=NOW_S - 100,
        sub_id=email("rosa@green.example"),
        event=SessionRevoked(),
        event_type=SESSION_REVOKED,
    )


@pytest.mark.requirement("SSF-VER-3", "SSF-VER-5", "SSF-UPD-1", "SCIM-2", "SET-13", "INT-40")
@pytest.mark.parametrize(
    ("number", "event"),
    [
        (15, Verification(state="b3Qf0pXc9mTt1y")),
        (16, Verification()),
        (17, StreamUpdated(status="disabled", reason="no activity for 30 days")),
        (23, None),
        (28, Deactivate()),
    ],
)
def test_every_example_token_is_accepted(number: int, event: object, vector: Vector) -> None:
    example = vector(number)
    aud = example["aud"] if isinstance(example["aud"], list) else [example["aud"]]
    expect = Expectation(issuer=example["iss"], audiences=frozenset(aud))
    token = parse_set(json.dumps(example).encode(), expect, example["iat"])
    assert event is None or token.event == event
    assert token.aud == tuple(aud)
    assert json.loads(render_set(token))["events"] == example["events"]


@pytest.mark.requirement("SET-44", "SET-43", "EGW-46")
def test_a_logout_token_is_no_set(vector: Vector) -> None:
    example = vector(27)
    expect = Expectation(issuer=example["iss"], audiences=frozenset({example["aud"]}))
    with pytest.raises(SETError) as caught:
        parse_set(json.dumps(example).encode(), expect, example["iat"])
    assert caught.value.code == "invalid_request"


@pytest.mark.requirement("SET-17")
def test_claims_and_members_nobody_knows_are_ignored() -> None:
    token = parse(claims(nbf=1, extra={"a": []}, events={SESSION_REVOKED: {"new": 1}}))
    assert token.event == SessionRevoked()


@pytest.mark.requirement("SET-13", "SET-57", "EGW-19")
def test_the_audience_may_be_text_or_array() -> None:
    assert parse(claims(aud="client-7")).aud == ("client-7",)
    assert parse(claims(aud=["other", AUDIENCE])).aud == ("other", AUDIENCE)


@pytest.mark.requirement("SET-63")
def test_an_unknown_event_type_is_accepted_and_kept() -> None:
    token = parse(claims(events={"https://vendor.example/strange": {"a": 1}}))
    assert token.event == UnknownEvent(type_uri="https://vendor.example/strange", payload={"a": 1})


@pytest.mark.requirement("SET-18", "CAEP-1", "EGW-38")
def test_the_time_of_the_event_is_event_timestamp_then_toe_then_iat() -> None:
    timed = claims(toe=NOW_S - 20, events={SESSION_REVOKED: {"event_timestamp": NOW_S - 30}})
    assert parse(timed).occurred_at_s == NOW_S - 30
    assert parse(claims(toe=NOW_S - 20)).occurred_at_s == NOW_S - 20
    assert parse(claims()).occurred_at_s == NOW_S - 90
    unknown = claims(events={"urn:x": {"event_timestamp": 1}})
    assert parse(unknown).occurred_at_s == NOW_S - 90


@pytest.mark.requirement("SET-16")
def test_a_fractional_toe_is_floored() -> None:
    assert parse(claims(toe=NOW_S - 0.5)).toe == NOW_S - 1


# --- what is refused, and why


@pytest.mark.requirement("SET-53", "SET-12", "SET-11", "EGW-50")
@pytest.mark.parametrize("iss", [ABSENT, None, 7, ISSUER + "/", "https://vendor.example"])
def test_another_issuer_is_refused(iss: object) -> None:
    assert refusal(claims(iss=iss)) == ("invalid_issuer", "SET-53")


@pytest.mark.requirement("SET-56")
@pytest.mark.parametrize(
    "iat", [ABSENT, None, "1774000310", 1774000310.0, True, -1, NOW_S + CLOCK_SKEW_S + 1, 10**30]
)
def test_an_iat_that_is_missing_no_integer_or_in_the_future_is_refused(iat: object) -> None:
    assert refusal(claims(iat=iat)) == ("invalid_request", "SET-56")


@pytest.mark.requirement("SET-56")
def test_clock_skew_is_tolerated_and_age_only_limited_on_request() -> None:
    assert parse(claims(iat=NOW_S + CLOCK_SKEW_S)).iat == NOW_S + CLOCK_SKEW_S
    assert parse(claims(iat=0)).iat == 0
    strict = with_(max_age_s=60, clock_skew_s=0)
    parse(claims(iat=NOW_S - 60), strict)
    assert refusal(claims(iat=NOW_S - 61), strict) == ("invalid_request", "SET-56")


@pytest.mark.requirement("SET-57")
@pytest.mark.parametrize(
    "aud", [ABSENT, None, 7, [], ["other"], "other", {}, [AUDIENCE, 7], [AUDIENCE] * 101]
)
def test_an_audience_that_does_not_name_us_is_refused(aud: object) -> None:
    assert refusal(claims(aud=aud)) == ("invalid_audience", "SET-57")


@pytest.mark.requirement("SET-58", "SET-43", "SET-7", "SET-8", "SET-40")
@pytest.mark.parametrize(
    "changed",
    [
        {"exp": NOW_S + 60},
        {"exp": None},
        {"sub": "rosa"},
        {"sub": None},
        {"jti": ABSENT},
        {"jti": ""},
        {"jti": 7},
        {"jti": "j" * 2000},
        {"events": ABSENT},
        {"events": {}},
        {"events": []},
        {"events": {SESSION_REVOKED: None}},
        {"events": {SESSION_REVOKED: []}},
        {"events": {"": {}}},
        {"events": {"u" * 2000: {}}},
        {"events": {SESSION_REVOKED: {}, RISC_BASE + "sessions-revoked": {}}},
    ],
)
def test_exp_sub_bad_jti_or_not_exactly_one_event_are_refused(changed: dict[str, object]) -> None:
    assert refusal(claims(**changed)) == ("invalid_request", "SET-58")


@pytest.mark.requirement("SET-58", "SET-4")
def test_several_names_of_one_event_type_are_accepted_when_agreed() -> None:
    one, other = SESSION_REVOKED, RISC_BASE + "sessions-revoked"
    agreed = with_(event_aliases=frozenset({frozenset({one, other})}))
    assert parse(claims(events={one: {}, other: {}}), agreed).event_type == one
    assert refusal(claims(events={one: {}, "urn:x": {}}), agreed)[1] == "SET-58"
    assert refusal(claims(events={one: {}, other: None}), agreed)[1] == "SET-58"


@pytest.mark.requirement("SET-59", "SET-9", "SET-10", "EGW-22")
@pytest.mark.parametrize(
    "sub_id", [ABSENT, None, "rosa", {}, {"format": "email"}, {"subject_type": "opaque", "id": "1"}]
)
def test_a_missing_or_malformed_subject_is_refused(sub_id: object) -> None:
    events = {SESSION_REVOKED: {"subject": {"format": "email", "email": "a@b.example"}}}
    assert refusal(claims(sub_id=sub_id, events=events)) == ("invalid_request", "SET-59")


@pytest.mark.requirement("SET-10", "SUB-25", "OLD-1")
def test_a_legacy_provider_may_put_the_subject_inside_the_event() -> None:
    payload = {
        "subject": {
            "user": {"format": "email", "email": "rosa@green.example"},
            "device": {"format": "opaque", "id": "LT-1"},
        },
        "previous_level": "low",
        "current_level": "high",
        "initiating_entity": "system",
    }
    old = claims(sub_id=ABSENT, events={OKTA_BASE + "device-risk-change": payload})
    token = parse(old, with_(legacy_subject=True))
    assert token.sub_id == complex_subject(user=email("rosa@green.example"), device=opaque("LT-1"))
    assert token.event == DeviceRiskChange(
        previous_level="low", current_level="high", initiating_entity="system"
    )
    assert refusal(old) == ("invalid_request", "SET-59")
    assert refusal(claims(sub_id=ABSENT), with_(legacy_subject=True))[1] == "SET-59"


@pytest.mark.requirement("SET-10")
def test_sub_id_wins_over_a_subject_inside_the_event() -> None:
    events = {SESSION_REVOKED: {"subject": {"format": "opaque", "id": "other"}}}
    token = parse(claims(events=events), with_(legacy_subject=True))
    assert token.sub_id == email("rosa@green.example")


@pytest.mark.requirement("SET-60", "SUB-33", "SSF-META-12")
def test_an_event_with_a_critical_member_we_cannot_read_is_marked_not_refused() -> None:
    subject = {"format": "complex", "region": {"format": "opaque", "id": "eu"}}
    broken = {CAEP_BASE + "credential-change": {"change_type": 7}}
    critical = with_(critical_subject_members=frozenset({"region"}))
    token = parse(claims(sub_id=subject, events=broken), critical)
    assert token.unprocessable_members == {"region"}
    assert isinstance(token.event, UnknownEvent)


@pytest.mark.requirement("SET-63")
def test_a_payload_that_breaks_its_definition_is_refused() -> None:
    broken = {CAEP_BASE + "credential-change": {"change_type": "revoke"}}
    assert refusal(claims(events=broken)) == ("invalid_request", "SET-63")


@pytest.mark.requirement("SET-64", "SSF-VER-6")
def test_an_event_type_outside_the_allow_list_is_denied_but_stream_events_are_not() -> None:
    only = with_(allowed_event_types=frozenset({SESSION_REVOKED}))
    parse(claims(), only)
    parse(claims(events={SSF_BASE + "verification": {}}), only)
    assert refusal(claims(events={"urn:x": {}}), only) == ("access_denied", "SET-64")


@pytest.mark.requirement("SET-15")
@pytest.mark.parametrize("txn", [7, ["t"], "t" * 2000])
def test_a_txn_that_is_no_acceptable_text_is_refused(txn: object) -> None:
    assert refusal(claims(txn=txn)) == ("invalid_request", "SET-15")


@pytest.mark.requirement("SET-16")
@pytest.mark.parametrize("toe", ["1774000310", True, -1, 1e300])
def test_a_toe_that_is_no_time_is_refused(toe: object) -> None:
    assert refusal(claims(toe=toe)) == ("invalid_request", "SET-16")


@pytest.mark.requirement("SET-53", "SET-56", "SET-57", "SET-58", "SET-59", "SET-63")
def test_the_first_failure_in_the_order_of_the_checks_is_the_answer() -> None:
    wrong: list[tuple[dict[str, object], str]] = [
        ({"iss": "x"}, "SET-53"),
        ({"iat": "x"}, "SET-56"),
        ({"aud": "x"}, "SET-57"),
        ({"exp": 1}, "SET-58"),
        ({"sub_id": "x"}, "SET-59"),
        ({"events": {CAEP_BASE + "risk-level-change": {}}}, "SET-63"),
    ]
    changed: dict[str, object] = {}
    for members, requirement in reversed(wrong):
        changed |= members
        assert refusal(claims(**changed))[1] == requirement


@pytest.mark.parametrize("payload", [b"", b"[]", b"{", b"\xff"])
def test_a_payload_that_is_no_object_is_refused(payload: bytes) -> None:
    with pytest.raises(SETError) as caught:
        parse_set(payload, EXPECT, NOW_S)
    assert caught.value.requirement == "SET-51"


@given(
    st.dictionaries(
        st.sampled_from(["iss", "iat", "aud", "jti", "txn", "toe", "sub_id", "events", "exp"]),
        JSON_VALUES,
        max_size=4,
    )
)
def test_any_claims_give_a_token_or_a_set_error(changed: dict[str, object]) -> None:
    with suppress(SETError):
        assert isinstance(parse(claims(**changed)), SecurityEventToken)


@given(st.binary())
def test_arbitrary_bytes_raise_only_set_errors(payload: bytes) -> None:
    with suppress(SETError):
        parse_set(payload, EXPECT, NOW_S)


# --- unverified issuer


@pytest.mark.requirement("SET-53")
@pytest.mark.parametrize(("iss", "seen"), [(ISSUER, ISSUER), (7, None), (ABSENT, None)])
def test_the_issuer_can_be_read_before_verification(
    iss: object, seen: str | None, key_pairs: KeyPairs
) -> None:
    payload = json.dumps(claims(iss=iss)).encode()
    raw = sign(payload, signing_key(key_pairs["ES256"].private), typ="secevent+jwt")
    assert peek_issuer(split_jws(raw)) == seen


# --- writing


def token_of(subject: Subject, **changed: Any) -> SecurityEventToken:
    """Return a token about the subject, with some members changed."""
    token = SecurityEventToken(
        iss=ISSUER,
        jti="set-1",
        iat=NOW_S,
        aud=(AUDIENCE,),
        sub_id=subject,
        event=AccountDisabled(reason="hijacking"),
        event_type=AccountDisabled.type_uri,
    )
    return replace(token, **changed)


@pytest.mark.requirement("SET-1", "SET-2", "SET-7", "SET-8", "SET-9", "SET-40", "EGW-20", "INT-31")
def test_what_we_write_has_one_event_a_top_level_subject_and_no_sub_or_exp() -> None:
    assert json.loads(render_set(token_of(opaque("a")))) == {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "iat": NOW_S,
        "jti": "set-1",
        "sub_id": {"format": "opaque", "id": "a"},
        "events": {RISC_BASE + "account-disabled": {"reason": "hijacking"}},
    }


@pytest.mark.requirement("SET-13", "SET-15", "SET-16")
def test_several_audiences_txn_and_toe_are_written_when_given() -> None:
    written = json.loads(render_set(token_of(opaque("a"), aud=("a", "b"), txn="t", toe=5)))
    assert (written["aud"], written["txn"], written["toe"]) == (["a", "b"], "t", 5)


@given(
    subject=SUBJECTS,
    txn=st.none() | TEXTS,
    toe=st.none() | st.integers(0, NOW_S),
    type_uri=st.sampled_from(sorted(STANDARD_EVENT_TYPES)),
    reason=st.dictionaries(TEXTS, TEXTS, min_size=1, max_size=2),
)
def test_parsing_what_was_rendered_gives_the_same_token(
    subject: Subject, txn: str | None, toe: int | None, type_uri: str, reason: dict[str, str]
) -> None:
    unknown = UnknownEvent(type_uri="urn:x:" + type_uri, payload=dict(reason))
    for event in (SessionRevoked(reason_admin=reason), unknown):
        token = token_of(subject, txn=txn, toe=toe, event=event, event_type=event.type_uri)
        assert parse_set(render_set(token), EXPECT, NOW_S) == token


@pytest.mark.requirement("SET-30", "SET-32", "SET-55")
def test_a_token_survives_the_whole_way_from_claims_over_the_wire_and_back(
    key_pairs: KeyPairs,
) -> None:
    token = token_of(parse_subject({"format": "opaque", "id": "a"}))
    raw = sign(render_set(token), signing_key(key_pairs["RS256"].private), typ="secevent+jwt")
    jws = split_jws(raw)
    check_header(jws.header)
    verify(jws, verification_key(key_pairs["RS256"].public))
    assert parse_set(jws.payload, EXPECT, NOW_S) == token
