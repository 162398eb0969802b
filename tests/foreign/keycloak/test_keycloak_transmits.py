"""Keycloak's transmitter as upstream of a served hub: by poll and by push."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from runtime.clock import SystemClock, epoch_s
from tests.foreign.keycloak.server import AUDIENCE, USER, Keycloak, keycloak
from tests.hub.commands import Forker, Served, Shell, served

CAEP = "https://schemas.openid.net/secevent/caep/event-type/"
SESSION_REVOKED = CAEP + "session-revoked"
CREDENTIAL_CHANGE = CAEP + "credential-change"
LIMIT_S = 60.0


@dataclass
class Pair:
    """A hub and a Keycloak that know of each other."""

    hub: Served
    admin: httpx2.Client
    keycloak: Keycloak
    idp: str = ""

    def set_up(self) -> None:
        """Make the hub know the user, and Keycloak as identity provider."""
        ann = {"format": "iss_sub", "iss": self.keycloak.issuer, "sub": USER["id"]}
        self.ask("POST", "users", {"label": "Ann", "identifiers": [ann]})
        app = {"name": "Keycloak", "kind": "idp", "issuer": self.keycloak.issuer}
        scopes = ["sessions.write", "sessions.evaluate"]
        client = {"name": "idp", "scopes": scopes, "app_id": self.ask("POST", "apps", app)["id"]}
        self.idp = self.ask("POST", "clients", client)["token"]

    def ask(self, method: str, path: str, body: object = None) -> Any:
        answer = self.admin.request(method, f"/admin/v1/{path}", json=body)
        assert answer.is_success, answer.text
        return answer.json()

    def upstream(self, client: str, **members: Any) -> str:
        """Tell the hub of Keycloak, as a receiver of this name; return the upstream's id."""
        body = {
            "name": f"Keycloak, {client}",
            "issuer": self.keycloak.issuer,
            "jwks_uri": f"{self.keycloak.issuer}/protocol/openid-connect/certs",
            "audiences": [AUDIENCE],
            "events_requested": [SESSION_REVOKED, CREDENTIAL_CHANGE],
            "auth": "client_secret_basic",
            "client_id": client,
            "secret": f"secret of {client}",
            **members,
        }
        made: str = self.ask("POST", "upstreams", body)["id"]
        return made

    def order(self, upstream_id: str, action: str, body: object = None) -> dict[str, Any]:
        """Order one exchange; return the upstream when it is settled."""
        self.ask("POST", f"upstreams/{upstream_id}/{action}", body)
        settled: dict[str, Any] = self.until(
            lambda: self.ask("GET", f"upstreams/{upstream_id}"),
            lambda shown: shown["order"]["state"] in {"done", "failed"},
        )
        return settled

    def done(self, upstream_id: str, action: str, body: object = None) -> dict[str, Any]:
        settled = self.order(upstream_id, action, body)
        assert settled["order"]["state"] == "done", settled["order"]
        return settled

    def register_session(self, sid: str) -> None:
        """Tell the hub of a session of the user's at Keycloak."""
        answer = httpx2.put(
            f"{self.hub.issuer}/v1/sessions/{sid}",
            json={
                "user": {"format": "iss_sub", "iss": self.keycloak.issuer, "sub": USER["id"]},
                # Keycloak's event tells seconds: a session of the same one would count as newer.
                "started_at": int(epoch_s(SystemClock().now())) - 60,
            },
            headers={"authorization": f"Bearer {self.idp}"},
            timeout=LIMIT_S,
        )
        assert answer.is_success, answer.text

    def decision(self, sid: str) -> str:
        """Ask the hub whether a session is still good."""
        answer = httpx2.post(
            f"{self.hub.issuer}/v1/sessions/{sid}/evaluate",
            headers={"authorization": f"Bearer {self.idp}"},
            timeout=LIMIT_S,
        )
        assert answer.is_success, answer.text
        told: str = answer.json()["decision"]
        return told

    def until(self, look: Callable[[], Any], good: Callable[[Any], bool]) -> Any:
        deadline = time.monotonic() + LIMIT_S
        while not good(seen := look()):
            assert time.monotonic() < deadline, seen
        return seen

    def signals(self, provider_id: str, event_type: str) -> list[dict[str, Any]]:
        found = self.ask("GET", "signals?limit=100")["items"]
        return [
            one
            for one in found
            if one["provider_id"] == provider_id and one["event_type"] == event_type
        ]

    def until_came(self, provider_id: str, event_type: str, count: int = 1) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.until(
            lambda: self.signals(provider_id, event_type), lambda found: len(found) >= count
        )
        return found


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    forker = Forker()
    try:
        with (
            served(Shell(folder=tmp_path_factory.mktemp("hub"), forker=forker)) as hub,
            keycloak(tmp_path_factory.mktemp("keycloak"), f"{hub.issuer}/*") as found,
            httpx2.Client(
                base_url=hub.issuer,
                headers={"authorization": f"Bearer {hub.token}"},
                timeout=LIMIT_S,
            ) as admin,
        ):
            pair = Pair(hub=hub, admin=admin, keycloak=found)
            pair.set_up()
            yield pair
    finally:
        forker.close()


@pytest.mark.parametrize(("client", "delivery"), [("polls", "poll"), ("pushed", "push")])
def test_what_keycloak_says_arrives(pair: Pair, client: str, delivery: str) -> None:
    upstream = pair.upstream(client, delivery=delivery)
    pair.done(upstream, "discover")
    made = pair.done(upstream, "create-stream")
    provider = made["provider_id"]
    assert made["stream"]["aud"] == [AUDIENCE]
    pair.done(upstream, "verify")
    pair.until(
        lambda: pair.ask("GET", f"upstreams/{upstream}"), lambda shown: shown["health"] == "ok"
    )

    pair.keycloak.sign_in()
    pair.register_session(f"of {client}")
    assert pair.decision(f"of {client}") == "ALLOW"
    pair.keycloak.log_out()
    pair.until_came(provider, SESSION_REVOKED)
    pair.until(lambda: pair.decision(f"of {client}"), lambda told: told == "TERMINATE")
    pair.keycloak.reset_password()
    pair.until_came(provider, CREDENTIAL_CHANGE)

    # Of a polled stream Keycloak names the address once, and in no answer to PATCH.
    for action in ("read-stream", "update-stream"):
        assert pair.done(upstream, action)["endpoint_url"] == made["endpoint_url"]
    pair.done(upstream, "verify")
    pair.done(upstream, "delete-stream")
    assert pair.ask("GET", "ingest-errors")["items"] == []


def test_keycloak_makes_up_an_audience_per_stream(pair: Pair) -> None:
    upstream = pair.upstream("as-it-comes")
    first = pair.order(upstream, "create-stream")
    assert first["order"]["state"] == "failed"
    audience = f"as-it-comes/{first['stream']['stream_id']}"
    assert audience in first["order"]["detail"]
    # What waits there would all be refused: it is not asked for.
    held_back = pair.until(
        lambda: pair.ask("GET", f"upstreams/{upstream}"), lambda shown: shown["last_error"]
    )
    assert (held_back["health"], audience in held_back["last_error"]) == ("failing", True)
    pair.ask("PATCH", f"providers/{first['provider_id']}", {"audiences": [audience]})
    pair.done(upstream, "read-stream")
    pair.done(upstream, "verify")
    pair.until(
        lambda: pair.ask("GET", f"upstreams/{upstream}"), lambda shown: shown["health"] == "ok"
    )
    pair.done(upstream, "delete-stream")
