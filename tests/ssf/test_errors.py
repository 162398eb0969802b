"""Tests of ssf.errors."""

import pytest

from ssf.errors import (
    EventError,
    LocalProtocolError,
    PollError,
    RemoteProtocolError,
    SETError,
    SharedSignalsError,
    StreamError,
    SubjectError,
)


@pytest.mark.parametrize("kind", [SETError, SubjectError, EventError, StreamError, PollError])
def test_an_error_of_the_peer_names_code_text_requirement_and_status(
    kind: type[RemoteProtocolError],
) -> None:
    error = kind("invalid_request", "no events", requirement="SET-58")
    assert isinstance(error, SharedSignalsError)
    assert (error.code, error.description) == ("invalid_request", "no events")
    assert (error.requirement, error.status_hint) == ("SET-58", 400)
    assert str(error) == "invalid_request: no events"


def test_an_error_of_ours_hints_at_500() -> None:
    error = LocalProtocolError("unusable_key", "no kid")
    assert error.status_hint == 500
    assert not isinstance(error, RemoteProtocolError)


def test_the_status_hint_can_be_chosen() -> None:
    assert SETError("x", "y", requirement="SET-50", status_hint=413).status_hint == 413
