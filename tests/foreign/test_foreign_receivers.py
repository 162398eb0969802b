"""Receivers that others wrote, as receivers of a served hub: the exchange from their side."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.foreign.crates import LIMIT_S, Foreign, build, running
from tests.hub.commands import Forker, Served, Shell, served

SESSION_REVOKED = "https://schemas.openid.net/secevent/caep/event-type/session-revoked"
VERIFICATION = "https://schemas.openid.net/secevent/ssf/event-type/verification"
STREAM_UPDATED = "https://schemas.openid.net/secevent/ssf/event-type/stream-updated"
POLL = "urn:ietf:rfc:8936"
PUSH = "urn:ietf:rfc:8935"
#: so that a test waits no longer than needed
POLL_EVERY = "200ms"


@dataclass
class Place:
    """A hub that is served, and what a test does there."""

    hub: Served
    admin: httpx2.Client
    logout: str

    def made(self, kind: str, body: dict[str, Any]) -> dict[str, Any]:
        """Register something."""
        answer = self.admin.post(f"/admin/v1/{kind}", json=body)
        assert answer.status_code == 201, answer.text
        document: dict[str, Any] = answer.json()
        return document

    def client(self, name: str) -> dict[str, Any]:
        """Register an app that knows its users by e-mail, and return its client."""
        app = {"name": name, "subject_formats": ["email"], "logout": [{"method": "ssf"}]}
        scopes = ["ssf.read", "ssf.manage"]
        app_id = self.made("apps", app)["id"]
        return self.made("clients", {"name": name, "scopes": scopes, "app_id": app_id})

    def user(self, email: str) -> str:
        self.made("users", {"label": email, "identifiers": [{"format": "email", "email": email}]})
        return email

    def log_out(self, email: str) -> None:
        """Have somebody logged out everywhere: every app's stream is told."""
        answer = httpx2.post(
            f"{self.hub.issuer}/v1/global-token-revocation",
            json={"sub_id": {"format": "email", "email": email}},
            headers={"authorization": f"Bearer {self.logout}"},
            timeout=LIMIT_S,
        )
        assert answer.status_code == 204, answer.text

    def set_status(self, stream_id: str, status: str, reason: str) -> None:
        """As an administrator."""
        answer = self.admin.post(
            f"/admin/v1/streams/{stream_id}/status", json={"status": status, "reason": reason}
        )
        assert answer.is_success, answer.text


@pytest.fixture(scope="module")
def programs() -> Path:
    return build()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    forker = Forker()
    try:
        with (
            served(Shell(folder=tmp_path, forker=forker)) as hub,
            httpx2.Client(
                base_url=hub.issuer,
                headers={"authorization": f"Bearer {hub.token}"},
                timeout=LIMIT_S,
            ) as admin,
        ):
            found = Place(hub=hub, admin=admin, logout="")
            found.logout = found.made("clients", {"name": "soc", "scopes": ["logout"]})["token"]
            yield found
    finally:
        forker.close()


def test_saml2_sp_polls(place: Place, programs: Path) -> None:
    client = place.client("a service provider")
    ann = place.user("ann@customer.example")
    arguments = (programs / "saml2_sp", place.hub.issuer, client["token"])
    with running(*arguments) as receiver:
        stream = receiver.order("start")
        assert stream["delivery"]["method"] == POLL
        assert SESSION_REVOKED in stream["events_delivered"]

        receiver.order("verify", state="from the service provider")
        came = receiver.wait_for("event", VERIFICATION)
        assert came["payload"] == {"state": "from the service provider"}

        receiver.order("sign_in", email=ann, session="local-1")
        place.log_out(ann)
        assert receiver.wait_for("ended")["ended"] == ["local-1"]
        assert receiver.wait_for("event", SESSION_REVOKED)["subject"] == {"email": ann}

        place.set_status(stream["stream_id"], "paused", "maintenance")
        assert receiver.wait_for("event", STREAM_UPDATED)["payload"]["status"] == "paused"
        place.log_out(place.user("ben@customer.example"))
        place.set_status(stream["stream_id"], "enabled", "done")
        assert receiver.wait_for("event", STREAM_UPDATED)["payload"]["status"] == "enabled"
        held = receiver.wait_for("event", SESSION_REVOKED)
        assert held["subject"] == {"email": "ben@customer.example"}
        receiver.order("stop")
    with running(*arguments) as again:
        assert again.order("start")["stream_id"] == stream["stream_id"]


def configuration(place: Place, client: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "transmitter-issuer": place.hub.issuer,
        "oauth2": {
            "token-uri": f"{place.hub.issuer}/oauth/token",
            "client-id": client["id"],
            "client-secret": client["token"],
            "scopes": ["ssf.read", "ssf.manage"],
        },
        "stream": {"management": "receiver", "description": "of easyssf"},
        **more,
    }


def test_easyssf_is_pushed_to(place: Place, programs: Path) -> None:
    client = place.client("pushed to")
    cleo = place.user("cleo@customer.example")
    secret = "Bearer made up by the receiver"
    config = configuration(place, client, push={"expected-auth-header": secret})
    with running(programs / "easyssf", json.dumps(config)) as receiver:
        receiver.order("start")
        stream = receiver.wait_for("registered")["registered"]
        assert stream["delivery"]["method"] == PUSH
        manage_its_stream(receiver, stream, authorization_header=secret)

        state = receiver.order("verify")
        assert receiver.wait_for("event", VERIFICATION)["payload"] == {"state": state}
        assert receiver.wait_for("pushed") == {
            "pushed": 202,
            "answered": None,
            "content_type": "application/secevent+jwt",
            "accept": "application/json",
        }

        place.log_out(cleo)
        assert receiver.wait_for("ended")["ended"] == cleo
        receiver.wait_for("event", SESSION_REVOKED)

        hold_back(place, receiver, place.user("dora@customer.example"))
        assert receiver.order("health") == "healthy"
        receiver.order("stop")


def manage_its_stream(receiver: Foreign, stream: dict[str, Any], **secret: str) -> None:
    """Read, change, replace, and subjects; secret: what the hub never shows of the delivery."""
    assert receiver.order("read") == stream
    assert receiver.order("streams") == [stream]
    changed = receiver.order("update", changes={"description": "changed"})
    assert changed == {**stream, "description": "changed"}
    wanted = {
        "delivery": {**stream["delivery"], **secret},
        "events_requested": [SESSION_REVOKED],
    }
    replaced = receiver.order("replace", stream=wanted)
    assert "description" not in replaced
    assert replaced["events_delivered"] == [SESSION_REVOKED]
    assert receiver.order("status") == ["enabled", None]
    nobody = {"format": "email", "email": "nobody@customer.example"}
    receiver.order("add_subject", subject=nobody)
    receiver.order("remove_subject", subject=nobody)


def hold_back(place: Place, receiver: Foreign, email: str) -> None:
    """Pause its own stream: what happens meanwhile comes later."""
    assert receiver.order("set_status", status="paused", reason="lunch") == ["paused", "lunch"]
    place.log_out(email)
    assert receiver.order("set_status", status="enabled", reason="back") == ["enabled", "back"]
    assert receiver.wait_for("ended")["ended"] == email


def test_easyssf_polls(place: Place, programs: Path) -> None:
    client = place.client("polls")
    config = configuration(
        place,
        client,
        **{
            "delivery-method": "poll",
            "poll": {
                "initial-delay": POLL_EVERY,
                "interval": POLL_EVERY,
                "long-polling": True,
                "long-polling-hold": "30s",
            },
        },
    )
    with running(programs / "easyssf", json.dumps(config)) as receiver:
        receiver.order("start")
        stream = receiver.wait_for("registered")["registered"]
        assert stream["delivery"]["method"] == POLL
        manage_its_stream(receiver, stream)
        state = receiver.order("verify")
        assert receiver.wait_for("event", VERIFICATION)["payload"] == {"state": state}

        place.log_out(place.user("emil@customer.example"))
        assert receiver.wait_for("ended")["ended"] == "emil@customer.example"
        hold_back(place, receiver, place.user("fay@customer.example"))
        assert receiver.order("health") == "healthy"
        receiver.order("stop")
