"""The vendor: an SSF transmitter that reports devices and users, by push or by poll.

It signs with its own key, publishes that at `/jwks.json`, and delivers what POST /control/emit
orders, with the same `jti` until the hub has taken it: to the address it was told, or over the
stream that the hub made at it (`streams.py`). Attack tests order bad tokens from it.
"""

import asyncio
import json
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import anyio.abc
import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from typing_extensions import override

from conformance.peers import start
from conformance.peers.clock import now_s
from conformance.peers.errors import OutboxFullError
from conformance.peers.faults import FaultOrder
from conformance.peers.ledger import Outcome
from conformance.peers.options import VendorOptions
from conformance.peers.outbox import Delivery, Outbox, headers_for
from conformance.peers.peer import Peer, json_response, read_json
from conformance.peers.shapes import Emit, VendorKey, build_claims, build_token
from conformance.peers.streams import StreamDesk

JWKS_PATH = "/jwks.json"


class JWKSOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the JWKS endpoint behaves from now on. unknown_kid: it publishes only another key."""

    mode: Literal["ok", "error", "hang", "slow", "unknown_kid"] = "ok"
    status: int = 500
    delay_ms: int = 1000
    for_s: float | None = None


class Rotation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A change of the signing key. keep_old: the old one stays published."""

    kid: str | None = None
    keep_old: bool = True


class Vendor(Peer[VendorOptions]):
    """A security vendor with one signing key and one push target."""

    def __init__(self, options: VendorOptions, base_url: str) -> None:
        super().__init__(options, base_url)
        self._key = _first_key(options)
        self._published = [self._key]
        self._foreign: VendorKey | None = None
        self._decoy: VendorKey | None = None
        self._outbox = Outbox(self.client, self.ledger)
        self._desk = StreamDesk(
            self.ledger,
            base_url=base_url,
            options=lambda: self.options,
            issuer=lambda: self.issuer,
            send=self._send_about_stream,
        )
        self._tasks: anyio.abc.TaskGroup | None = None

    @property
    def issuer(self) -> str:
        """The `iss` of its SETs."""
        return self.options.issuer or self.base_url

    @override
    def routes(self) -> list[Route]:
        """Serve keys and metadata, and take orders."""
        return [
            Route(JWKS_PATH, self._show_jwks),
            Route("/.well-known/ssf-configuration", self._show_metadata),
            Route("/control/emit", self._emit, methods=["POST"]),
            Route("/control/jwks", self._set_jwks, methods=["POST"]),
            Route("/control/rotate", self._rotate, methods=["POST"]),
            Route("/control/give-up", self._give_up, methods=["POST"]),
            Route("/outbox", self._show_outbox),
            *self._desk.routes(),
        ]

    @override
    async def start(self, tasks: anyio.abc.TaskGroup) -> None:
        """Keep the group that deliveries run in."""
        self._tasks = tasks

    @override
    def let_go(self) -> None:
        """Answer the polls of the hub that are held."""
        self._desk.let_go()

    async def _emit(self, request: Request) -> Response:
        order = await read_json(request, Emit)
        jti = order.jti or str(
            order.claims.get("jti") or f"{self.options.name}-{secrets.token_hex(12)}"
        )
        body = self._build(order, jti)
        text = body.decode("utf-8", "replace")
        if not order.deliver:
            return json_response({"jti": jti, "state": "not_sent", "set": text})
        delivery = self._delivery(order, jti, body)
        try:
            self._submit(delivery, over_stream=order.over_stream)
        except OutboxFullError:
            return json_response({"error": "outbox_full"}, 503, retry_after="1")
        self.ledger.record("set.emitted", Outcome.NOTED, request_id=jti, shape=order.shape)
        if order.wait:
            await _settled(delivery, order.wait_s)
        return json_response({**delivery.render(), "set": text})

    def _build(self, order: Emit, jti: str) -> bytes:
        claims = build_claims(
            order,
            issuer=self.issuer,
            audience=self._audience(order),
            jti=jti,
            now_s=now_s(),
        )
        return build_token(order, claims, own=self._key, foreign=self._foreign_key(order))

    def _audience(self, order: Emit) -> str:
        if order.over_stream and self._desk.stream is not None:
            return str(self._desk.stream.configuration["aud"])
        return self.options.audience or self.options.push_url or "unconfigured"

    def _send_about_stream(self, event_type: str, payload: dict[str, Any]) -> None:
        """Send a SET about the stream itself over it (SSF 1.0 §8.1.4, §8.1.5)."""
        stream = self._desk.stream
        if stream is None:
            return
        jti = f"{self.options.name}-{secrets.token_hex(12)}"
        order = Emit(
            shape="raw",
            over_stream=True,
            claims={
                "iss": self.issuer,
                "aud": stream.configuration["aud"],
                "iat": int(now_s()),
                "jti": jti,
                "sub_id": {"format": "opaque", "id": stream.stream_id},
                "events": {event_type: payload},
            },
        )
        self._submit(self._delivery(order, jti, self._build(order, jti)), over_stream=True)

    def _delivery(self, order: Emit, jti: str, body: bytes) -> Delivery:
        url = order.push_url or self.options.push_url
        authorization = order.authorization
        if authorization is msgspec.UNSET:
            authorization = self.options.authorization
        if order.over_stream:
            if self._desk.stream is None:
                raise ValueError("there is no stream")
            url = self._desk.stream.configuration["delivery"]["endpoint_url"]
            authorization = self._desk.stream.push_header
        if url is None:
            raise ValueError("no push_url: name one here or by /control/configure")
        return Delivery(
            jti=jti,
            body=body,
            url=url,
            headers=headers_for(order.content_type, authorization),
            ordering_key=json.dumps([order.user, order.device]) if order.shape != "raw" else jti,
            attempts_max=order.attempts_max or self.options.attempts_max,
        )

    def _submit(self, delivery: Delivery, *, over_stream: bool = False) -> None:
        stream = self._desk.stream
        if over_stream and stream is not None and stream.is_polled:
            self._desk.queue(delivery)
            return
        if self._tasks is None:
            raise OutboxFullError  # Not started yet: nothing could deliver it.
        self._outbox.submit(delivery, self.options, self._tasks)

    def _foreign_key(self, order: Emit) -> VendorKey:
        """Return the key nobody published; made when first asked for, because it takes a while."""
        if order.key != "foreign":
            return self._key
        if self._foreign is None:
            self._foreign = VendorKey.generate(self._key.signing.kid)
        return self._foreign

    async def _show_jwks(self, _request: Request) -> Response:
        self.ledger.record("jwks.fetched", Outcome.NOTED)
        keys = [self._decoy] if self._decoy else self._published
        return json_response({"keys": [key.public_jwk for key in keys]})

    async def _show_metadata(self, _request: Request) -> Response:
        return json_response(
            {
                "spec_version": "1_0",
                "issuer": self.issuer,
                "jwks_uri": f"{self.base_url}{JWKS_PATH}",
                "default_subjects": "ALL",
                **self._desk.metadata(),
            }
        )

    async def _set_jwks(self, request: Request) -> Response:
        order = await read_json(request, JWKSOrder)
        self._decoy = VendorKey.generate("unrelated") if order.mode == "unknown_kid" else None
        modes = {"error": "status", "hang": "hang", "slow": "slow"}
        self.fault.set(
            msgspec.convert(
                {
                    "mode": modes.get(order.mode, "ok"),
                    "status": order.status,
                    "delay_ms": order.delay_ms,
                    "for_s": order.for_s,
                    "paths": [JWKS_PATH],
                },
                FaultOrder,
            )
        )
        self.ledger.record("jwks.ordered", Outcome.NOTED, mode=order.mode)
        return json_response(msgspec.to_builtins(order))

    async def _rotate(self, request: Request) -> Response:
        order = await read_json(request, Rotation)
        fresh = VendorKey.generate(order.kid or f"{self.options.name}-{secrets.token_hex(4)}")
        self._published = [*self._published, fresh] if order.keep_old else [fresh]
        self._key, self._foreign = fresh, None
        return json_response({"kid": fresh.signing.kid})

    async def _give_up(self, _request: Request) -> Response:
        return json_response({"gave_up": self._outbox.give_up_all()})

    async def _show_outbox(self, _request: Request) -> Response:
        return json_response(self._outbox.deliveries())


def main(argv: Sequence[str]) -> None:
    """Run the vendor as a process. Raises SystemExit for wrong options."""
    start.main("vendor", argv)


def _first_key(options: VendorOptions) -> VendorKey:
    if options.key is None:
        return VendorKey.generate(f"{options.name}-{secrets.token_hex(4)}")
    return VendorKey(json.loads(Path(options.key).read_text(encoding="utf-8")))


async def _settled(delivery: Delivery, limit_s: float) -> None:
    try:
        await asyncio.wait_for(delivery.settled.wait(), limit_s)
    except TimeoutError:
        return
