"""A whole receiver in one file: a push endpoint and a stream client, sound unless told otherwise.

The negative control of the receiver's half of the conformance suite.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Mapping
from time import monotonic
from typing import Any, Final, Self

import aiohttp
from aiohttp import web

from conformance.peers.clock import now_s
from ssf.errors import SETError
from ssf.jose import check_header, split_jws, verify
from ssf.jwks import JWKSet, parse_jwks
from ssf.secevent import Expectation, parse_set

AUTHORIZATION: Final = "Bearer push-secret"
BODY_BYTES_MAX: Final = 64 * 1024
COOL_DOWN_S: Final = 0.8
STATE: Final = "a-random-state-of-128-bit"


class Undecided(Exception):  # noqa: N818 - an answer
    """The keys cannot be had now."""


class SmallReceiver:
    """The receiver; `told` is the first line of the suite: issuer, jwks_uri, token and so on."""

    def __init__(self, *faults: str, told: Mapping[str, str], tls: ssl.SSLContext | None) -> None:
        self.faults = set(faults)
        self.told = told
        self.url = ""
        self._tls = tls
        self._trust = tls is None
        self._keys: JWKSet | None = None
        self._may_fetch_at = 0.0
        self._seen: set[str] = set()
        self._stream: dict[str, Any] = {}
        self._endpoints: dict[str, str] = {}
        self._polling: asyncio.Task[None] | None = None
        self._states: set[str] = set()
        self._runner: web.AppRunner
        self._http: aiohttp.ClientSession

    def has(self, fault: str) -> bool:
        """Whether this rule is to be broken."""
        return fault in self.faults

    async def __aenter__(self) -> Self:
        application = web.Application(client_max_size=8 * 1024 * 1024)
        application.router.add_post("/events", self._push)
        self._http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=self._trust))
        self._runner = web.AppRunner(application, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._tls).start()
        scheme = "https" if self._tls else "http"
        self.url = f"{scheme}://127.0.0.1:{self._runner.addresses[0][1]}/events"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop_polling()
        await self._http.close()
        await self._runner.cleanup()

    # --- SETs ------------------------------------------------------------------------------------

    async def _check(self, raw: bytes) -> tuple[str, str]:  # noqa: C901 - one branch per rule that can be broken
        """Return jti and event type of a sound SET. Raises SETError, Undecided."""
        if self.has("takes_anything"):
            return raw.decode("latin-1"), ""
        jws = split_jws(raw)
        if not self.has("takes_other_typ"):
            check_header(jws.header, algorithms=frozenset({"RS256", "ES256"}))
        elif jws.header.alg not in {"RS256", "ES256"}:
            raise SETError("invalid_key", "alg", requirement="SET-33")
        claims = json.loads(jws.payload)
        issuer, audience = self.told["issuer"], self.told["audience"]
        if claims.get("iss") != issuer and not self.has("takes_other_iss"):
            raise SETError("invalid_issuer", "iss", requirement="SET-53")
        key = await self._key(jws.header.kid, jws.header.alg)
        if key is None and not self.has("takes_unknown_key"):
            raise SETError("invalid_key", "unknown key", requirement="SET-54")
        if key is not None and not self.has("takes_bad_signature"):
            verify(jws, key)
        for fault, name, value in (
            ("takes_other_iss", "iss", issuer),
            ("takes_other_aud", "aud", audience),
            ("takes_no_subject", "sub_id", {"format": "opaque", "id": "x"}),
        ):
            if self.has(fault):
                claims[name] = value
        if self.has("takes_exp"):
            claims.pop("exp", None)
        expect = Expectation(issuer=issuer, audiences=frozenset({audience}))
        token = parse_set(json.dumps(claims).encode(), expect, int(now_s()))
        self._check_taste(claims, token.event_type)
        return token.jti, token.event_type

    def _check_taste(self, claims: Mapping[str, Any], event_type: str) -> None:
        event: Any = claims["events"][event_type]
        late = isinstance(event.get("event_timestamp"), int) and event["event_timestamp"] > 10**11
        is_verification = event_type.endswith("/verification")
        state = event.get("state")
        wrong = (
            (late and self.has("no_milliseconds"))
            or (claims["sub_id"].get("id") == "valid" and self.has("no_opaque"))
            or (is_verification and state is None and self.has("no_stateless_verification"))
            or ("x_claim" in claims and self.has("no_extra_claims"))
            or (
                claims["events"].keys() & {event_type}
                and self.has("picky")
                and "/risc/" in event_type
            )
        )
        if wrong:
            raise SETError("invalid_request", "not to my taste", requirement="CR-20")
        unknown = state is not None and state not in self._states
        if is_verification and unknown and not self.has("takes_any_state"):
            raise SETError("invalid_state", "unknown state", requirement="SSF-VER-10")

    async def _key(self, kid: str | None, alg: str) -> Any:
        known = self._keys.find(kid, alg) if self._keys else None
        if known is not None and not self.has("always_refetches"):
            return known
        if self._keys is not None and self.has("never_refetches"):
            return None
        if monotonic() < self._may_fetch_at and not self.has("always_refetches"):
            raise Undecided
        self._may_fetch_at = monotonic() + COOL_DOWN_S
        async with self._http.get(self.told["jwks_uri"]) as answer:
            if answer.status != 200:
                raise Undecided
            self._keys = parse_jwks(await answer.read())
        return self._keys.find(kid, alg)

    # --- push ------------------------------------------------------------------------------------

    async def _push(self, request: web.Request) -> web.Response:  # noqa: C901, PLR0911 - as above
        right = request.headers.get("authorization") == AUTHORIZATION
        if not right and not self.has("anyone"):
            challenge = {} if self.has("no_challenge") else {"WWW-Authenticate": "Bearer"}
            return web.Response(status=401, headers=challenge)
        if self.has("needs_accept") and "application/json" not in request.headers.get("accept", ""):
            return web.Response(status=406)
        if request.content_type != "application/secevent+jwt" and not self.has("takes_any_type"):
            return web.Response(status=415)
        raw = await request.read()
        if len(raw) > BODY_BYTES_MAX and not self.has("takes_any_type"):
            return web.Response(status=413)
        try:
            jti, _ = await self._check(raw)
        except SETError as error:
            return self._refusal(error)
        except Undecided:
            if self.has("outage_is_400"):
                return self._refusal(SETError("invalid_key", "no keys", requirement="SET-54"))
            return web.Response(status=503, headers={"Retry-After": "1"})
        if jti in self._seen and self.has("repeat_is_409"):
            return web.Response(status=409)
        self._seen.add(jti)
        status = 200 if self.has("answers_200") else 202
        return web.Response(status=status, text="thanks" if self.has("answers_text") else None)

    def _refusal(self, error: SETError) -> web.Response:
        if self.has("errors_are_500"):
            return web.Response(status=500)
        code = "invalid_request" if self.has("one_code") else error.code
        headers = {} if self.has("no_language") else {"Content-Language": "en"}
        if self.has("plain_errors"):
            return web.Response(status=400, text=code, headers=headers)
        document = {"err": code, "description": error.description}
        return web.json_response(document, status=400, headers=headers)

    # --- the stream client -----------------------------------------------------------------------

    async def step(self, name: str, *, delivery: str) -> None:  # noqa: C901, PLR0912 - as above
        """Make one step, as an operator would have it done."""
        if name == "create":
            await self._discover()
            wanted = self._wanted(delivery)
            if self.has("sends_aud"):
                wanted["aud"] = self.told["audience"]
            self._stream = await self._ask("POST", "configuration_endpoint", wanted)
            if self.has("creates_twice"):
                await self._ask("POST", "configuration_endpoint", wanted)
            if delivery == "poll":
                self._polling = asyncio.create_task(self._poll())
            return
        same = {"stream_id": self._stream.get("stream_id", "none")}
        query = f"?stream_id={same['stream_id']}"
        if name == "read":
            await self._ask(
                "GET", "configuration_endpoint", query="" if self.has("lists") else query
            )
        elif name in {"update", "replace"}:
            extra = {"iss": self.told["issuer"]} if self.has("echoes") else {}
            method = "PATCH" if name == "update" else "PUT"
            wanted = {**self._wanted(delivery), **same, **extra}
            await self._ask(method, "configuration_endpoint", wanted)
        elif name == "status":
            for status in (
                ("disabled", "enabled") if self.has("disables") else ("paused", "enabled")
            ):
                await self._ask("POST", "status_endpoint", {**same, "status": status})
        elif name == "read-status":
            await self._ask("GET", "status_endpoint", query=query)
        elif name == "verify":
            self._states.add(STATE)
            state = {} if self.has("no_state") else {"state": STATE}
            await self._ask("POST", "verification_endpoint", {**same, **state})
        elif name == "delete":
            self._stop_polling()
            if not self.has("never_deletes"):
                await self._ask("DELETE", "configuration_endpoint", query=query)

    def _wanted(self, delivery: str) -> dict[str, Any]:
        caep = "https://schemas.openid.net/secevent/caep/event-type/"
        names = ("session-established",) if self.has("other_events") else _EVENTS
        how: dict[str, Any] = {"method": "urn:ietf:rfc:8936"}
        if delivery == "push":
            how = {
                "method": "urn:ietf:rfc:8935",
                "endpoint_url": self.url,
                "authorization_header": AUTHORIZATION,
            }
        risc = "https://schemas.openid.net/secevent/risc/event-type/account-disabled"
        return {
            "description": "small",
            "events_requested": [*(caep + name for name in names), risc],
            "delivery": how,
        }

    async def _discover(self) -> None:
        async with self._http.get(self.told["metadata_url"]) as answer:
            self._endpoints = await answer.json()

    async def _ask(self, method: str, endpoint: str, body: object = None, query: str = "") -> Any:
        kind = "bearer" if self.has("bearer_lower") else "Bearer"
        headers = {"Authorization": f"{kind} {self.told['token']}"}
        url = self._endpoints[endpoint] + query
        async with self._http.request(method, url, json=body, headers=headers) as answer:
            raw = await answer.read()
            return json.loads(raw) if raw else {}

    async def _poll(self) -> None:
        url = self._stream["delivery"]["endpoint_url"]
        if self.has("drops_query"):
            url = url.partition("?")[0]
        acks: list[str] = []
        errors: dict[str, Any] = {}
        while True:
            body: dict[str, Any] = {"ack": acks, "returnImmediately": False, "maxEvents": 20}
            headers = {"Authorization": f"Bearer {self.told['token']}"}
            if errors:
                body["setErrs"] = errors
                if not self.has("no_language"):
                    headers["Content-Language"] = "en"
            async with self._http.post(url, json=body, headers=headers) as answer:
                if answer.status != 200:
                    await asyncio.sleep(0.2)
                    continue
                page = (await answer.json())["sets"]
            acks, errors = [], {}
            for jti, raw in page.items():
                await self._take(jti, raw.encode(), acks, errors)

    async def _take(self, jti: str, raw: bytes, acks: list[str], errors: dict[str, Any]) -> None:
        try:
            await self._check(raw)
        except SETError as error:
            if not self.has("acks_anything"):
                errors[jti] = {"err": error.code, "description": error.description}
                return
        if not self.has("never_acks"):
            acks.append(jti)

    def _stop_polling(self) -> None:
        if self._polling is not None:
            self._polling.cancel()


_EVENTS: Final = ("session-revoked", "credential-change", "device-compliance-change")
