"""Tests of ssf.push."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssf.errors import SETError
from ssf.push import (
    ANSWER_BYTES_MAX,
    RETRY_AFTER_S_MAX,
    SECEVENT_MEDIA_TYPE,
    PushClass,
    PushOutcome,
    classify_response,
    render_error,
)
from tests.ssf.kit import Vector


def classify(status: int, body: bytes = b"", retry_after_s: float | None = None) -> PushOutcome:
    return classify_response(status=status, body=body, retry_after_s=retry_after_s)


def error_body(err: object, description: object = "because") -> bytes:
    return json.dumps({"err": err, "description": description}).encode()


@pytest.mark.requirement("PUSH-7", "PUSH-8", "PUSH-40", "OLD-6")
def test_202_is_delivered_and_200_and_204_are_tolerated_with_a_remark() -> None:
    assert classify(202) == PushOutcome(
        klass=PushClass.DELIVERED, err=None, detail="status 202", retry_after_s=None
    )
    for status in (200, 204):
        outcome = classify(status)
        assert outcome.klass is PushClass.DELIVERED
        assert outcome.detail == f"status {status} taken for 202"


@pytest.mark.requirement(
    "PUSH-30",
    "PUSH-31",
    "PUSH-32",
    "PUSH-33",
    "PUSH-34",
    "PUSH-35",
    "PUSH-36",
    "PUSH-37",
    "PUSH-41",
)
@pytest.mark.parametrize(
    ("err", "klass"),
    [
        ("invalid_request", PushClass.PERMANENT),
        ("invalid_key", PushClass.KEY_PROBLEM),
        ("invalid_issuer", PushClass.STREAM_MISCONFIGURED),
        ("invalid_audience", PushClass.STREAM_MISCONFIGURED),
        ("authentication_failed", PushClass.CREDENTIALS),
        ("access_denied", PushClass.CREDENTIALS),
        ("invalid_state", PushClass.PERMANENT),
        ("vendor_specific", PushClass.PERMANENT),
        ("INVALID_KEY", PushClass.PERMANENT),
    ],
)
def test_a_400_means_what_its_error_code_says(err: str, klass: PushClass) -> None:
    outcome = classify(400, error_body(err))
    assert (outcome.klass, outcome.err) == (klass, err)
    assert outcome.detail == "status 400: because"


@pytest.mark.requirement("PUSH-33")
def test_the_example_error_is_understood(vector: Vector) -> None:
    outcome = classify(400, json.dumps(vector(19)).encode())
    assert (outcome.klass, outcome.err) == (PushClass.STREAM_MISCONFIGURED, "invalid_audience")


@pytest.mark.requirement("PUSH-42")
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"\xff",
        error_body(7),
        error_body("e" * 200),
        error_body("a\x07"),
        b"[" * 5000,
        b" " * (ANSWER_BYTES_MAX + 1),
    ],
)
def test_a_400_without_a_readable_code_is_permanent(body: bytes) -> None:
    outcome = classify(400, body)
    assert (outcome.klass, outcome.err) == (PushClass.PERMANENT, None)


@pytest.mark.requirement("PUSH-42")
@pytest.mark.parametrize("status", [404, 405, 406, 410, 413, 415, 422, 418, 201, 206])
def test_other_refusals_are_permanent_for_this_set(status: int) -> None:
    assert classify(status).klass is PushClass.PERMANENT


@pytest.mark.requirement("PUSH-43", "PUSH-21")
@pytest.mark.parametrize("status", [401, 403])
def test_401_and_403_are_about_credentials_and_keep_their_code(status: int) -> None:
    outcome = classify(status, error_body("authentication_failed"))
    assert (outcome.klass, outcome.err) == (PushClass.CREDENTIALS, "authentication_failed")


@pytest.mark.requirement("PUSH-44")
@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 599, 0, 100, 600, -1])
def test_overload_outage_and_no_answer_are_transient(status: int) -> None:
    assert classify(status).klass is PushClass.TRANSIENT


def test_no_answer_says_so() -> None:
    assert classify(0).detail == "no answer"


@pytest.mark.requirement("PUSH-45")
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_a_misconfiguration(status: int) -> None:
    assert classify(status).klass is PushClass.STREAM_MISCONFIGURED


@pytest.mark.requirement("PUSH-44")
@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        (None, None),
        (0.0, 0.0),
        (17.5, 17.5),
        (-1.0, None),
        (float("nan"), None),
        (1e12, RETRY_AFTER_S_MAX),
    ],
)
def test_the_wish_to_wait_is_kept_within_bounds(asked: float | None, kept: float | None) -> None:
    assert classify(503, retry_after_s=asked).retry_after_s == kept
    assert classify(202, retry_after_s=asked).retry_after_s is None


def test_the_detail_is_printable_and_bounded() -> None:
    detail = classify(400, error_body("invalid_key", "a\r\nb\x1b" + "c" * 5000)).detail
    assert detail.isprintable()
    assert len(detail) == 500
    assert classify(400, error_body("invalid_key", 7)).detail == "status 400"


@pytest.mark.requirement("PUSH-40", "PUSH-41", "PUSH-42", "PUSH-43", "PUSH-44", "PUSH-45")
@given(
    status=st.integers(-10, 1000) | st.integers(),
    body=st.binary() | st.builds(error_body, st.text() | st.none(), st.text() | st.integers()),
    retry_after_s=st.none() | st.floats(),
)
def test_every_answer_has_exactly_one_outcome(
    status: int, body: bytes, retry_after_s: float | None
) -> None:
    outcome = classify(status, body, retry_after_s)
    assert (outcome.klass is PushClass.DELIVERED) == (status in {200, 202, 204})
    assert outcome.retry_after_s is None or 0 <= outcome.retry_after_s <= RETRY_AFTER_S_MAX
    assert outcome.detail.isprintable()


@pytest.mark.requirement("PUSH-12", "EGW-37")
def test_a_refusal_is_rendered_with_err_and_description() -> None:
    error = SETError("invalid_audience", "aud does not name this recipient", requirement="SET-57")
    assert json.loads(render_error(error)) == {
        "err": "invalid_audience",
        "description": "aud does not name this recipient",
    }


@pytest.mark.requirement("PUSH-2")
def test_the_media_type_of_a_set(vector: Vector) -> None:
    assert vector(18)["request"]["headers"]["Content-Type"] == SECEVENT_MEDIA_TYPE
