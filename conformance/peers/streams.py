"""The vendor's stream management (SSF 1.0 §8): one stream, polled or pushed to, and its tokens.

As strict towards the hub as the standard allows: members that are not the receiver's to send are
refused, a second create is 409, and what is not acknowledged is handed out again after a while.
"""

import asyncio
import base64
import binascii
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote_plus

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from conformance.peers.clock import now_s
from conformance.peers.ledger import Ledger, Outcome
from conformance.peers.options import VendorOptions
from conformance.peers.outbox import Delivery, DeliveryState
from conformance.peers.peer import json_response, read_body

POLL_METHOD = "urn:ietf:rfc:8936"
PUSH_METHOD = "urn:ietf:rfc:8935"
VERIFICATION = "https://schemas.openid.net/secevent/ssf/event-type/verification"
STREAM_UPDATED = "https://schemas.openid.net/secevent/ssf/event-type/stream-updated"
RECEIVER_SUPPLIED = frozenset({"events_requested", "delivery", "description"})
STATUSES = frozenset({"enabled", "paused", "disabled"})
SETS_PER_POLL_MAX = 100
PENDING_MAX = 20_000
TOKENS_MAX = 10_000
SCOPES = frozenset({"ssf.read", "ssf.manage"})


@dataclass(slots=True)
class Handed:
    """A SET that waits to be polled."""

    delivery: Delivery
    hidden_until_s: float = 0.0


@dataclass(slots=True)
class Token:
    """An access token that was given out."""

    scopes: frozenset[str]
    until_s: float


@dataclass(slots=True)
class Stream:
    """The one stream there is. push_header: what its receiver wants as Authorization."""

    configuration: dict[str, Any]
    status: str = "enabled"
    push_header: str | None = None
    pending: dict[str, Handed] = field(default_factory=dict)
    settled: set[str] = field(default_factory=set)

    @property
    def stream_id(self) -> str:
        """Its id, made up by us."""
        return str(self.configuration["stream_id"])

    @property
    def is_polled(self) -> bool:
        """Whether its receiver polls."""
        return bool(self.configuration["delivery"]["method"] == POLL_METHOD)


class RefusedError(Exception):
    """A management request is refused with a status."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class StreamDesk:
    """Serves tokens, stream management and polls; keeps what it handed out until it is acked."""

    def __init__(
        self,
        ledger: Ledger,
        *,
        base_url: str,
        options: Callable[[], VendorOptions],
        issuer: Callable[[], str],
        send: Callable[[str, dict[str, Any]], None],
    ) -> None:
        """send: makes a SET of an event type and payload about the stream, and delivers it."""
        self._ledger = ledger
        self._base_url = base_url
        self._options = options
        self._issuer = issuer
        self._send = send
        self._tokens: dict[str, Token] = {}
        self._arrived = asyncio.Event()
        self._is_ending = False
        self.stream: Stream | None = None

    def routes(self) -> list[Route]:
        """Return the routes of management, tokens and polls."""
        methods = ["GET", "POST", "PATCH", "PUT", "DELETE"]
        return [
            Route("/.well-known/oauth-authorization-server", self._show_server),
            Route("/token", self._give_token, methods=["POST"]),
            Route("/streams", self._guarded(self._streams), methods=methods),
            Route("/status", self._guarded(self._status), methods=["GET", "POST"]),
            Route("/verify", self._guarded(self._verify), methods=["POST"]),
            Route("/events", self._guarded(self._poll), methods=["POST"]),
            Route("/control/stream-status", self._announce, methods=["POST"]),
            Route("/control/revoke-tokens", self._revoke, methods=["POST"]),
        ]

    def metadata(self) -> dict[str, object]:
        """Return the endpoints for the transmitter metadata."""
        return {
            "delivery_methods_supported": [PUSH_METHOD, POLL_METHOD],
            "configuration_endpoint": f"{self._base_url}/streams",
            "status_endpoint": f"{self._base_url}/status",
            "verification_endpoint": f"{self._base_url}/verify",
            "authorization_schemes": [{"spec_urn": "urn:ietf:rfc:6749"}],
        }

    def queue(self, delivery: Delivery) -> None:
        """Keep a SET for the next poll. Raises ValueError when there is no poll stream, or room."""
        stream = self.stream
        if stream is None or not stream.is_polled or len(stream.pending) >= PENDING_MAX:
            raise ValueError("no poll stream with room")
        stream.pending[delivery.jti] = Handed(delivery)
        self._arrived.set()

    def let_go(self) -> None:
        """Answer polls that are held, and hold none from now on."""
        self._is_ending = True
        self._arrived.set()

    async def _show_server(self, _request: Request) -> Response:
        return json_response(
            {"issuer": self._issuer(), "token_endpoint": f"{self._base_url}/token"}
        )

    async def _give_token(self, request: Request) -> Response:
        form = {
            name: values[0]
            for name, values in parse_qs((await read_body(request)).decode()).items()
        }
        options = self._options()
        client = _basic(request) or (form.get("client_id", ""), form.get("client_secret", ""))
        if client != (options.client_id, options.client_secret):
            self._ledger.record("token.refused", Outcome.REFUSED)
            return json_response({"error": "invalid_client"}, 401, www_authenticate="Basic")
        scopes = frozenset(form.get("scope", "").split())
        if form.get("grant_type") != "client_credentials" or not scopes or scopes - SCOPES:
            return json_response({"error": "invalid_scope"}, 400)
        if len(self._tokens) >= TOKENS_MAX:
            del self._tokens[next(iter(self._tokens))]
        value = secrets.token_urlsafe(24)
        self._tokens[value] = Token(scopes, now_s() + options.token_lifetime_s)
        self._ledger.record("token.issued", Outcome.EFFECT)
        return json_response(
            {
                "access_token": value,
                "token_type": "Bearer",
                "expires_in": int(options.token_lifetime_s),
                "scope": " ".join(sorted(scopes)),
            }
        )

    def _guarded(self, endpoint: Callable[[Request], Any]) -> Callable[[Request], Any]:
        async def guarded(request: Request) -> Response:
            try:
                self._check_token(request)
                response: Response = await endpoint(request)
            except RefusedError as refusal:
                self._ledger.record(
                    "management.refused",
                    Outcome.REFUSED,
                    status=refusal.status,
                    reason=refusal.reason,
                    path=request.url.path,
                )
                return json_response(
                    {"err": "refused", "description": refusal.reason}, refusal.status
                )
            return response

        return guarded

    def _check_token(self, request: Request) -> None:
        reads = request.method == "GET" or request.url.path == "/events"
        scheme, _, value = request.headers.get("authorization", "").partition(" ")
        token = self._tokens.get(value)
        if scheme != "Bearer" or token is None or token.until_s <= now_s():
            raise RefusedError(401, "no valid token")
        if ("ssf.read" if reads else "ssf.manage") not in token.scopes:
            raise RefusedError(403, "insufficient_scope")

    async def _streams(self, request: Request) -> Response:
        if request.method == "GET":
            if "stream_id" in request.query_params:
                stream = self._found(request.query_params["stream_id"])
                return json_response(stream.configuration)
            return json_response([self.stream.configuration] if self.stream else [])
        if request.method == "DELETE":
            stream = self._found(request.query_params.get("stream_id"))
            self.stream = None
            self._arrived.set()
            self._ledger.record("stream.deleted", Outcome.EFFECT, stream_id=stream.stream_id)
            return Response(status_code=204)
        members = await _object(request)
        if request.method == "POST":
            return self._create(members)
        stream = self._found(members.pop("stream_id", None))
        _check_members(members)
        kept = stream.configuration if request.method == "PATCH" else {}
        self._configure(
            stream, {**{n: kept[n] for n in RECEIVER_SUPPLIED & kept.keys()}, **members}
        )
        self._ledger.record("stream.changed", Outcome.EFFECT, method=request.method)
        if self._options().tells_endpoint_once and stream.is_polled:
            return json_response(stream.configuration | {"delivery": {"method": POLL_METHOD}})
        return json_response(stream.configuration)

    def _create(self, members: dict[str, Any]) -> Response:
        _check_members(members)
        if self.stream is not None:
            raise RefusedError(409, "there is a stream already")
        stream = Stream({"stream_id": secrets.token_hex(8), "iss": self._issuer()})
        self._configure(stream, members)
        self.stream = stream
        self._ledger.record(
            "stream.created", Outcome.EFFECT, stream_id=stream.stream_id, polled=stream.is_polled
        )
        return json_response(stream.configuration, 201)

    def _configure(self, stream: Stream, members: dict[str, Any]) -> None:
        delivery = dict(members.get("delivery") or {"method": POLL_METHOD})
        if "authorization_header" in delivery:
            stream.push_header = delivery.pop("authorization_header")
        if delivery.get("method") == POLL_METHOD:
            delivery["endpoint_url"] = f"{self._base_url}/events?stream_id={stream.stream_id}"
        elif delivery.get("method") != PUSH_METHOD or not delivery.get("endpoint_url"):
            raise RefusedError(400, "delivery is none that is supported")
        requested = members.get("events_requested") or []
        options = self._options()
        stream.configuration = {
            "stream_id": stream.stream_id,
            "iss": self._issuer(),
            "aud": self._audience(stream),
            "delivery": delivery,
            "events_supported": requested,
            "events_requested": requested,
            "events_delivered": requested,
            "min_verification_interval": options.min_verification_interval_s,
            **({"description": members["description"]} if members.get("description") else {}),
        }

    def _audience(self, stream: Stream) -> str:
        options = self._options()
        if options.audience_per_stream:
            return f"{options.client_id}/{stream.stream_id}"
        return options.audience or "unconfigured"

    async def _status(self, request: Request) -> Response:
        if request.method == "GET":
            stream = self._found(request.query_params.get("stream_id"))
        else:
            members = await _object(request)
            stream = self._found(members.get("stream_id"))
            if members.get("status") not in STATUSES:
                raise RefusedError(400, "status is none of enabled, paused, disabled")
            stream.status = members["status"]
            self._ledger.record("stream.status_set", Outcome.EFFECT, status=stream.status)
        return json_response({"stream_id": stream.stream_id, "status": stream.status})

    async def _verify(self, request: Request) -> Response:
        members = await _object(request)
        self._found(members.get("stream_id"))
        state = members.get("state")
        self._ledger.record("verification.asked", Outcome.NOTED, with_state=state is not None)
        self._send(VERIFICATION, {} if state is None else {"state": state})
        return Response(status_code=204)

    async def _announce(self, request: Request) -> Response:
        """Order: change the stream's status by ourselves, and say so on the stream (SSF-UPD-2)."""
        order = await _object(request)
        stream = self.stream
        if stream is None or order.get("status") not in STATUSES:
            return json_response({"error": "no stream, or no status"}, 400)
        self._send(STREAM_UPDATED, {"status": order["status"]})
        stream.status = "enabled" if stream.is_polled else order["status"]
        return json_response({"status": order["status"]})

    async def _revoke(self, _request: Request) -> Response:
        count = len(self._tokens)
        self._tokens.clear()
        return json_response({"revoked": count})

    async def _poll(self, request: Request) -> Response:
        stream = self._found(request.query_params.get("stream_id"))
        members = await _object(request)
        acks, errors = members.get("ack", []), members.get("setErrs", {})
        if errors and "content-language" not in request.headers:
            raise RefusedError(400, "setErrs without Content-Language")
        for jti in acks:
            self._settle(stream, jti, DeliveryState.DELIVERED, "")
        for jti, why in errors.items():
            self._settle(stream, jti, DeliveryState.REFUSED, str(why.get("err")))
        sets = self._visible(stream, members)
        if not sets and not members.get("returnImmediately") and not self._is_ending:
            await self._wait(stream)
            sets = self._visible(stream, members)
        self._ledger.record("poll.answered", Outcome.NOTED, acks=acks, sets=sorted(sets))
        more = len(stream.pending) > len(sets)
        return json_response({"sets": sets, **({"moreAvailable": True} if more else {})})

    def _settle(self, stream: Stream, jti: str, state: DeliveryState, err: str) -> None:
        handed = stream.pending.pop(jti, None)
        if handed is None:
            known = jti in stream.settled
            self._ledger.record("ack.repeated", Outcome.REPEAT, request_id=jti, known=known)
            return
        stream.settled.add(jti)
        delivery = handed.delivery
        delivery.state, delivery.answer, delivery.settled_at_s = state, err, now_s()
        delivery.settled.set()
        outcome = Outcome.EFFECT if state is DeliveryState.DELIVERED else Outcome.REFUSED
        self._ledger.record(f"set.{state.value}", outcome, request_id=jti, err=err)

    def _visible(self, stream: Stream, members: dict[str, Any]) -> dict[str, str]:
        if stream.status != "enabled":
            return {}
        wanted = min(int(members.get("maxEvents", SETS_PER_POLL_MAX)), SETS_PER_POLL_MAX)
        now = now_s()
        found: dict[str, str] = {}
        for jti, handed in stream.pending.items():
            if len(found) >= wanted:
                break
            if handed.hidden_until_s <= now:
                handed.hidden_until_s = now + self._options().redeliver_after_s
                handed.delivery.attempts += 1
                handed.delivery.first_sent_at_s = handed.delivery.first_sent_at_s or now
                found[jti] = handed.delivery.body.decode()
        return found

    async def _wait(self, stream: Stream) -> None:
        """Hold a long poll until something arrives, becomes visible again, or time is up."""
        hidden = [handed.hidden_until_s - now_s() for handed in stream.pending.values()]
        limit_s = max(0.01, min([self._options().long_poll_s, *hidden]))
        self._arrived.clear()
        try:
            await asyncio.wait_for(self._arrived.wait(), limit_s)
        except TimeoutError:
            return

    def _found(self, stream_id: object) -> Stream:
        if stream_id is None:
            raise RefusedError(400, "stream_id is missing")
        if self.stream is None or self.stream.stream_id != stream_id:
            raise RefusedError(404, "no such stream")
        return self.stream


def _check_members(members: dict[str, Any]) -> None:
    if strange := members.keys() - RECEIVER_SUPPLIED:
        raise RefusedError(400, f"not for the receiver to send: {', '.join(sorted(strange))}")
    if "events_requested" not in members:
        raise RefusedError(400, "events_requested is missing")


async def _object(request: Request) -> dict[str, Any]:
    try:
        return msgspec.json.decode(await read_body(request) or b"{}", type=dict[str, Any])
    except msgspec.MsgspecError as cause:
        raise RefusedError(400, "the body is no JSON object") from cause


def _basic(request: Request) -> tuple[str, str] | None:
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, _, secret = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return unquote_plus(name), unquote_plus(secret)
