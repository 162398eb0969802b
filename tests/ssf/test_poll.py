"""Tests of ssf.poll."""

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssf.errors import PollError
from ssf.poll import (
    ACKS_MAX,
    MAX_EVENTS_MAX,
    REQUEST_BYTES_MAX,
    PollRequest,
    PollResponse,
    ReportedError,
    parse_request,
    parse_response,
    render_request,
    render_response,
)
from tests.ssf.kit import JSON_VALUES, TEXTS, Vector


def parse(members: Mapping[str, object]) -> PollRequest:
    return parse_request(json.dumps(members).encode())


@pytest.mark.requirement("POLL-3", "POLL-5", "POLL-17", "EGW-35")
def test_the_example_requests_are_read(vector: Vector) -> None:
    first = "0195b0c2-7c1f-7a52-9d0e-6d2b1f6f0a01"
    second = "0195b0c4-02aa-7b31-8f5e-1a7f3f1e0b02"
    third = "0195b0c5-9d10-7c02-a1b2-55d0c3e90c03"
    assert [parse(example) for example in vector(20)] == [
        PollRequest(),
        PollRequest(max_events=25, return_immediately=True),
        PollRequest(max_events=0, return_immediately=True, ack=(first,)),
        PollRequest(max_events=25, ack=(first,)),
        PollRequest(
            return_immediately=True,
            ack=(second,),
            set_errs={third: ReportedError("invalid_key", "kid hub-2025-11-b is unknown")},
        ),
    ]


@pytest.mark.requirement("POLL-24")
def test_an_empty_body_is_an_empty_object_and_unknown_members_are_ignored() -> None:
    assert parse_request(b"") == PollRequest()
    assert parse({"unknown": [1]}) == PollRequest()


BROKEN_MEMBERS: list[dict[str, object]] = [
    {"maxEvents": -1},
    {"maxEvents": 1.5},
    {"maxEvents": "1"},
    {"maxEvents": True},
    {"maxEvents": None},
    {"returnImmediately": 1},
    {"returnImmediately": None},
    {"ack": "a"},
    {"ack": {"a": 1}},
    {"ack": [1]},
    {"ack": ["a"] * (ACKS_MAX + 1)},
    {"setErrs": []},
    {"setErrs": {"a": "invalid_key"}},
    {"setErrs": {"a": {}}},
    {"setErrs": {"a": {"err": 1}}},
    {"setErrs": {"a": {"err": "x", "description": 1}}},
    {"setErrs": {str(n): {} for n in range(ACKS_MAX + 1)}},
]


@pytest.mark.requirement("POLL-24", "POLL-19")
@pytest.mark.parametrize(
    "body",
    [
        b";{ broken",
        b"[]",
        b'{"ack":[],"ack":["a"]}',
        b" " * (REQUEST_BYTES_MAX + 1),
        *(json.dumps(members).encode() for members in BROKEN_MEMBERS),
    ],
)
def test_a_request_with_type_errors_is_refused(body: bytes) -> None:
    with pytest.raises(PollError) as caught:
        parse_request(body)
    assert (caught.value.code, caught.value.requirement) == ("invalid_request", "POLL-24")
    assert caught.value.status_hint == 400


@pytest.mark.requirement("POLL-12", "POLL-18")
def test_refusals_are_rendered_by_jti() -> None:
    refused = PollRequest(set_errs={"a": ReportedError("invalid_key", "kid is unknown")})
    assert json.loads(render_request(refused)) == {
        "returnImmediately": False,
        "setErrs": {"a": {"err": "invalid_key", "description": "kid is unknown"}},
    }


@pytest.mark.requirement("POLL-4")
def test_a_huge_wish_is_cut_to_the_limit() -> None:
    assert parse({"maxEvents": 10**30}).max_events == MAX_EVENTS_MAX


@pytest.mark.requirement("POLL-11")
def test_a_jti_we_cannot_have_issued_is_ignored() -> None:
    read = parse({"ack": ["a", "j" * 5000], "setErrs": {"j" * 5000: {"err": "x"}}})
    assert read == PollRequest(ack=("a",))


@pytest.mark.requirement("POLL-12")
def test_reported_errors_are_bounded() -> None:
    read = parse({"setErrs": {"a": {"err": "e" * 500, "description": "d" * 5000}}})
    assert read.set_errs["a"] == ReportedError("e" * 100, "d" * 1000)
    assert parse({"setErrs": {"a": {"err": "x"}}}).set_errs["a"] == ReportedError("x", "")


@given(
    st.builds(
        PollRequest,
        max_events=st.none() | st.integers(0, MAX_EVENTS_MAX),
        return_immediately=st.booleans(),
        ack=st.lists(TEXTS, max_size=3).map(tuple),
        set_errs=st.dictionaries(TEXTS, st.builds(ReportedError, TEXTS, TEXTS), max_size=2),
    )
)
def test_parsing_a_rendered_request_gives_the_same_request(request_: PollRequest) -> None:
    assert parse_request(render_request(request_)) == request_


@pytest.mark.requirement("POLL-1", "POLL-5", "EGW-34")
def test_a_request_is_rendered_with_what_is_needed_only() -> None:
    assert json.loads(render_request(PollRequest())) == {"returnImmediately": False}
    only_ack = PollRequest(max_events=0, return_immediately=True, ack=("a",))
    assert json.loads(render_request(only_ack)) == {
        "maxEvents": 0,
        "returnImmediately": True,
        "ack": ["a"],
    }


@pytest.mark.requirement("POLL-8", "POLL-9", "EGW-32")
def test_the_example_answers_are_read_and_rendered(vector: Vector) -> None:
    full, empty = vector(21)
    for example in (full, empty):
        read = parse_response(json.dumps(example).encode())
        rendered = render_response(read.sets, more_available=read.more_available)
        assert json.loads(rendered) == example
    assert parse_response(json.dumps(full).encode()).more_available
    assert parse_response(b'{"sets":{}}') == PollResponse(sets={}, more_available=False)


@pytest.mark.requirement("POLL-8")
@pytest.mark.parametrize(
    "members",
    [
        {},
        {"sets": []},
        {"sets": None},
        {"sets": {"a": 1}},
        {"sets": {str(n): "" for n in range(10_001)}},
        {"sets": {}, "moreAvailable": "yes"},
    ],
)
def test_an_answer_that_breaks_the_rules_is_refused(members: dict[str, Any]) -> None:
    with pytest.raises(PollError) as caught:
        parse_response(json.dumps(members).encode())
    assert (caught.value.code, caught.value.requirement) == ("invalid_response", "POLL-8")


@given(st.dictionaries(TEXTS, TEXTS, max_size=4), st.booleans())
def test_parsing_a_rendered_answer_gives_the_same_answer(sets: dict[str, str], more: bool) -> None:  # noqa: FBT001 - drawn by hypothesis
    read = parse_response(render_response(sets, more_available=more))
    assert read == PollResponse(sets=sets, more_available=more)
    assert list(read.sets) == list(sets)


@given(
    st.binary()
    | st.dictionaries(
        st.sampled_from(
            ["maxEvents", "returnImmediately", "ack", "setErrs", "sets", "moreAvailable"]
        ),
        JSON_VALUES,
        max_size=3,
    ).map(lambda members: json.dumps(members).encode())
)
def test_arbitrary_bodies_raise_only_poll_errors(body: bytes) -> None:
    with suppress(PollError):
        assert isinstance(parse_request(body), PollRequest)
    with suppress(PollError):
        assert isinstance(parse_response(body), PollResponse)
