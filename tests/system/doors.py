"""What every gateway has to do in front of an app: the checks that all of them share."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest

from tests.system.gateways import Places, free_address
from tests.system.guarded import LIMIT_S, SIGN_IN, STEP_UP, GuardedHub, echo_app

#: of a page, while the hub is on its way to a decision
TRIES_MAX = 1_000
COOKIE = "a-cookie-of-rosa-0123456789"
PAGE = {"accept": "text/html"}
ELSEWHERE = "203.0.113.9"
#: to apps that make variables of headers' names (CGI, WSGI, PHP) several of these are one
FORGED = {
    "x-signalhub-user": "usr_admin",
    "x_signalhub_user": "usr_admin",
    "x.signalhub.user": "usr_admin",
    "x~signalhub-user": "usr_admin",
    "x-signalhub-session-id": "ses_admin",
    "x-signalhub_session-id": "ses_admin",
    "x-signalhub-session": "rosa",
    "x-forwarded-for": ELSEWHERE,
    "x-forwarded-host": "evil.example",
    "x-forwarded-uri": "/public",
}


class Gateway(Protocol):
    """Runs a gateway in a folder of its own; gives its address."""

    def __call__(self, folder: Path, places: Places) -> AbstractContextManager[str]:
        """Run it until the block is left."""


@dataclass
class Door:
    """One gateway in front of the app."""

    name: str
    url: str
    known: GuardedHub

    def get(self, path: str = "/", **options: Any) -> httpx2.Response:
        """Ask for something at the gateway, with the cookie if it is not None."""
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


@contextmanager
def standing(name: str, gateway: Gateway, known: GuardedHub, folder: Path) -> Iterator[Door]:
    """Run a gateway in front of an app."""
    with echo_app() as app:
        places = Places(hub=known.hub.issuer, app=app, app_id=known.app_id, token=known.token)
        with gateway(folder, places) as url:
            known.guard(origins=[url], sign_in_url=SIGN_IN, step_up_url=STEP_UP, tells_user=True)
            yield Door(name=name, url=url, known=known)


def said_by_the_gateway(headers: Mapping[str, str]) -> dict[str, str]:
    """Return what an app behind CGI, WSGI or PHP takes for the gateway's word."""
    named = {re.sub(r"[^a-z0-9]", "_", name.lower()): value for name, value in headers.items()}
    assert len(named) == len(headers)
    return {name: value for name, value in named.items() if "signalhub" in name}


def check_lets_in_and_keeps_out(door: Door) -> None:
    """Somebody passes, nobody is sent to sign in, and who signed out loses the cookie."""
    sid = f"rosa-{door.name}"
    cookie = f"{COOKIE}-{door.name}"
    door.known.sign_in(sid, cookie)

    # Rosa passes, and the app learns who she is from the gateway and from nobody else.
    passed = door.get("/accounts?id=7", cookie=cookie, headers=FORGED)
    assert passed.status_code == 200, passed.text
    told = passed.json()
    assert told["path"] == "/accounts?id=7"
    said = said_by_the_gateway(told["headers"])
    assert said.keys() == {"x_signalhub_user", "x_signalhub_session_id"}
    assert said["x_signalhub_user"].startswith("usr_")
    assert "admin" not in "".join(said.values())
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
    assert parse_qs(where.query)["return_to"] == [f"{door.url}/accounts?id=7"]
    program = door.get("/accounts", cookie=None)
    assert program.status_code == 401
    assert program.headers["www-authenticate"].startswith("Bearer")

    # Signed out: the same cookie is worth nothing, and taken away.
    door.known.sign_out(sid)
    for headers, status in ((PAGE, 302), ({}, 401)):
        ended = door.get("/", cookie=cookie, headers=headers)
        assert ended.status_code == status
        assert ended.headers["set-cookie"].startswith("sid=; ")
        assert "Max-Age=0" in ended.headers["set-cookie"]


def check_asks_once_and_believes_no_address(door: Door) -> None:
    """A policy asks for a step-up here and denies elsewhere; a client cannot say where it is."""
    enforce(door.known)
    with _policy(door):
        sid, cookie = _stopped(door)
        asked = door.get("/accounts?id=7", cookie=cookie, headers=PAGE | FORGED)
        assert asked.status_code == 302
        where = urlsplit(asked.headers["location"])
        assert f"{where.scheme}://{where.netloc}{where.path}" == STEP_UP
        wanted = parse_qs(where.query)
        assert wanted["acr_values"] == ["phr"]
        assert wanted["max_age"] == ["0"]
        assert wanted["return_to"] == [f"{door.url}/accounts?id=7"]
        program = door.get("/save", cookie=cookie, method="POST", headers=PAGE)
        assert program.status_code == 401
        assert "insufficient_user_authentication" in program.headers["www-authenticate"]

        (step_up,) = wanted["step_up"]
        door.known.step_up(sid, step_up, acr="phr")
        assert door.get("/accounts", cookie=cookie, headers=PAGE | FORGED).status_code == 200


def _stopped(door: Door) -> tuple[str, str]:
    """Return session and cookie of the first who is asked for more: policies take a moment."""
    for number in range(TRIES_MAX):
        sid, cookie = f"tina-{door.name}-{number}", f"{COOKIE}-of-tina-{door.name}-{number}"
        door.known.sign_in(sid, cookie)
        status = door.get("/", cookie=cookie).status_code
        if status != 200:
            assert status == 401
            return sid, cookie
    pytest.fail("nobody was stopped")


def enforce(known: GuardedHub) -> None:
    """Have the hub act, where a fresh one only watches."""
    preset = {"name": "standard", "mode": "enforce"}
    assert known.admin.post("/admin/v1/policies:preset", json=preset).is_success


@contextmanager
def _policy(door: Door) -> Iterator[None]:
    """Put a policy about places on the app until the block is left."""
    admin = door.known.admin
    zone = {"name": f"there-{door.name}", "type": "IP", "gateways": [{"value": ELSEWHERE}]}
    made = admin.post("/admin/v1/zones", json=zone)
    assert made.status_code == 201, made.text
    there = {"zones": {"include": [zone["name"]]}}
    rules = [
        {"name": "there", "priority": 1, "when": there, "then": {"decision": "DENY"}},
        {"name": "here", "priority": 2, "when": {}, "then": {"decision": "STEP_UP", "acr": "phr"}},
    ]
    policy = {"name": "places", "apps": [door.known.app_id], "mode": "enforce", "rules": rules}
    made = admin.post("/admin/v1/policies", json=policy)
    assert made.status_code == 201, made.text
    try:
        yield
    finally:
        assert admin.delete(f"/admin/v1/policies/{made.json()['id']}").is_success


def check_a_denied_user_sees_a_refusal(door: Door) -> None:
    """Who is in quarantine is kept out."""
    cookie = f"{COOKIE}-of-tim-{door.name}"
    sid = f"tim-{door.name}"
    door.known.sign_in(sid, cookie)
    enforce(door.known)
    user = f"email:{sid}@customer.example"
    set_high = door.known.admin.put(f"/api/v1/users/{user}/risk", json={"riskLevel": "HIGH"})
    assert set_high.is_success, set_high.text
    # The hub's own denial is there with the containment, which is on its way.
    statuses = (door.get("/", cookie=cookie, headers=PAGE).status_code for _ in range(TRIES_MAX))
    assert next(status for status in statuses if status != 200) in {302, 403}


def check_websockets_are_asked_about(door: Door) -> None:
    """A handshake passes with a session, and only with one."""
    cookie = f"{COOKIE}-ws-{door.name}"
    door.known.sign_in(f"ws-{door.name}", cookie)
    for value, status in ((cookie, b"101"), ("nobody-with-a-long-cookie", b"401")):
        assert _handshake(door.url, value) == status


def status_without_hub(gateway: Gateway, known: GuardedHub, folder: Path) -> int:
    """Return what people get while the hub is away."""
    scheme = known.hub.issuer.partition("://")[0]
    away = f"{scheme}://{free_address()}"
    with echo_app() as app:
        places = Places(hub=away, app=app, app_id=known.app_id, token=known.token)
        with gateway(folder, places) as url:
            answer = httpx2.get(url, headers={"cookie": f"sid={COOKIE}"}, timeout=LIMIT_S)
            return answer.status_code


def status_with_wrong_token(gateway: Gateway, known: GuardedHub, folder: Path) -> int:
    """Return what people get while the gateway cannot prove itself."""
    with echo_app() as app:
        places = Places(hub=known.hub.issuer, app=app, app_id=known.app_id, token="wrong")
        with gateway(folder, places) as url:
            answer = httpx2.get(url, headers=PAGE, follow_redirects=False, timeout=LIMIT_S)
            return answer.status_code


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
