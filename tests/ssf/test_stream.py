"""Tests of ssf.stream."""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssf.errors import StreamError
from ssf.events.caep import CAEP_BASE
from ssf.events.ssf import STREAM_EVENT_TYPES
from ssf.stream import (
    STREAM_TRANSITIONS,
    DeliveryMethod,
    StreamChange,
    StreamConfiguration,
    StreamStatus,
    WantedStream,
    changed_configuration,
    new_configuration,
    parse_create,
    parse_patch,
    parse_put,
    render_configuration,
    render_status,
    selects,
)
from ssf.stream_requests import (
    StatusUpdate,
    SubjectRequest,
    VerificationRequest,
    parse_status_update,
    parse_subject_request,
    parse_verification_request,
)
from ssf.subject import complex_subject, email, iss_sub, opaque
from tests.ssf.kit import JSON_VALUES, Vector

ISSUER = "https://hub.acme-signals.example/t/blue"
SUPPORTED = tuple(
    CAEP_BASE + name
    for name in (
        "session-revoked",
        "credential-change",
        "device-compliance-change",
        "risk-level-change",
    )
)
PUSH_URL = "https://app.example/hooks"
POLL_METHOD = "urn:ietf:rfc:8936"


def body(members: Mapping[str, object]) -> bytes:
    return json.dumps(members).encode()


def create(**members: object) -> WantedStream:
    return parse_create(body(members))


def push(**members: object) -> dict[str, object]:
    return {"method": "urn:ietf:rfc:8935", "endpoint_url": PUSH_URL} | members


def configure(wanted: WantedStream) -> StreamConfiguration:
    return new_configuration(
        wanted,
        stream_id="st_4qk2Vd8z",
        iss=ISSUER,
        aud=("https://payroll.green.example",),
        events_supported=SUPPORTED,
        poll_url=ISSUER + "/ssf/poll/st_4qk2Vd8z",
    )


def refusal(members: Mapping[str, object]) -> StreamError:
    with pytest.raises(StreamError) as caught:
        configure(parse_create(body(members)))
    return caught.value


# --- create


@pytest.mark.requirement(
    "SSF-OP-1",
    "SSF-OP-5",
    "SSF-CFG-1",
    "SSF-CFG-2",
    "SSF-CFG-3",
    "SSF-CFG-4",
    "SSF-CFG-5",
    "SSF-CFG-6",
    "SSF-CFG-7",
    "SSF-CFG-8",
    "SSF-CFG-9",
    "SSF-CFG-10",
    "SSF-DEL-1",
    "SSF-DEL-2",
    "SSF-DEL-3",
    "SSF-DEL-7",
    "EGW-18",
)
def test_the_example_request_gives_the_example_configuration(vector: Vector) -> None:
    wanted = parse_create(body(vector(4)))
    assert wanted.authorization_header == "Bearer 9c2e-push-secret"
    made = replace(
        configure(wanted), min_verification_interval_s=10, inactivity_timeout_s=2_592_000
    )
    assert made.status is StreamStatus.ENABLED
    assert render_configuration(made) == vector(5)


@pytest.mark.requirement("SSF-DEL-2", "EGW-16")
def test_the_poll_url_is_ours_whatever_the_receiver_wrote(vector: Vector) -> None:
    wanted = parse_create(body(vector(6)["request"]))
    made = configure(wanted)
    assert made.method is DeliveryMethod.POLL
    assert made.endpoint_url == ISSUER + "/ssf/poll/st_4qk2Vd8z"
    poll = {"method": "urn:ietf:rfc:8936", "endpoint_url": "http://x", "authorization_header": "\n"}
    other = create(delivery=poll)
    assert (other.endpoint_url, other.authorization_header) == (None, None)


@pytest.mark.requirement("SSF-DEL-4", "EGW-17", "SSF-CFG-6")
def test_an_empty_request_is_a_poll_stream_that_delivers_nothing() -> None:
    for wanted in (create(), create(delivery=None, events_requested=None, description=None)):
        assert wanted == WantedStream(events_requested=(), method=DeliveryMethod.POLL)
        assert render_configuration(configure(wanted))["events_delivered"] == []


@pytest.mark.requirement("SSF-CFG-13")
def test_unknown_members_are_ignored_and_never_echoed() -> None:
    assert "vendor" not in render_configuration(configure(create(vendor={"x": 1})))


def test_repeated_event_types_count_once_and_keep_their_order() -> None:
    wanted = create(events_requested=[SUPPORTED[1], "urn:x", SUPPORTED[0], SUPPORTED[1]])
    assert wanted.events_requested == (SUPPORTED[1], "urn:x", SUPPORTED[0])
    assert configure(wanted).events_delivered == (SUPPORTED[1], SUPPORTED[0])


@pytest.mark.requirement("SSF-CFG-5", "EGW-18")
@pytest.mark.parametrize("value", ["session-revoked", "*", "https://a b", "https://a.example/ü"])
def test_what_is_no_type_of_event_is_kept_echoed_and_not_delivered(value: str) -> None:
    made = configure(create(events_requested=[SUPPORTED[0], value]))
    assert made.events_delivered == (SUPPORTED[0],)
    assert render_configuration(made)["events_requested"] == [SUPPORTED[0], value]


@pytest.mark.requirement("SSF-CFG-9")
def test_a_long_description_is_cut() -> None:
    assert create(description="d" * 5000).description == "d" * 1000


@pytest.mark.requirement("SSF-OP-3", "SSF-OP-4", "SSF-DEL-5", "CT-3")
@pytest.mark.parametrize(
    ("requirement", "members"),
    [
        ("SSF-OP-4", {"delivery": "urn:ietf:rfc:8935"}),
        ("SSF-DEL-5", {"delivery": {}}),
        ("SSF-DEL-5", {"delivery": {"method": ["urn:ietf:rfc:8935"]}}),
        ("SSF-DEL-5", {"delivery": {"method": "urn:ietf:rfc:9999"}}),
        ("SSF-DEL-2", {"delivery": {"method": "urn:ietf:rfc:8935"}}),
        ("SSF-DEL-2", {"delivery": push(endpoint_url=7)}),
        ("SSF-DEL-2", {"delivery": push(endpoint_url="https://a/" + "x" * 3000)}),
        ("SSF-OP-4", {"events_requested": "urn:x"}),
        ("SSF-OP-4", {"events_requested": [1]}),
        ("SSF-OP-4", {"events_requested": [""]}),
        ("SSF-OP-4", {"events_requested": ["x" * 1_025]}),
        ("SSF-OP-4", {"events_requested": ["urn:x"] * 201}),
        ("SSF-OP-4", {"description": 7}),
    ],
)
def test_a_request_with_type_errors_is_refused(
    requirement: str, members: dict[str, object]
) -> None:
    error = refusal(members)
    assert (error.code, error.requirement) == ("invalid_request", requirement)
    assert error.status_hint == 400


@pytest.mark.requirement("SSF-OP-4", "CT-3", "CT-10")
@pytest.mark.parametrize(
    "raw", [b";{ broken", b"", b"[]", b'{"delivery":{},"delivery":{}}', b" " * 200_000]
)
def test_a_body_that_is_no_unambiguous_object_is_refused(raw: bytes) -> None:
    with pytest.raises(StreamError) as caught:
        parse_create(raw)
    assert caught.value.requirement == "SSF-OP-4"


@pytest.mark.requirement("SSF-DEL-6")
@pytest.mark.parametrize(
    "url",
    [
        "http://app.example/hook",
        "ftp://app.example",
        "https://",
        "https:///hook",
        "https://user@app.example/",
        "https://user:pw@app.example/",
        "https://app.example/#f",
        "https://app.example/a b",
        "https://app.example/\r\nX: y",
        "https://bücher.example/",
        "https://app.example:99999/",
        "https://app.example:0/",
        "https://[::1/",
        "https://app.example\\@evil.example/",
        "app.example",
    ],
)
def test_a_push_url_that_is_not_plain_https_is_refused(url: str) -> None:
    assert refusal({"delivery": push(endpoint_url=url)}).requirement == "SSF-DEL-6"


@pytest.mark.requirement("SSF-DEL-6")
def test_http_needs_the_development_switch() -> None:
    raw = body({"delivery": push(endpoint_url="http://127.0.0.1:9000/hook?a=1")})
    assert parse_create(raw, allow_http=True).endpoint_url == "http://127.0.0.1:9000/hook?a=1"
    with pytest.raises(StreamError):
        parse_create(raw)


@pytest.mark.requirement("SSF-DEL-8")
@pytest.mark.parametrize(
    "value",
    [
        "",
        7,
        "Bearer a\r\nX-Evil: 1",
        "a\0b",
        "a\tb",
        "Bearer €",
        " Bearer a",
        "a\x7f",
        "a\x85",
        "Bearer ä",
        "x" * 5000,
    ],
)
def test_an_authorization_header_that_could_not_stand_in_a_request_is_refused(
    value: object,
) -> None:
    # NUL is refused with the whole body, before the member is looked at.
    error = refusal({"delivery": push(authorization_header=value)})
    assert error.requirement in {"SSF-DEL-8", "SSF-OP-4"}


@pytest.mark.requirement("SSF-DEL-3", "EGW-31")
def test_the_authorization_header_is_kept_verbatim_and_out_of_sight() -> None:
    wanted = create(delivery=push(authorization_header="Bearer a-token"))
    assert wanted.authorization_header == "Bearer a-token"
    assert "a-token" not in repr(wanted)
    assert "a-token" not in repr(configure(wanted))
    assert create(delivery=push(authorization_header=None)).authorization_header is None


@pytest.mark.requirement("SSF-OP-4", "SSF-OP-21", "EGW-13")
@pytest.mark.parametrize(
    "members",
    [
        {"stream_id": "mine"},
        {"iss": "https://other.example"},
        {"aud": ["https://payroll.green.example", "b"]},
        {"events_supported": []},
        {"events_delivered": [SUPPORTED[0]]},
        {"min_verification_interval": 5},
        {"inactivity_timeout": 5},
    ],
)
def test_transmitter_supplied_members_with_other_values_are_refused(
    members: dict[str, object],
) -> None:
    assert refusal(members).requirement == "SSF-OP-21"


@pytest.mark.requirement("SSF-OP-21", "EGW-13")
def test_transmitter_supplied_members_with_our_values_are_fine() -> None:
    wanted = create(
        iss=ISSUER,
        aud=["https://payroll.green.example"],
        events_supported=list(reversed(SUPPORTED)),
        events_delivered=[],
        stream_id=None,
    )
    assert configure(wanted).iss == ISSUER


@pytest.mark.requirement("SSF-CFG-3", "OLD-10")
def test_several_audiences_are_rendered_as_an_array() -> None:
    made = replace(configure(create()), aud=("a", "b"))
    assert render_configuration(made)["aud"] == ["a", "b"]


@given(
    st.binary()
    | st.dictionaries(
        st.sampled_from(
            [
                "delivery",
                "events_requested",
                "description",
                "aud",
                "stream_id",
                "status",
                "subject",
                "state",
                "verified",
                "reason",
            ]
        ),
        JSON_VALUES
        | st.dictionaries(
            st.sampled_from(["method", "endpoint_url", "authorization_header"]),
            JSON_VALUES | st.sampled_from(list(DeliveryMethod)),
        ),
        max_size=4,
    ).map(body)
)
def test_arbitrary_bodies_raise_only_stream_errors(raw: bytes) -> None:
    readers: list[Any] = [
        parse_create,
        parse_status_update,
        parse_verification_request,
        parse_subject_request,
    ]
    for read in readers:
        with suppress(StreamError):
            assert read(raw) is not None


# --- status


@pytest.mark.requirement("SUB-40", "SSF-STAT-3", "SSF-STAT-4", "SSF-STAT-6", "EGW-27")
def test_a_stream_selects_delivered_types_unless_it_is_disabled() -> None:
    enabled = configure(create(events_requested=[SUPPORTED[0]]))
    assert selects(enabled, SUPPORTED[0])
    assert not selects(enabled, SUPPORTED[1])
    assert selects(replace(enabled, status=StreamStatus.PAUSED), SUPPORTED[0])
    assert not selects(replace(enabled, status=StreamStatus.DISABLED), SUPPORTED[0])


@pytest.mark.requirement("SUB-46", "SSF-VER-6", "SSF-UPD-4", "EGW-26")
@pytest.mark.parametrize("status", list(StreamStatus))
@pytest.mark.parametrize("event_type", sorted(STREAM_EVENT_TYPES))
def test_events_about_the_stream_itself_are_never_filtered(
    status: StreamStatus, event_type: str
) -> None:
    assert selects(replace(configure(create()), status=status), event_type)


@pytest.mark.requirement("SSF-STAT-9")
def test_every_change_of_status_is_allowed() -> None:
    everything = frozenset(StreamStatus)
    assert dict(STREAM_TRANSITIONS) == dict.fromkeys(StreamStatus, everything)


@pytest.mark.requirement("SSF-STAT-1", "SSF-STAT-2", "SSF-STAT-7")
def test_a_status_update_is_read_and_rendered_as_in_the_example(vector: Vector) -> None:
    update = parse_status_update(body(vector(11)))
    assert update == StatusUpdate(
        stream_id="st_4qk2Vd8z",
        status=StreamStatus.PAUSED,
        reason="maintenance window of the receiver",
    )
    changed = replace(configure(create()), status=update.status, reason=update.reason)
    assert render_status(changed) == vector(11)
    assert "reason" not in render_status(replace(changed, reason=None))


@pytest.mark.requirement("SSF-STAT-7")
@pytest.mark.parametrize(
    "members",
    [
        {},
        {"stream_id": "a"},
        {"stream_id": "a", "status": "ENABLED"},
        {"stream_id": "a", "status": "stopped"},
        {"stream_id": "a", "status": 7},
        {"stream_id": "a", "status": ["paused"]},
        {"status": "paused"},
        {"stream_id": "", "status": "paused"},
        {"stream_id": "s" * 300, "status": "paused"},
        {"stream_id": "a", "status": "paused", "reason": 7},
    ],
)
def test_a_broken_status_update_is_refused(members: dict[str, object]) -> None:
    with pytest.raises(StreamError) as caught:
        parse_status_update(body(members))
    assert caught.value.requirement == "SSF-STAT-7"


def test_a_long_reason_is_cut() -> None:
    update = parse_status_update(body({"stream_id": "a", "status": "paused", "reason": "r" * 5000}))
    assert update.reason == "r" * 1000


# --- verification and subjects


@pytest.mark.requirement("SSF-VER-1", "SSF-VER-3", "SSF-VER-4")
def test_a_verification_request_keeps_its_state_unchanged(vector: Vector) -> None:
    assert parse_verification_request(body(vector(14))) == VerificationRequest(
        stream_id="st_4qk2Vd8z", state="b3Qf0pXc9mTt1y"
    )
    assert parse_verification_request(b'{"stream_id":"a"}').state is None


@pytest.mark.requirement("SSF-VER-1")
@pytest.mark.parametrize(
    "members",
    [{}, {"stream_id": 7}, {"stream_id": "a", "state": 7}, {"stream_id": "a", "state": "s" * 5000}],
)
def test_a_broken_verification_request_is_refused(members: dict[str, object]) -> None:
    with pytest.raises(StreamError) as caught:
        parse_verification_request(body(members))
    assert caught.value.requirement == "SSF-VER-1"


@pytest.mark.requirement("SSF-SUBJ-1", "SSF-SUBJ-2", "SSF-SUBJ-3")
def test_subject_requests_are_read_as_in_the_examples(vector: Vector) -> None:
    assert parse_subject_request(body(vector(12))) == SubjectRequest(
        stream_id="st_4qk2Vd8z", subject=email("rosa.lind@green.example"), verified=True
    )
    assert parse_subject_request(body(vector(13))).subject == complex_subject(
        user=iss_sub("https://login.green.example", "u-20417"), device=opaque("LT-0091-77")
    )


@pytest.mark.requirement("SSF-SUBJ-4")
@pytest.mark.parametrize(
    "members",
    [
        {"stream_id": "a"},
        {"stream_id": "a", "subject": {"format": "email"}},
        {"subject": {"format": "opaque", "id": "x"}},
        {"stream_id": "a", "subject": {"format": "opaque", "id": "x"}, "verified": "yes"},
    ],
)
def test_a_broken_subject_request_is_refused(members: dict[str, object]) -> None:
    with pytest.raises(StreamError) as caught:
        parse_subject_request(body(members))
    assert caught.value.requirement == "SSF-SUBJ-4"


def change(current: StreamConfiguration, body_of_change: StreamChange) -> StreamConfiguration:
    return changed_configuration(current, body_of_change, poll_url=POLL_URL)


POLL_URL = "https://hub.acme-signals.example/t/blue/ssf/poll/s-1"


def polled(**members: object) -> StreamConfiguration:
    return new_configuration(
        create(**members),
        stream_id="s-1",
        iss=ISSUER,
        aud=("cli_1",),
        events_supported=SUPPORTED,
        poll_url=POLL_URL,
    )


@pytest.mark.requirement("SSF-OP-20", "SSF-OP-31")
def test_a_patch_keeps_what_it_does_not_name_and_replaces_delivery_as_a_whole() -> None:
    before = polled(events_requested=[SUPPORTED[0]], description="d", delivery=push())
    same = change(before, parse_patch(body({"stream_id": "s-1"})))
    assert same == before
    nulls = {"stream_id": "s-1", "description": None, "delivery": None, "events_requested": None}
    assert change(before, parse_patch(body(nulls))) == before
    moved = change(
        before, parse_patch(body({"stream_id": "s-1", "delivery": {"method": POLL_METHOD}}))
    )
    assert (moved.method, moved.endpoint_url) == (DeliveryMethod.POLL, POLL_URL)
    assert (moved.description, moved.events_requested) == ("d", (SUPPORTED[0],))
    again = change(moved, parse_patch(body({"stream_id": "s-1", "delivery": push()})))
    assert again == before


@pytest.mark.requirement("SSF-OP-30")
def test_a_put_leaves_only_what_it_names() -> None:
    before = polled(events_requested=[SUPPORTED[0]], description="d", delivery=push())
    after = change(before, parse_put(body({"stream_id": "s-1", "events_requested": ["urn:x"]})))
    assert after == replace(
        polled(events_requested=["urn:x"]), status=before.status, stream_id=before.stream_id
    )


@pytest.mark.requirement("SSF-OP-20", "SSF-OP-30")
@pytest.mark.parametrize("parse", [parse_patch, parse_put])
@pytest.mark.parametrize("members", [{}, {"stream_id": ""}, {"stream_id": 7}])
def test_a_change_names_its_stream(
    parse: Callable[[bytes], StreamChange], members: dict[str, object]
) -> None:
    with pytest.raises(StreamError):
        parse(body(members))


@pytest.mark.requirement("SSF-OP-21")
def test_a_change_claims_nothing_that_is_not_so() -> None:
    before = polled(events_requested=[SUPPORTED[0]])
    true = {"stream_id": "s-1", "events_delivered": [SUPPORTED[0]], "aud": ["cli_1"]}
    assert change(before, parse_patch(body(true))) == before
    with pytest.raises(StreamError):
        change(before, parse_patch(body({"stream_id": "s-1", "events_delivered": []})))
