"""A stand-in for the hub: just enough of its wire for the peers to trust it and talk to it."""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import uvicorn
from jwcrypto.jwk import JWK
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ssf.jose import sign, signing_key
from ssf.jwks import render_jwks

WAIT_S = 20.0
POLL_PAUSE_S = 0.02
LONG_POLL_S = 0.2
TOKEN = "hub-token"
SESSION_REVOKED = "https://schemas.openid.net/secevent/caep/event-type/session-revoked"
LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"

Found = TypeVar("Found")


def eventually(found: Callable[[], Found], *, wait_s: float = WAIT_S) -> Found:
    """Return the first true answer of `found`, or its last one when the time is up."""
    deadline = time.monotonic() + wait_s
    pause = threading.Event()
    while not (answer := found()) and time.monotonic() < deadline:
        pause.wait(POLL_PAUSE_S)
    return answer


class StandIn:
    """Keys, sessions, streams, and a push intake that answers what a test scripts."""

    def __init__(self, base_url: str) -> None:
        self.issuer = base_url
        self.push_url = f"{base_url}/receivers/prv_1/events"
        jwk = JWK.generate(kty="RSA", size=2048, kid="hub-1", use="sig", alg="RS256")
        other = JWK.generate(kty="RSA", size=2048, kid="hub-1", use="sig", alg="RS256")
        self._public = jwk.export_public(as_dict=True)
        self._key = signing_key(jwk.export_private(as_dict=True))
        self._wrong_key = signing_key(other.export_private(as_dict=True))
        self.sessions: dict[str, dict[str, Any]] = {}
        self.streams: list[dict[str, Any]] = []
        self.deleted: list[str] = []
        self.single_stream = False
        self.pushes: list[tuple[dict[str, str], str]] = []
        self.push_answers: list[Response] = []
        self.queue: dict[str, str] = {}
        self.polls: list[dict[str, Any]] = []
        self.poll_statuses: list[int] = []

    def token(
        self, claims: dict[str, Any], *, typ: str = "secevent+jwt", wrong_key: bool = False
    ) -> str:
        """Sign claims as the hub; None removes a member."""
        present = {name: value for name, value in claims.items() if value is not None}
        key = self._wrong_key if wrong_key else self._key
        return sign(json.dumps(present).encode(), key, typ=typ).decode()

    def gtr_token(self, url: str, *, wrong_key: bool = False, **changes: Any) -> str:
        """Sign a revocation JWT as GTR-20 and GTR-21 have it, with changes."""
        typ = changes.pop("typ", "global-token-revocation+jwt")
        now = int(time.time())  # noqa: TID251 - no clock of ours in a peer's test
        claims = {
            "iss": self.issuer,
            "sub": "app-1",
            "aud": url,
            "jti": secrets.token_hex(8),
            "iat": now,
            "nbf": now - 60,
            "exp": now + 240,
        }
        return self.token({**claims, **changes}, typ=typ, wrong_key=wrong_key)

    def logout_token(self, client_id: str, *, wrong_key: bool = False, **changes: Any) -> str:
        """Sign a logout token as BCL-3 has it, with changes."""
        typ = changes.pop("typ", "logout+jwt")
        now = int(time.time())  # noqa: TID251 - no clock of ours in a peer's test
        claims = {
            "iss": self.issuer,
            "aud": client_id,
            "iat": now,
            "exp": now + 100,
            "jti": secrets.token_hex(8),
            "events": {LOGOUT_EVENT: {}},
        }
        return self.token({**claims, **changes}, typ=typ, wrong_key=wrong_key)

    def session_revoked(
        self, subject: dict[str, Any], *, wrong_key: bool = False, **changes: Any
    ) -> str:
        """Sign a session-revoked SET, with changes."""
        now = int(time.time())  # noqa: TID251 - no clock of ours in a peer's test
        claims = {
            "iss": self.issuer,
            "aud": "https://app.example",
            "iat": now,
            "jti": secrets.token_hex(8),
            "sub_id": subject,
            "events": {SESSION_REVOKED: {"event_timestamp": now}},
        }
        return self.token({**claims, **changes}, wrong_key=wrong_key)

    def routes(self) -> list[Route]:
        """Return what the stand-in serves."""
        return [
            Route("/jwks.json", self._show_jwks),
            Route("/.well-known/ssf-configuration", self._show_metadata),
            Route("/v1/sessions/{sid}", self._put_session, methods=["PUT"]),
            Route("/ssf/streams", self._streams, methods=["GET", "POST", "DELETE"]),
            Route("/ssf/poll/{stream_id}", self._poll, methods=["POST"]),
            Route("/receivers/prv_1/events", self._receive, methods=["POST"]),
        ]

    async def _show_jwks(self, _request: Request) -> Response:
        return JSONResponse(render_jwks([self._public]))

    async def _show_metadata(self, _request: Request) -> Response:
        return JSONResponse(
            {
                "issuer": self.issuer,
                "jwks_uri": f"{self.issuer}/jwks.json",
                "configuration_endpoint": f"{self.issuer}/ssf/streams",
            }
        )

    async def _put_session(self, request: Request) -> Response:
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return Response(status_code=401)
        self.sessions[request.path_params["sid"]] = await request.json()
        return Response(status_code=204)

    async def _streams(self, request: Request) -> Response:
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return Response(status_code=401)
        if request.method == "GET":
            return JSONResponse(self.streams)
        if request.method == "DELETE":
            self.deleted.append(request.query_params["stream_id"])
            self.streams.clear()
            return Response(status_code=204)
        if self.single_stream and self.streams:
            return Response(status_code=409)
        return JSONResponse(self._created(await request.json()), 201)

    def _created(self, wanted: dict[str, Any]) -> dict[str, Any]:
        stream_id = f"str_{len(self.streams) + 1}"
        delivery = {"endpoint_url": f"{self.issuer}/ssf/poll/{stream_id}", **wanted["delivery"]}
        stream = {
            **wanted,
            "stream_id": stream_id,
            "iss": self.issuer,
            "aud": "https://app.example",
            "delivery": delivery,
            "events_delivered": wanted["events_requested"],
        }
        self.streams.append(stream)
        return stream

    async def _poll(self, request: Request) -> Response:
        asked = await request.json()
        self.polls.append(asked)
        if self.poll_statuses:
            return Response(status_code=self.poll_statuses.pop(0))
        for jti in (*asked.get("ack", ()), *asked.get("setErrs", ())):
            self.queue.pop(jti, None)
        await asyncio.to_thread(eventually, lambda: self.queue, wait_s=LONG_POLL_S)
        return JSONResponse({"sets": dict(self.queue)})

    async def _receive(self, request: Request) -> Response:
        self.pushes.append((dict(request.headers), (await request.body()).decode()))
        return self.push_answers.pop(0) if self.push_answers else Response(status_code=202)


@contextmanager
def serving() -> Iterator[StandIn]:
    """Serve a stand-in on a loopback port, from a thread of this process."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        stand_in = StandIn(f"http://127.0.0.1:{listener.getsockname()[1]}")
        config = uvicorn.Config(Starlette(routes=stand_in.routes()), log_config=None, ws="none")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield stand_in
        finally:
            server.should_exit = True
            thread.join()
