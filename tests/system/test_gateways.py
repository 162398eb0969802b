"""The recipes of docs/integrate-gateway.md with the real gateways, a real hub and an app behind."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest

from tests.hub.commands import Forker, Shell, served
from tests.system.gateways import GATEWAYS, Places, free_address
from tests.system.guarded import LIMIT_S, SIGN_IN, STEP_UP, GuardedHub, echo_app, guarded

#: of a page, while the hub is on its way to a decision
TRIES_MAX = 1_000
COOKIE = "a-cookie-of-rosa-0123456789"
PAGE = {"accept": "text/html"}
FORGED = {
    "x-signalhub-user": "usr_admin",
    "x-signalhub-session-id": "ses_admin",
    "x-signalhub-session": "rosa",
    "x-forwarded-for": "203.0.113.9",
    "x-forwarded-host": "evil.example",
    "x-forwarded-uri": "/public",
}


@dataclass
class Door:
    """One gateway in front of the app."""

    name: str
    url: str
    known: GuardedHub
    app_url: str

    def get(self, path: str = "/", **options: Any) -> httpx2.Response:
        cookie = options.pop("cookie", COOKIE)
        headers = {**options.pop("headers", {})}
        if cookie is not None:
            headers["cookie"] = f"theme=dark; sid={cookie}"
        method = options.pop("method", "GET")
        return httpx2.request(
            method,
            self.url + path,
            headers=headers,
            follow_redirects=False,
            timeout=LIMIT_S,
            **options,
        )


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedHub]:
    forker = Forker()
    try:
        shell = Shell(folder=tmp_path_factory.mktemp("hub"), forker=forker)
        with served(shell) as hub, guarded(hub) as known:
            yield known
    finally:
        forker.close()


@pytest.fixture(params=list(GATEWAYS))
def door(request: pytest.FixtureRequest, known: GuardedHub, tmp_path: Path) -> Iterator[Door]:
    name: str = request.param
    with echo_app() as app:
        places = Places(hub=known.hub.issuer, app=app, app_id=known.app_id, token=known.token)
        with GATEWAYS[name](tmp_path, places) as url:
            known.guard(origins=[url], sign_in_url=SIGN_IN, step_up_url=STEP_UP, tells_user=True)
            yield Door(name=name, url=url, known=known, app_url=f"http://{app}")


@pytest.mark.requirement(
    "FWA-1", "FWA-2", "FWA-4", "FWA-5", "FWA-23", "FWA-30", "FWA-33", "FWA-34", "FWA-41", "FWA-43"
)
def test_the_recipe_lets_in_and_keeps_out(door: Door) -> None:
    sid = f"rosa-{door.name}"
    cookie = f"{COOKIE}-{door.name}"
    door.known.sign_in(sid, cookie)

    # Rosa passes, and the app learns who she is from the gateway and from nobody else.
    passed = door.get("/accounts?id=7", cookie=cookie, headers=FORGED)
    assert passed.status_code == 200, passed.text
    told = passed.json()
    assert told["path"] == "/accounts?id=7"
    assert told["headers"]["x-signalhub-user"].startswith("usr_")
    assert told["headers"]["x-signalhub-user"] != "usr_admin"
    assert told["headers"]["x-signalhub-session-id"] != "ses_admin"
    assert "x-signalhub-session" not in told["headers"]
    assert door.known.token not in passed.text
    posted = door.get("/save", cookie=cookie, method="POST", content=b"x" * 5_000)
    assert posted.json()["body"] == "x" * 5_000
    assert door.get("/", cookie=cookie, method="HEAD").status_code == 200
    large = {"x-large": "x" * 4_000}
    assert door.get("/", cookie=cookie, headers=large).status_code == 200

    # Nobody is sent to sign in, and back to where they came from; programs are told so.
    nobody = door.get("/accounts?id=7", cookie="nobody-with-a-long-cookie", headers=PAGE | FORGED)
    assert nobody.status_code == 302
    where = urlsplit(nobody.headers["location"])
    assert where.netloc == urlsplit(SIGN_IN).netloc
    back = parse_qs(where.query).get("return_to", [""])[0]
    assert back in {"", f"{door.url}/accounts?id=7"}
    program = door.get("/accounts", cookie=None)
    assert program.status_code == 401
    assert program.headers["www-authenticate"].startswith("Bearer")

    # Signed out: the same cookie is worth nothing, and taken away.
    door.known.sign_out(sid)
    ended = door.get("/", cookie=cookie, headers=PAGE)
    assert ended.status_code == 302
    assert ended.headers["set-cookie"].startswith("sid=; ")
    assert "Max-Age=0" in ended.headers["set-cookie"]
    assert door.get("/", cookie=cookie).status_code == 401


@pytest.mark.requirement("FWA-32")
def test_a_denied_user_sees_a_refusal(door: Door) -> None:
    cookie = f"{COOKIE}-of-tim-{door.name}"
    sid = f"tim-{door.name}"
    door.known.sign_in(sid, cookie)
    preset = {"name": "standard", "mode": "enforce"}
    assert door.known.admin.post("/admin/v1/policies:preset", json=preset).is_success
    user = f"email:{sid}@customer.example"
    set_high = door.known.admin.put(f"/api/v1/users/{user}/risk", json={"riskLevel": "HIGH"})
    assert set_high.is_success, set_high.text
    # The hub's own denial is there with the containment, which is on its way.
    statuses = (door.get("/", cookie=cookie, headers=PAGE).status_code for _ in range(TRIES_MAX))
    assert next(status for status in statuses if status != 200) in {302, 403}


def test_websockets_are_asked_about(door: Door) -> None:
    cookie = f"{COOKIE}-ws-{door.name}"
    door.known.sign_in(f"ws-{door.name}", cookie)
    for value, status in ((cookie, b"101"), ("nobody-with-a-long-cookie", b"401")):
        assert _handshake(door.url, value) == status


@pytest.mark.parametrize("name", list(GATEWAYS))
def test_without_the_hub_nobody_passes(known: GuardedHub, name: str, tmp_path: Path) -> None:
    with echo_app() as app:
        places = Places(
            hub=f"http://{free_address()}", app=app, app_id=known.app_id, token=known.token
        )
        with GATEWAYS[name](tmp_path, places) as url:
            answer = httpx2.get(url, headers={"cookie": f"sid={COOKIE}"}, timeout=LIMIT_S)
            assert answer.status_code in {403, 502}


@pytest.mark.requirement("FWA-21")
@pytest.mark.parametrize("name", list(GATEWAYS))
def test_a_gateway_with_a_wrong_token_keeps_everybody_out(
    known: GuardedHub, name: str, tmp_path: Path
) -> None:
    with echo_app() as app:
        places = Places(hub=known.hub.issuer, app=app, app_id=known.app_id, token="wrong")
        with GATEWAYS[name](tmp_path, places) as url:
            answer = httpx2.get(url, headers=PAGE, follow_redirects=False, timeout=LIMIT_S)
            assert answer.status_code == 403


def _handshake(url: str, cookie: str) -> bytes:
    """Return the status that a WebSocket handshake is answered with."""
    place = urlsplit(url)
    raw = (
        f"GET /socket HTTP/1.1\r\nHost: {place.netloc}\r\nConnection: Upgrade\r\n"
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nCookie: sid={cookie}\r\n\r\n"
    )
    with socket.create_connection((place.hostname or "", place.port or 0), LIMIT_S) as link:
        link.settimeout(LIMIT_S)
        link.sendall(raw.encode())
        return link.recv(4_096).split(b" ")[1]
