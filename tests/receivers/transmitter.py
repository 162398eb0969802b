"""A transmitter for tests, as strict as the OpenID conformance suite's; an `Outbound` in memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from jwcrypto.jwk import JWK

from runtime.errors import ConnectFailed
from runtime.outbound import OutboundAnswer, OutboundRequest
from tests.receivers import vendor

BASE = "https://mdm.vendor.example"
STREAM_ID = "f67e39a0"
POLL_URL = f"{BASE}/events?stream_id={STREAM_ID}"
CLIENT = ("signalhub", "p&ss word")
#: what a receiver may send to create or change a stream (CRC-4, CRC-6)
OURS = {"events_requested", "delivery", "description"}


@dataclass
class Transmitter:
    """One stream per receiver, tokens, polls. Everything that reached it is in `requests`."""

    keys: tuple[JWK, ...]
    issuer: str = vendor.ISSUER
    aud: str = vendor.AUDIENCE
    stream: dict[str, Any] | None = None
    status: str = "enabled"
    #: compact SETs by jti, handed out once (CRC-11)
    waiting: dict[str, str] = field(default_factory=dict)
    acked: list[str] = field(default_factory=list)
    refused: dict[str, Any] = field(default_factory=dict)
    states: list[str | None] = field(default_factory=list)
    requests: list[OutboundRequest] = field(default_factory=list)
    #: by "METHOD /path": what to answer instead, once each
    faults: dict[str, list[Callable[[], OutboundAnswer]]] = field(default_factory=dict)
    tokens: list[str] = field(default_factory=list)
    revoked: set[str] = field(default_factory=set)
    static_authorization: str | None = None
    scopes_supported: list[str] | None = None
    challenge: str | None = None
    takes_set_errs: bool = True
    #: while it is clear, polls get no answer
    answers: asyncio.Event = field(default_factory=asyncio.Event)

    polled: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.answers.set()

    def seen(self, method: str, path: str) -> list[OutboundRequest]:
        return [
            request
            for request in self.requests
            if request.method == method and urlsplit(request.url).path == path
        ]

    def fail(self, place: str, *answers: Callable[[], OutboundAnswer]) -> None:
        self.faults.setdefault(place, []).extend(answers)

    async def send(self, request: OutboundRequest) -> OutboundAnswer:
        self.requests.append(request)
        path = urlsplit(request.url).path
        if path == "/events":
            self.polled.set()
            await self.answers.wait()
        place = f"{request.method} {path}"
        if self.faults.get(place):
            return self.faults[place].pop(0)()
        if path in {"/jwks", "/custom/configuration", "/token"} or path.startswith("/.well-known/"):
            return self._public(request, path)
        if not self._is_authorized(request):
            headers = {"www-authenticate": self.challenge} if self.challenge else {}
            return answer(401, {"err": "unauthorized"}, headers)
        handler = {
            "/streams": self._streams,
            "/status": self._statuses,
            "/verify": self._verify,
            "/events": self._poll,
        }.get(path)
        return answer(404) if handler is None else handler(request)

    def _public(self, request: OutboundRequest, path: str) -> OutboundAnswer:
        if path == "/jwks":
            return answer(200, vendor.jwks(*self.keys))
        if path == "/token":
            return self._token(request)
        if path in {"/.well-known/ssf-configuration", "/custom/configuration"}:
            return answer(
                200,
                {
                    "spec_version": "1_0",
                    "issuer": self.issuer,
                    "jwks_uri": f"{BASE}/jwks",
                    "configuration_endpoint": f"{BASE}/streams",
                    "status_endpoint": f"{BASE}/status",
                    "verification_endpoint": f"{BASE}/verify",
                },
            )
        if path == "/.well-known/oauth-authorization-server":
            return answer(200, {"issuer": self.issuer, "token_endpoint": f"{BASE}/token"})
        if path.startswith("/.well-known/oauth-protected-resource") and self.scopes_supported:
            return answer(200, {"resource": BASE, "scopes_supported": self.scopes_supported})
        return answer(404)

    def _token(self, request: OutboundRequest) -> OutboundAnswer:
        form = {name: values[0] for name, values in parse_qs(request.body.decode()).items()}
        assert form["grant_type"] == "client_credentials"
        if set(form.get("scope", "").split()) - {"ssf.read", "ssf.manage"} or "scope" not in form:
            return answer(400, {"error": "invalid_scope"})
        self.tokens.append(f"token-{len(self.tokens)}")
        return answer(
            200, {"access_token": self.tokens[-1], "token_type": "Bearer", "expires_in": 900}
        )

    def _is_authorized(self, request: OutboundRequest) -> bool:
        given = request.headers.get("authorization")
        if self.static_authorization is not None:
            return given == self.static_authorization
        return given in {f"Bearer {token}" for token in self.tokens if token not in self.revoked}

    def _streams(self, request: OutboundRequest) -> OutboundAnswer:
        body = json.loads(request.body) if request.body else {}
        query = parse_qs(urlsplit(request.url).query)
        if request.method == "GET":
            if "stream_id" in query:
                return answer(200, self.stream) if self.stream else answer(404)
            return answer(200, [self.stream] if self.stream else [])
        if request.method == "DELETE":
            found, self.stream = self.stream, None
            return answer(204 if found else 404)
        assert body.keys() <= OURS | ({"stream_id"} if request.method != "POST" else set())
        assert "events_requested" in body
        if request.method == "POST" and self.stream is not None:
            return answer(409)
        delivery = dict(body["delivery"])
        header = delivery.pop("authorization_header", None)
        if delivery["method"] == "urn:ietf:rfc:8936":
            delivery["endpoint_url"] = POLL_URL
        else:
            assert delivery["endpoint_url"]
            assert header
        self.stream = {
            "stream_id": STREAM_ID,
            "iss": self.issuer,
            "aud": self.aud,
            "delivery": delivery,
            "events_requested": body["events_requested"],
            "events_delivered": body["events_requested"],
            "min_verification_interval": 90,
            "description": body.get("description"),
        }
        return answer(201 if request.method == "POST" else 200, self.stream)

    def _statuses(self, request: OutboundRequest) -> OutboundAnswer:
        if request.method == "POST":
            self.status = json.loads(request.body)["status"]
        return answer(200, {"stream_id": STREAM_ID, "status": self.status})

    def _verify(self, request: OutboundRequest) -> OutboundAnswer:
        self.states.append(json.loads(request.body).get("state"))
        return answer(204)

    def _poll(self, request: OutboundRequest) -> OutboundAnswer:
        if request.url != POLL_URL:
            return answer(400)
        body = json.loads(request.body)
        if body.get("setErrs") and not self.takes_set_errs:
            return answer(400)
        self.acked += body.get("ack", [])
        self.refused |= body.get("setErrs", {})
        assert "setErrs" not in body or request.headers["content-language"] == "en"
        sets, self.waiting = self.waiting, {}
        return answer(200, {"sets": sets})


def answer(
    status: int, document: object = None, headers: dict[str, str] | None = None
) -> OutboundAnswer:
    body = b"" if document is None else json.dumps(document).encode()
    return OutboundAnswer(status=status, headers=headers or {}, body=body, duration_ms=1.0)


def lost() -> OutboundAnswer:
    """No answer comes."""
    raise ConnectFailed("The connection failed.")
