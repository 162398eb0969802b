"""An app behind a gateway, and a hub that knows its sessions: what the tests of gateways share."""

from __future__ import annotations

import base64
import hashlib
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx2
from typing_extensions import override

from tests.hub.commands import Served

LIMIT_S = 30.0
ISSUER = "https://login.customer.example"
STEP_UP = "https://login.customer.example/step-up"
SIGN_IN = "https://login.customer.example/sign-in"


class Echo(BaseHTTPRequestHandler):
    """The app: says what reached it."""

    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(length).decode()
        said = {
            "method": self.command,
            "path": self.path,
            "body": body,
            "headers": {name.lower(): value for name, value in self.headers.items()},
        }
        if self.headers.get("upgrade", "").lower() == "websocket":
            self.send_response(101)
            self.send_header("Upgrade", "websocket")
            self.send_header("Connection", "Upgrade")
            self.send_header("Sec-WebSocket-Accept", _accept(self.headers["sec-websocket-key"]))
            self.end_headers()
            return
        raw = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(raw)

    do_GET = do_HEAD = do_POST = do_OPTIONS = answer  # noqa: N815 - the library's names

    @override
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def _accept(key: str) -> str:
    """Return what proves that a server speaks WebSocket. Source: RFC 6455 §4.2.2."""
    digest = hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()  # noqa: S324 - prescribed
    return base64.b64encode(digest).decode()


@contextmanager
def echo_app() -> Iterator[str]:
    """Run the app; yields its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass
class GuardedHub:
    """A hub with an app to guard, an IdP and a gateway."""

    hub: Served
    admin: httpx2.Client
    app_id: str
    idp_id: str
    token: str
    idp_token: str
    #: whose certificates the hub's is one of, if it serves https
    trust: ssl.SSLContext | bool = True

    def guard(self, **setting: Any) -> None:
        """Say how the app is guarded."""
        answer = self.admin.patch(
            f"/admin/v1/apps/{self.app_id}", json={"forward_auth": {"cookies": ["sid"], **setting}}
        )
        assert answer.is_success, answer.text

    def sign_in(self, sid: str, cookie: str, **more: Any) -> None:
        """Register a session with its cookie."""
        body = {
            "user": {"format": "email", "email": f"{sid}@customer.example"},
            "cookie_sha256": hashlib.sha256(cookie.encode()).hexdigest(),
            **more,
        }
        answer = httpx2.put(
            f"{self.hub.issuer}/v1/sessions/{sid}",
            json=body,
            headers={"authorization": f"Bearer {self.idp_token}"},
            verify=self.trust,
        )
        assert answer.is_success, answer.text

    def sign_out(self, sid: str) -> None:
        """End a session."""
        answer = httpx2.delete(
            f"{self.hub.issuer}/v1/sessions/{sid}",
            headers={"authorization": f"Bearer {self.idp_token}"},
            verify=self.trust,
        )
        assert answer.is_success, answer.text

    def step_up(self, sid: str, step_up_id: str, **proof: str) -> None:
        """Say that somebody proved to be who they are."""
        answer = httpx2.post(
            f"{self.hub.issuer}/v1/sessions/{sid}/step-ups/{step_up_id}",
            json={"outcome": "passed", **proof},
            headers={"authorization": f"Bearer {self.idp_token}"},
            verify=self.trust,
        )
        assert answer.is_success, answer.text


@contextmanager
def guarded(
    hub: Served, issuer: str = ISSUER, *, trust: ssl.SSLContext | bool = True
) -> Iterator[GuardedHub]:
    """Register an app, an IdP and a gateway at a hub. trust: as of GuardedHub."""
    headers = {"authorization": f"Bearer {hub.token}"}
    with httpx2.Client(
        base_url=hub.issuer, headers=headers, timeout=LIMIT_S, verify=trust
    ) as admin:

        def made(kind: str, body: dict[str, Any]) -> dict[str, Any]:
            answer = admin.post(f"/admin/v1/{kind}", json=body)
            assert answer.status_code == 201, answer.text
            document: dict[str, Any] = answer.json()
            return document

        app = made("apps", {"name": "crm"})
        idp = made("apps", {"name": "idp", "kind": "idp", "issuer": issuer})
        edge = made("apps", {"name": "edge", "kind": "gateway"})
        asking = {"name": "edge", "scopes": ["sessions.evaluate"], "app_id": edge["id"]}
        telling = {"name": "idp", "scopes": ["sessions.write"], "app_id": idp["id"]}
        yield GuardedHub(
            hub=hub,
            admin=admin,
            app_id=app["id"],
            idp_id=idp["id"],
            token=made("clients", asking)["token"],
            idp_token=made("clients", telling)["token"],
            trust=trust,
        )
