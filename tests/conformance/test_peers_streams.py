"""Applications as SSF receivers: by push and by poll."""

from __future__ import annotations

import itertools
import json
import secrets
from collections.abc import Iterator

import httpx2
import pytest

from tests.conformance.conftest import Running, running
from tests.conformance.stand_in import SESSION_REVOKED, TOKEN, StandIn, eventually, serving

pytestmark = pytest.mark.scenario

NUMBERS = itertools.count(1)
HEADER = "Bearer push-secret"
VERIFICATION = "https://schemas.openid.net/secevent/ssf/event-type/verification"


@pytest.fixture(scope="module")
def push_app(hub: StandIn) -> Iterator[Running]:
    options = {
        "mode": "push",
        "name": "payroll",
        "hub": hub.issuer,
        "hub_token": TOKEN,
        "authorization_header": HEADER,
    }
    with running("app", "--config", json.dumps(options)) as peer:
        assert peer.post("/control/connect").status_code == 201
        yield peer


@pytest.fixture(scope="module")
def poll_hub() -> Iterator[StandIn]:
    with serving() as stand_in:
        yield stand_in


@pytest.fixture(scope="module")
def poll_app(poll_hub: StandIn) -> Iterator[Running]:
    flags = ("--mode", "poll", "--hub", poll_hub.issuer, "--hub-token", TOKEN, "--connect")
    with running("app", *flags) as peer:
        yield peer


@pytest.fixture
def user() -> str:
    return f"user-{next(NUMBERS)}@green.example"


def _email(user: str) -> dict[str, str]:
    return {"format": "email", "email": user}


def _open(app: Running, user: str, *devices: str) -> None:
    for device in devices:
        app.post("/control/sessions", {"user": user, "device": device, "sid": f"{user}-{device}"})


def _push(app: Running, token: str, **changes: str) -> httpx2.Response:
    headers = {
        "authorization": HEADER,
        "content-type": "application/secevent+jwt",
        **{name.replace("_", "-"): value for name, value in changes.items()},
    }
    return app.http.post("/events", content=token, headers=headers)


def test_a_push_app_creates_its_stream_as_the_standard_has_it(
    push_app: Running, hub: StandIn
) -> None:
    # Other tests of this module make streams of other apps, before or after.
    url = push_app.urls["push_url"]
    (wanted,) = [one for one in hub.streams if one["delivery"].get("endpoint_url") == url]
    assert wanted["delivery"] == {
        "method": "urn:ietf:rfc:8935",
        "endpoint_url": url,
        "authorization_header": HEADER,
    }
    assert wanted["events_requested"] == [SESSION_REVOKED]
    assert wanted["description"] == "simulated app payroll"


def test_a_pushed_session_revoked_ends_the_users_sessions_once(
    push_app: Running, hub: StandIn, user: str
) -> None:
    _open(push_app, user, "laptop", "phone")
    token = hub.session_revoked(_email(user))
    first = _push(push_app, token)
    assert (first.status_code, first.content) == (202, b"")
    assert push_app.alive(user) == []
    _open(push_app, user, "tablet")
    assert _push(push_app, token).status_code == 202
    assert push_app.alive(user) == ["tablet"]
    jti = push_app.ledger(what="session.ended", user=user)[0]["request_id"]
    outcomes = [e["outcome"] for e in push_app.ledger(what="set.received", request_id=jti)]
    assert outcomes == ["effect", "repeat"]


def test_a_complex_subject_ends_only_what_matches_all_members(
    push_app: Running, hub: StandIn, user: str
) -> None:
    _open(push_app, user, "laptop", "phone")
    subject = {
        "format": "complex",
        "user": _email(user),
        "device": {"format": "opaque", "id": "phone"},
    }
    assert _push(push_app, hub.session_revoked(subject)).status_code == 202
    assert push_app.alive(user) == ["laptop"]
    session = {"format": "complex", "session": {"format": "opaque", "id": f"{user}-laptop"}}
    assert _push(push_app, hub.session_revoked(session)).status_code == 202
    assert push_app.alive(user) == []


@pytest.mark.parametrize(
    "subject",
    [
        {"format": "email", "email": "nobody@x.example"},
        {"format": "phone_number", "phone_number": "+493012345678"},
        {"format": "complex", "tenant": {"format": "opaque", "id": "green"}},
    ],
)
def test_a_subject_of_no_interest_is_accepted_and_ends_nothing(
    push_app: Running, hub: StandIn, user: str, subject: dict[str, object]
) -> None:
    _open(push_app, user, "laptop")
    assert _push(push_app, hub.session_revoked(subject)).status_code == 202
    assert push_app.alive(user) == ["laptop"]


def test_other_events_are_accepted_and_noted(push_app: Running, hub: StandIn) -> None:
    token = hub.session_revoked(
        {"format": "opaque", "id": "str_1"}, jti="ver-1", events={VERIFICATION: {}}
    )
    assert _push(push_app, token).status_code == 202
    [entry] = push_app.ledger(request_id="ver-1")
    assert (entry["event_type"], entry["outcome"]) == (VERIFICATION, "noted")


def test_each_broken_set_is_refused_with_its_code(
    push_app: Running, hub: StandIn, user: str
) -> None:
    _open(push_app, user, "laptop")
    subject = _email(user)
    broken = [
        ("a.b.c", "invalid_request"),
        (hub.session_revoked(subject, wrong_key=True), "authentication_failed"),
        (hub.session_revoked(subject, iss="https://other.example"), "invalid_issuer"),
        (hub.session_revoked(subject, aud="https://other.example"), "invalid_audience"),
        (hub.session_revoked(subject, exp=int(4e9)), "invalid_request"),
        (hub.session_revoked(subject, sub=user), "invalid_request"),
        (hub.session_revoked(subject, iat=int(4e9)), "invalid_request"),
        (hub.session_revoked(subject, jti=None), "invalid_request"),
        (hub.session_revoked(subject, sub_id=None), "invalid_request"),
        (hub.logout_token("https://app.example", sub=user), "invalid_request"),
    ]
    for token, code in broken:
        answer = _push(push_app, token)
        assert answer.status_code == 400
        assert answer.json()["err"] == code
        assert answer.headers["content-language"] == "en"
    assert push_app.alive(user) == ["laptop"]


def test_transport_rules_come_before_the_set(push_app: Running, hub: StandIn, user: str) -> None:
    _open(push_app, user, "laptop")
    token = hub.session_revoked(_email(user))
    refused = _push(push_app, token, authorization="Bearer other")
    assert refused.status_code == 401
    assert refused.json()["err"] == "authentication_failed"
    assert "www-authenticate" in refused.headers
    assert _push(push_app, token, content_type="application/json").status_code == 415
    assert _push(push_app, "x" * 70_000).status_code == 413
    assert push_app.http.get("/events").status_code == 405
    assert push_app.alive(user) == ["laptop"]


def test_a_push_before_the_stream_is_known_is_undecided(hub: StandIn, user: str) -> None:
    with running("app", "--mode", "push", "--authorization-header", HEADER) as app:
        assert _push(app, hub.session_revoked(_email(user))).status_code == 503
        assert app.post("/control/connect").status_code == 502


def test_newer_sessions_can_be_left_alone(hub: StandIn, user: str) -> None:
    options = {
        "mode": "push",
        "hub": hub.issuer,
        "hub_token": TOKEN,
        "authorization_header": HEADER,
        "keep_newer": True,
    }
    with running("app", "--config", json.dumps(options)) as app:
        app.post("/control/connect")
        _open(app, user, "laptop")
        old = hub.session_revoked(
            _email(user), events={SESSION_REVOKED: {"event_timestamp": 1_700_000_000}}
        )
        assert _push(app, old).status_code == 202
        assert app.alive(user) == ["laptop"]
        assert _push(app, hub.session_revoked(_email(user))).status_code == 202
        assert app.alive(user) == []


def test_an_old_stream_of_ours_makes_room_for_a_new_one() -> None:
    with serving() as own_hub:
        own_hub.single_stream = True
        flags = ("--mode", "push", "--hub", own_hub.issuer, "--hub-token", TOKEN)
        with running("app", *flags) as app:
            assert app.post("/control/connect").status_code == 201
            assert app.post("/control/connect").status_code == 201
        assert own_hub.deleted == ["str_1"]


def _queue(hub: StandIn, token: str, jti: str) -> None:
    hub.queue[jti] = token


def test_a_poll_app_takes_a_set_and_acknowledges_it_in_the_next_request(
    poll_app: Running, poll_hub: StandIn, user: str
) -> None:
    _open(poll_app, user, "laptop", "phone")
    jti = secrets.token_hex(8)
    _queue(poll_hub, poll_hub.session_revoked(_email(user), jti=jti), jti)
    assert eventually(lambda: poll_app.alive(user) == [])
    assert eventually(lambda: jti not in poll_hub.queue)
    acked = [asked for asked in poll_hub.polls if jti in asked.get("ack", ())]
    assert acked
    assert len(poll_app.ledger(what="session.ended", user=user)) == 2


def test_a_poll_app_reports_a_set_that_it_refuses(
    poll_app: Running, poll_hub: StandIn, user: str
) -> None:
    _open(poll_app, user, "laptop")
    jti = secrets.token_hex(8)
    _queue(poll_hub, poll_hub.session_revoked(_email(user), jti=jti, aud="https://x.example"), jti)
    assert eventually(lambda: jti not in poll_hub.queue)
    [errors] = [asked["setErrs"] for asked in poll_hub.polls if jti in asked.get("setErrs", ())]
    assert errors[jti]["err"] == "invalid_audience"
    assert poll_app.alive(user) == ["laptop"]


def test_a_poll_app_backs_off_from_errors_and_acknowledges_later(
    poll_app: Running, poll_hub: StandIn, user: str
) -> None:
    _open(poll_app, user, "laptop")
    poll_hub.poll_statuses = [503, 500]
    jti = secrets.token_hex(8)
    _queue(poll_hub, poll_hub.session_revoked(_email(user), jti=jti), jti)
    assert eventually(lambda: poll_app.alive(user) == [])
    assert eventually(lambda: jti not in poll_hub.queue)
    assert len(poll_app.ledger(what="poll.failed")) >= 2


def test_a_poll_app_that_is_down_does_not_poll(
    poll_app: Running, poll_hub: StandIn, user: str
) -> None:
    _open(poll_app, user, "laptop")
    poll_app.post("/control/fault", {"mode": "status"})
    jti = secrets.token_hex(8)
    token = poll_hub.session_revoked(_email(user), jti=jti)
    # A poll that was under way when the fault began may still bring something: let it pass.
    before = eventually(lambda: _polls_at_rest(poll_hub))
    _queue(poll_hub, token, jti)
    assert not eventually(lambda: len(poll_hub.polls) > before, wait_s=0.5)
    assert poll_app.alive(user) == ["laptop"]
    poll_app.post("/control/fault", {"mode": "ok"})
    assert eventually(lambda: poll_app.alive(user) == [])


def _polls_at_rest(hub: StandIn) -> int:
    """Return the number of polls once it no longer grows."""
    before = len(hub.polls)
    grew = eventually(lambda: len(hub.polls) > before, wait_s=0.5)
    return 0 if grew else before
