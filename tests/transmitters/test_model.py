"""The pure rules: what an attempt means, which subject a stream gets, what a SET holds."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.clock import from_epoch_s
from runtime.queue import Fence
from ssf.errors import LocalProtocolError
from ssf.events.registry import SSF_BASE, STANDARD_EVENT_TYPES
from ssf.push import PushClass
from ssf.stream import DeliveryMethod, StreamStatus
from tests.transmitters.conftest import CREDENTIAL_CHANGE, ROSA, SESSION_REVOKED, event
from transmitters.delivery.model import (
    LONE_ATTEMPTS_MAX,
    OVERDUE_MAX_S,
    REFUSED_ATTEMPTS_MAX,
    PollPage,
    PollTurn,
    PushSettlement,
    SETRefusal,
    decide_push,
    decide_refusal,
)
from transmitters.model import (
    EVENTS_SUPPORTED,
    ORDERING_KEY_CHARACTERS_MAX,
    Addressing,
    DeliveryState,
    PendingSET,
    StoredEvent,
    Stream,
    bounded_ordering_key,
    choose_subject,
    configuration_of,
    render_pending,
)

NOW = from_epoch_s(1_774_000_000)


def settlement(klass: PushClass, **changes: Any) -> PushSettlement:
    values: dict[str, Any] = {
        "fence": Fence(kind="deliveries", bucket=1, epoch=1),
        "tenant_id": "default",
        "stream_id": "str_1",
        "jti": "1",
        "kid": "set-1",
        "klass": klass.value,
        "status": 503,
        "err": None,
        "detail": "status 503",
        "retry_after_s": None,
        "attempts": 1,
        "lone_attempts": 1,
        "overdue_s": 0.0,
        "stream_failures": 0,
        "delivery_epoch": 0,
        "jitter": 0.5,
        "at": NOW,
    }
    return PushSettlement(**{**values, **changes})


def stream(**changes: Any) -> Stream:
    values: dict[str, Any] = {
        "tenant_id": "default",
        "stream_id": "str_1",
        "client_id": "cli_1",
        "app_id": "app_1",
        "aud": ("cli_1",),
        "method": DeliveryMethod.POLL,
        "endpoint_url": None,
        "authorization_header_sealed": None,
        "events_requested": (SESSION_REVOKED, "https://vendor.example/unknown"),
        "description": None,
        "status": StreamStatus.ENABLED,
        "reason": None,
        "subject_format": None,
        "created_at": NOW,
    }
    return Stream(**{**values, **changes})


def pending(**changes: Any) -> PendingSET:
    stored: dict[str, Any] = {
        "event_type": SESSION_REVOKED,
        "payload": {"event_timestamp": 5},
        "subjects": [dict(subject) for subject in ROSA],
        "txn": "cause-1",
        "toe": None,
    }
    content = StoredEvent(**{**stored, **changes})
    return PendingSET(jti="J", iat=1_774_000_000, kid=None, attempts=0, event=content)


@pytest.mark.requirement("PUSH-40")
def test_a_delivered_set_is_done_and_its_stream_works() -> None:
    decision = decide_push(settlement(PushClass.DELIVERED, status=202))
    assert decision.state is DeliveryState.DELIVERED
    assert decision.stream_rests_s is None


@pytest.mark.requirement("PUSH-44")
@pytest.mark.parametrize("failures", [0, 1, 5, 40])
def test_trouble_of_the_endpoint_rests_the_stream_longer_each_time(failures: int) -> None:
    decision = decide_push(settlement(PushClass.TRANSIENT, stream_failures=failures))
    assert decision.state is DeliveryState.PENDING
    assert decision.stream_rests_s is not None
    assert 0 < decision.stream_rests_s <= 60
    worse = decide_push(settlement(PushClass.TRANSIENT, stream_failures=failures + 1))
    assert worse.stream_rests_s is not None
    assert worse.stream_rests_s >= decision.stream_rests_s


@pytest.mark.requirement("PUSH-44")
def test_retry_after_is_a_lower_bound_for_the_stream_and_the_set() -> None:
    decision = decide_push(settlement(PushClass.TRANSIENT, retry_after_s=120.0))
    assert decision.stream_rests_s == 120.0
    assert decision.retry_in_s == 120.0


@pytest.mark.requirement("PUSH-46")
def test_a_stream_that_is_down_costs_no_set_its_life_for_days() -> None:
    down = {"attempts": 500, "stream_failures": 500}
    day = decide_push(settlement(PushClass.TRANSIENT, overdue_s=86_400.0, **down))
    days = decide_push(settlement(PushClass.TRANSIENT, overdue_s=OVERDUE_MAX_S, **down))
    assert day.state is DeliveryState.PENDING
    assert days.state is DeliveryState.DEAD
    assert days.stream_rests_s is not None


@pytest.mark.requirement("PUSH-46")
def test_a_set_that_fails_alone_is_given_up_after_its_attempts() -> None:
    decision = decide_push(settlement(PushClass.TRANSIENT, lone_attempts=LONE_ATTEMPTS_MAX))
    assert decision.state is DeliveryState.DEAD


@pytest.mark.requirement("PUSH-30", "PUSH-37", "PUSH-42")
def test_a_set_that_is_refused_for_good_is_dead_and_rests_no_stream() -> None:
    decision = decide_push(settlement(PushClass.PERMANENT, status=400, err="invalid_request"))
    assert decision.state is DeliveryState.DEAD
    assert decision.stream_rests_s is None


@pytest.mark.requirement("PUSH-31")
def test_an_unknown_key_holds_the_set_for_minutes_and_not_for_ever() -> None:
    first = decide_push(settlement(PushClass.KEY_PROBLEM, status=400, err="invalid_key"))
    last = decide_push(settlement(PushClass.KEY_PROBLEM, attempts=REFUSED_ATTEMPTS_MAX))
    assert first.state is DeliveryState.PENDING
    assert first.retry_in_s >= 30
    assert first.stream_rests_s is None
    assert last.state is DeliveryState.DEAD


@pytest.mark.requirement("PUSH-34", "PUSH-43")
@pytest.mark.parametrize(
    ("status", "err"), [(401, None), (403, "access_denied"), (400, "authentication_failed")]
)
def test_wrong_credentials_rest_the_stream_for_a_while(status: int, err: str | None) -> None:
    decision = decide_push(settlement(PushClass.CREDENTIALS, status=status, err=err))
    assert decision.state is DeliveryState.PENDING
    assert decision.stream_rests_s is not None
    assert decision.stream_rests_s >= 30


@pytest.mark.requirement("PUSH-35")
def test_a_set_we_may_not_send_is_tried_a_few_times_without_resting_the_stream() -> None:
    denied = {"status": 400, "err": "access_denied"}
    first = decide_push(settlement(PushClass.CREDENTIALS, **denied))
    last = decide_push(settlement(PushClass.CREDENTIALS, attempts=REFUSED_ATTEMPTS_MAX, **denied))
    assert (first.state, first.stream_rests_s) == (DeliveryState.PENDING, None)
    assert last.state is DeliveryState.DEAD


@pytest.mark.requirement("PUSH-32", "PUSH-33", "PUSH-45")
def test_a_misconfigured_stream_is_held_and_retried_slowly() -> None:
    decision = decide_push(
        settlement(PushClass.STREAM_MISCONFIGURED, status=400, err="invalid_audience")
    )
    assert decision.state is DeliveryState.PENDING
    assert decision.stream_rests_s is not None
    assert decision.stream_rests_s >= 30


@given(
    klass=st.sampled_from(PushClass),
    status=st.integers(0, 599),
    err=st.none() | st.text(max_size=20),
    attempts=st.integers(1, 10**6),
    failures=st.integers(0, 10**6),
    overdue_s=st.floats(-10, 10**9),
    jitter=st.floats(0, 1, exclude_max=True),
)
def test_every_attempt_has_exactly_one_bounded_outcome(
    klass: PushClass,
    status: int,
    err: str | None,
    attempts: int,
    failures: int,
    overdue_s: float,
    jitter: float,
) -> None:
    decision = decide_push(
        settlement(
            klass,
            status=status,
            err=err,
            attempts=attempts,
            stream_failures=failures,
            overdue_s=overdue_s,
            jitter=jitter,
        )
    )
    assert decision.state is not DeliveryState.DROPPED
    assert 0 <= decision.retry_in_s <= 86_400
    assert decision.stream_rests_s is None or 0 < decision.stream_rests_s <= 86_400


@pytest.mark.requirement("POLL-12")
@pytest.mark.parametrize(
    ("err", "attempts", "state"),
    [
        ("invalid_request", 1, DeliveryState.DEAD),
        ("something_else", 1, DeliveryState.DEAD),
        ("invalid_key", 1, DeliveryState.PENDING),
        ("access_denied", 1, DeliveryState.PENDING),
        ("invalid_audience", 1, DeliveryState.PENDING),
        ("invalid_key", REFUSED_ATTEMPTS_MAX, DeliveryState.DEAD),
    ],
)
def test_a_reported_error_means_what_it_means_as_an_answer_to_a_push(
    err: str, attempts: int, state: DeliveryState
) -> None:
    refusal = SETRefusal(jti="J", err=err, detail="")
    assert decide_refusal(refusal, attempts=attempts, jitter=0.0).state is state


@pytest.mark.requirement("SUB-24", "SUB-35")
@pytest.mark.parametrize(
    ("subjects", "wanted", "chosen"),
    [
        (ROSA, None, ROSA[0]),
        (ROSA, "email", ROSA[0]),
        (ROSA, "iss_sub", ROSA[1]),
        (({"format": "aliases", "identifiers": list(ROSA)},), "iss_sub", ROSA[1]),
        (({"format": "complex", "user": ROSA[1], "device": {}},), "iss_sub", ROSA[1]),
        (
            (
                {
                    "format": "complex",
                    "user": {"format": "aliases", "identifiers": list(ROSA)},
                },
            ),
            "email",
            ROSA[0],
        ),
    ],
)
def test_a_stream_gets_the_subject_in_its_own_format(
    subjects: tuple[dict[str, Any], ...], wanted: str | None, chosen: dict[str, Any]
) -> None:
    assert choose_subject(subjects, wanted) == chosen


@pytest.mark.requirement("SUB-24")
@pytest.mark.parametrize(
    ("subjects", "wanted"),
    [
        (ROSA, "opaque"),
        ((), None),
        (({"format": "complex", "device": {"format": "opaque", "id": "d"}},), "opaque"),
    ],
)
def test_no_other_format_stands_in_for_the_one_a_stream_wants(
    subjects: tuple[dict[str, Any], ...], wanted: str | None
) -> None:
    with pytest.raises(LocalProtocolError) as caught:
        choose_subject(subjects, wanted)
    assert caught.value.code == "subject_unmapped"


@pytest.mark.requirement("SET-1", "SET-4", "SET-7", "SET-8", "SET-9", "SET-14", "INT-31")
@pytest.mark.requirement("SSF-SEC-4")
def test_a_set_has_the_claims_of_the_standard_and_no_others() -> None:
    addressing = Addressing(iss="https://hub.example", aud=("cli_1",), subject_format="iss_sub")
    claims = msgspec.json.decode(render_pending(pending(toe=7), addressing))
    assert claims == {
        "iss": "https://hub.example",
        "aud": "cli_1",
        "iat": 1_774_000_000,
        "jti": "J",
        "txn": "cause-1",
        "toe": 7,
        "sub_id": ROSA[1],
        "events": {SESSION_REVOKED: {"event_timestamp": 5}},
    }


@pytest.mark.requirement("SSF-VER-5", "SSF-UPD-1", "SUB-46")
def test_an_event_about_the_stream_keeps_the_stream_as_its_subject() -> None:
    subject = {"format": "opaque", "id": "str_1"}
    about = pending(event_type=SSF_BASE + "verification", payload={}, subjects=[subject])
    addressing = Addressing(iss="https://hub.example", aud=("a",), subject_format="email")
    assert msgspec.json.decode(render_pending(about, addressing))["sub_id"] == subject


@pytest.mark.requirement("SSF-CFG-4", "SSF-CFG-5", "SSF-CFG-6", "EGW-18")
def test_delivered_are_the_requested_types_that_are_supported() -> None:
    configuration = configuration_of(stream(), issuer="https://hub.example/t/blue")
    assert set(configuration.events_supported) == STANDARD_EVENT_TYPES == set(EVENTS_SUPPORTED)
    assert configuration.events_requested == (SESSION_REVOKED, "https://vendor.example/unknown")
    assert configuration.events_delivered == (SESSION_REVOKED,)
    assert configuration.endpoint_url == "https://hub.example/t/blue/ssf/poll/str_1"


@pytest.mark.requirement("SUB-40", "SSF-STAT-4", "SSF-STAT-6", "EGW-26", "EGW-27")
@pytest.mark.parametrize(
    ("changes", "event_changes", "goes"),
    [
        ({}, {}, True),
        ({}, {"event_type": CREDENTIAL_CHANGE}, False),
        ({}, {"event_type": "https://vendor.example/unknown"}, False),
        ({}, {"event_type": SSF_BASE + "verification"}, True),
        ({"status": StreamStatus.PAUSED}, {}, True),
        ({"status": StreamStatus.DISABLED}, {}, False),
        ({}, {"only_stream_id": "str_1"}, True),
        ({}, {"only_stream_id": "str_2"}, False),
        ({}, {"only_app_id": "app_1"}, True),
        ({}, {"only_app_id": "app_2"}, False),
    ],
)
def test_an_event_goes_over_a_stream_by_type_status_and_address(
    changes: dict[str, Any],
    event_changes: dict[str, Any],
    goes: bool,  # noqa: FBT001 - a case
) -> None:
    assert event(**event_changes).concerns(stream(**changes)) is goes


def test_an_ordering_key_is_never_too_long_to_be_indexed() -> None:
    long = "x" * (ORDERING_KEY_CHARACTERS_MAX + 1)
    assert bounded_ordering_key("usr_1") == "usr_1"
    assert len(bounded_ordering_key(long)) <= ORDERING_KEY_CHARACTERS_MAX
    assert bounded_ordering_key(long) != bounded_ordering_key(long + "y")


def test_hot_writes_survive_the_way_between_processes() -> None:
    turn = PollTurn(
        tenant_id="default",
        stream_id="str_1",
        client_id="cli_1",
        kid="set-1",
        sets_max=5,
        at=NOW,
        jitter=0.5,
        acks=("a",),
        refusals=(SETRefusal(jti="b", err="invalid_key", detail="why"),),
    )
    page = PollPage(known=True, pending=(pending(toe=7),), more_available=True)
    for message in (turn, page, settlement(PushClass.TRANSIENT)):
        packed = msgspec.msgpack.encode(message)
        assert msgspec.msgpack.decode(packed, type=type(message)) == message
