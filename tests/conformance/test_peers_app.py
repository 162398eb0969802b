"""Applications: sessions, sign-ins through the IdP, GTR, back-channel logout, webhooks."""

from __future__ import annotations

import base64
import hmac
import itertools
import json
import time
from collections.abc import Iterator

import httpx2
import pytest

from conformance.peers.errors import SignatureError
from conformance.peers.webhook import check_signature
from tests.conformance.conftest import Running, running
from tests.conformance.stand_in import StandIn

pytestmark = pytest.mark.scenario

CLIENT_ID = "client-7781"
SCIM_TOKEN = "scim-secret"
SECRET = "whsec_DIpKxQVMTAj3ms0QfPOOuxmzPc2zqNnC"
NUMBERS = itertools.count(1)
FORM = {"content-type": "application/x-www-form-urlencoded"}


@pytest.fixture(scope="module")
def gtr_app(hub: StandIn) -> Iterator[Running]:
    with running("app", "--mode", "gtr", "--hub", hub.issuer, "--formats", "email") as peer:
        yield peer


@pytest.fixture(scope="module")
def bcl_app(hub: StandIn) -> Iterator[Running]:
    flags = ("--mode", "bcl", "--hub", hub.issuer, "--client-id", CLIENT_ID)
    with running("app", *flags) as peer:
        yield peer


@pytest.fixture(scope="module")
def webhook_app() -> Iterator[Running]:
    with running("app", "--mode", "webhook", "--webhook-secret", SECRET) as peer:
        yield peer


@pytest.fixture
def user() -> str:
    return f"user-{next(NUMBERS)}@green.example"


def _open(app: Running, user: str, *devices: str) -> list[str]:
    """Open a session per device and return their sids."""
    answers = [
        app.post(
            "/control/sessions", {"user": user, "device": device, "idp_sid": f"{user}-{device}"}
        )
        for device in devices
    ]
    return [answer.json()["sid"] for answer in answers]


def _log_out(app: Running, token: str) -> httpx2.Response:
    return app.http.post("/backchannel-logout", data={"logout_token": token, "other": "ignored"})


def test_an_access_is_answered_by_the_session(gtr_app: Running, hub: StandIn, user: str) -> None:
    [sid] = _open(gtr_app, user, "laptop")
    assert gtr_app.post("/access", {"session": sid}).status_code == 200
    assert gtr_app.post("/access", {"session": "none"}).status_code == 401
    answer = gtr_app.post(
        "/global-token-revocation",
        {"sub_id": {"format": "email", "email": user.upper()}},
        Authorization=f"Bearer {hub.gtr_token(gtr_app.urls['gtr_url'])}",
    )
    assert answer.status_code == 204
    assert gtr_app.post("/access", {"session": sid}).status_code == 401


def test_an_app_refuses_subject_formats_it_does_not_understand(
    gtr_app: Running, hub: StandIn, user: str
) -> None:
    _open(gtr_app, user, "laptop")
    answer = gtr_app.post(
        "/global-token-revocation",
        {"sub_id": {"format": "iss_sub", "iss": "https://idp.example", "sub": user}},
        Authorization=f"Bearer {hub.gtr_token(gtr_app.urls['gtr_url'])}",
    )
    assert answer.status_code == 400
    assert gtr_app.alive(user) == ["laptop"]


def test_a_bystander_on_another_device_keeps_the_session(
    gtr_app: Running, hub: StandIn, user: str
) -> None:
    _open(gtr_app, user, "laptop", "phone")
    _open(gtr_app, f"bystander-{user}", "desktop")
    gtr_app.post(
        "/global-token-revocation",
        {"sub_id": {"format": "email", "email": user}},
        Authorization=f"Bearer {hub.gtr_token(gtr_app.urls['gtr_url'])}",
    )
    assert gtr_app.alive(user) == []
    assert gtr_app.alive(f"bystander-{user}") == ["desktop"]


def test_a_logout_token_with_sub_ends_all_sessions_once(
    bcl_app: Running, hub: StandIn, user: str
) -> None:
    _open(bcl_app, user, "laptop", "phone")
    first = _log_out(bcl_app, hub.logout_token(CLIENT_ID, sub=user))
    assert first.status_code == 200
    assert first.headers["cache-control"] == "no-store"
    assert bcl_app.alive(user) == []
    assert _log_out(bcl_app, hub.logout_token(CLIENT_ID, sub=user)).status_code == 200
    outcomes = [e["outcome"] for e in bcl_app.ledger(what="bcl.accepted", sub=user)]
    assert outcomes == ["effect", "repeat"]
    assert len(bcl_app.ledger(what="session.ended", user=user)) == 2


def test_a_logout_token_with_sid_ends_that_session_only(
    bcl_app: Running, hub: StandIn, user: str
) -> None:
    _open(bcl_app, user, "laptop", "phone")
    token = hub.logout_token(CLIENT_ID, sid=f"{user}-phone", aud=["other", CLIENT_ID])
    assert _log_out(bcl_app, token).status_code == 200
    assert bcl_app.alive(user) == ["laptop"]


def test_a_logout_token_about_nobody_ends_nothing(bcl_app: Running, hub: StandIn) -> None:
    assert _log_out(bcl_app, hub.logout_token(CLIENT_ID, sub="nobody")).status_code == 200
    assert bcl_app.ledger(what="session.ended", user="nobody") == []


def test_each_broken_logout_token_is_refused_with_400(
    bcl_app: Running, hub: StandIn, user: str
) -> None:
    _open(bcl_app, user, "laptop")
    used = hub.logout_token(CLIENT_ID, sub="nobody")
    _log_out(bcl_app, used)
    broken = {
        "another key": hub.logout_token(CLIENT_ID, sub=user, wrong_key=True),
        "typ of a SET": hub.logout_token(CLIENT_ID, sub=user, typ="secevent+jwt"),
        "typ": hub.logout_token(CLIENT_ID, sub=user, typ="JWT"),
        "iss": hub.logout_token(CLIENT_ID, sub=user, iss="https://other.example"),
        "aud": hub.logout_token("other", sub=user),
        "no exp": hub.logout_token(CLIENT_ID, sub=user, exp=None),
        "expired": hub.logout_token(CLIENT_ID, sub=user, exp=1000, iat=900),
        "long life": hub.logout_token(CLIENT_ID, sub=user, exp=int(4e9)),
        "future": hub.logout_token(CLIENT_ID, sub=user, iat=int(4e9), exp=int(4e9) + 60),
        "no iat": hub.logout_token(CLIENT_ID, sub=user, iat=None),
        "nonce": hub.logout_token(CLIENT_ID, sub=user, nonce="n"),
        "no jti": hub.logout_token(CLIENT_ID, sub=user, jti=None),
        "no events": hub.logout_token(CLIENT_ID, sub=user, events=None),
        "https event": hub.logout_token(
            CLIENT_ID,
            sub=user,
            events={"https://schemas.openid.net/event/backchannel-logout": {}},
        ),
        "no subject": hub.logout_token(CLIENT_ID),
        "used": used,
        "nonsense": "a.b.c",
    }
    for name, token in broken.items():
        answer = _log_out(bcl_app, token)
        assert answer.status_code == 400, name
        assert answer.json()["error"] == "invalid_request"
    assert bcl_app.alive(user) == ["laptop"]


def test_a_logout_request_is_a_form_with_one_token(bcl_app: Running, hub: StandIn) -> None:
    token = hub.logout_token(CLIENT_ID, sub="nobody")
    assert bcl_app.post("/backchannel-logout", {"logout_token": token}).status_code == 400
    twice = f"logout_token={token}&logout_token={token}"
    answer = bcl_app.http.post("/backchannel-logout", content=twice, headers=FORM)
    assert answer.status_code == 400
    assert bcl_app.http.get("/backchannel-logout").status_code == 405


def test_keys_that_cannot_be_fetched_leave_it_undecided(hub: StandIn, user: str) -> None:
    flags = ("--mode", "bcl", "--hub", hub.issuer, "--client-id", CLIENT_ID)
    with running("app", *flags, "--hub-jwks-url", "http://127.0.0.1:1/jwks.json") as app:
        _open(app, user, "laptop")
        token = hub.logout_token(CLIENT_ID, sub=user)
        assert _log_out(app, token).status_code == 503
        assert app.alive(user) == ["laptop"]
        app.post("/control/configure", {"hub_jwks_url": f"{hub.issuer}/jwks.json"})
        assert _log_out(app, token).status_code == 200


def test_a_sign_in_is_refused_while_the_idp_refuses(user: str) -> None:
    with running("idp", "--scim-token", SCIM_TOKEN) as idp, running("app") as app:
        idp.post("/control/users", {"id": "u-1", "email": user})
        sign_in = {"user": user, "device": "laptop"}
        assert app.post("/login", sign_in).status_code == 400
        app.post("/control/configure", {"idp": idp.urls["base_url"]})
        session = app.post("/login", sign_in)
        assert session.status_code == 200
        assert app.post("/access", {"session": session.json()["sid"]}).status_code == 200
        idp_session = idp.http.get("/sessions").json()[0]
        assert session.json()["idp_sid"] == idp_session["sid"]
        idp.post("/control/groups", {"id": "grp-quarantine", "members": ["u-1"]})
        assert app.post("/login", sign_in).status_code == 403
        assert app.alive(user) == ["laptop"]
        app.post("/control/configure", {"idp": "http://127.0.0.1:1"})
        assert app.post("/login", sign_in).status_code == 503


def test_a_taken_sid_and_a_broken_order_are_refused(gtr_app: Running, user: str) -> None:
    [sid] = _open(gtr_app, user, "laptop")
    assert gtr_app.post("/control/sessions", {"user": user, "sid": sid}).status_code == 400
    assert gtr_app.post("/control/sessions", {"device": "laptop"}).status_code == 400
    assert gtr_app.post("/control/connect").status_code == 400
    assert gtr_app.post("/control/fault", {"mode": "nothing"}).status_code == 400


def test_a_hanging_app_answers_when_the_fault_is_replaced(
    gtr_app: Running, hub: StandIn, user: str
) -> None:
    _open(gtr_app, user, "laptop")
    headers = {"authorization": f"Bearer {hub.gtr_token(gtr_app.urls['gtr_url'])}"}
    body = {"sub_id": {"format": "email", "email": user}}
    gtr_app.post("/control/fault", {"mode": "hang"})
    with pytest.raises(httpx2.ReadTimeout):
        gtr_app.http.post("/global-token-revocation", json=body, headers=headers, timeout=0.3)
    assert gtr_app.alive(user) == ["laptop"]
    gtr_app.post("/control/fault", {"mode": "slow", "delay_ms": 1, "count": 1})
    answer = gtr_app.http.post("/global-token-revocation", json=body, headers=headers)
    assert answer.status_code == 204
    assert [e["mode"] for e in gtr_app.ledger(what="fault.hit")][-2:] == ["hang", "slow"]


# --- webhooks ----------------------------------------------------------------------------------


def _signed(message_id: str, body: bytes, *, at: int | None = None) -> dict[str, str]:
    at = int(time.time()) if at is None else at  # noqa: TID251 - no clock of ours in a peer's test
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    signature = hmac.digest(key, f"{message_id}.{at}.".encode() + body, "sha256")
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(at),
        "webhook-signature": f"v1a,AAAA broken v1,{base64.b64encode(signature).decode()}",
    }


def test_a_message_is_stored_once_per_id(webhook_app: Running) -> None:
    body = json.dumps({"type": "containment.opened", "data": {"user_id": "u-1"}}).encode()
    for _ in range(2):
        answer = webhook_app.http.post("/webhook", content=body, headers=_signed("msg_1", body))
        assert answer.status_code == 204
    messages = webhook_app.http.get("/messages", params={"type": "containment.opened"}).json()
    assert [message["id"] for message in messages] == ["msg_1"]
    assert messages[0]["body"]["data"] == {"user_id": "u-1"}
    assert webhook_app.http.get("/messages", params={"type": "other"}).json() == []
    outcomes = [e["outcome"] for e in webhook_app.ledger(what="webhook.received")]
    assert outcomes == ["effect", "repeat"]


def test_a_message_that_nobody_signed_is_refused(webhook_app: Running) -> None:
    body = b'{"type":"x"}'
    headers = _signed("msg_2", body)
    for changed in (
        {**headers, "webhook-id": "msg_3"},
        {**headers, "webhook-timestamp": "1"},
        {**headers, "webhook-timestamp": "soon"},
        {**headers, "webhook-signature": "v1,AAAA"},
        {name: value for name, value in headers.items() if name != "webhook-id"},
    ):
        answer = webhook_app.http.post("/webhook", content=body, headers=changed)
        assert answer.status_code == 401
    assert webhook_app.http.post("/webhook", content=b"{}", headers=headers).status_code == 401
    broken = webhook_app.http.post("/webhook", content=b"[", headers=_signed("msg_4", b"["))
    assert broken.status_code == 400


def test_the_published_example_verifies() -> None:
    body = (
        b'{"type":"containment.opened","timestamp":"2026-03-20T09:51:45Z","data":{"containment_id":'
        b'"cnt_5521","user_id":"u-20417","level":"HIGH","cause":"MALWARE_DETECTED"}}'
    )
    headers = {
        "webhook-id": "msg_0195b0c8a1",
        "webhook-timestamp": "1774000306",
        "webhook-signature": "v1,uwKsHlZkD5pwGZh/RfP2mjx/mCM+YmvoFbkVcKv7r8o=",
    }
    check_signature(headers, body, secret=SECRET, now_s=1774000306)
    for now_s in (1774000306 - 301, 1774000306 + 301):
        with pytest.raises(SignatureError):
            check_signature(headers, body, secret=SECRET, now_s=now_s)
    for secret in ("whsec_", "whsec_%", "DIpKxQVMTAj3ms0QfPOOuxmzPc2zqNnC"):
        with pytest.raises(SignatureError):
            check_signature(headers, body, secret=secret, now_s=1774000306)
