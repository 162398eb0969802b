"""A whole transmitter in one file, in memory, that can be told to break one rule at a time.

It is the negative control of the conformance suite: sound as it stands, and every fault of it has
to be found. Faults are names; `self.has("name")` marks the place where each is done.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Final, Self

import aiohttp
from aiohttp import web
from jwcrypto.jwk import JWK
from jwcrypto.jws import JWS

from conformance.peers.clock import now_s

PUSH, POLL = "urn:ietf:rfc:8935", "urn:ietf:rfc:8936"
CAEP = "https://schemas.openid.net/secevent/caep/event-type/"
SUPPORTED: Final = [CAEP + name for name in ("session-revoked", "credential-change")]
VERIFICATION: Final = "https://schemas.openid.net/secevent/ssf/event-type/verification"
INTERVAL_S: Final = 1
LONG_POLL_S: Final = 5.0
VISIBLE_AGAIN_S: Final = 20.0
OWN, OTHER, READ_ONLY, SECRET = "own-token", "other-token", "read-token", "the-secret"
KEYS: Final = {
    "RS256": JWK.generate(kty="RSA", size=2048, kid="k1", use="sig", alg="RS256"),
    "ES256": JWK.generate(kty="EC", crv="P-256", kid="k2", use="sig", alg="ES256"),
}
KIDS: Final = {"RS256": "k1", "ES256": "k2"}
FOREIGN: Final = JWK.generate(kty="RSA", size=2048, kid="k1", use="sig", alg="RS256")


@dataclass
class Stream:
    """One stream. queue: jti to SET; hidden: jti to when it is visible again."""

    stream_id: str
    owner: str
    wanted: dict[str, Any]
    status: str = "enabled"
    queue: dict[str, str] = field(default_factory=dict)
    hidden: dict[str, float] = field(default_factory=dict)
    asked_at: float | None = None
    pushing: asyncio.Task[None] | None = None

    @property
    def delivery(self) -> dict[str, Any]:
        """The delivery that was asked for; poll when none was."""
        found: dict[str, Any] = self.wanted.get("delivery") or {"method": POLL}
        return found


class SmallTransmitter:
    """The transmitter; `url` is its issuer once it serves."""

    def __init__(self, *faults: str, tls: ssl.SSLContext, trust: ssl.SSLContext) -> None:
        self.faults = set(faults)
        self._tls = tls
        self._trust = trust
        self.streams: dict[str, Stream] = {}
        self._tokens = {OWN, OTHER}
        self._assertions: set[str] = set()
        self.url = ""
        self._came = asyncio.Event()
        self._runner: web.AppRunner
        self._http: aiohttp.ClientSession

    def has(self, fault: str) -> bool:
        """Whether this rule is to be broken."""
        return fault in self.faults

    async def __aenter__(self) -> Self:
        application = web.Application()
        # aiohttp's router answers 405 with Allow; the token is asked for inside.
        for method, path, handler in (
            ("GET", "/.well-known/ssf-configuration", self._metadata),
            ("GET", "/.well-known/oauth-authorization-server", self._as_metadata),
            ("POST", "/token", self._token),
            ("POST", "/revoke", self._revoke),
            ("GET", "/jwks", self._jwks),
            ("POST", "/streams", self._create),
            ("GET", "/streams", self._read),
            ("PATCH", "/streams", self._change),
            ("PUT", "/streams", self._change),
            ("DELETE", "/streams", self._delete),
            ("GET", "/status", self._get_status),
            ("POST", "/status", self._set_status),
            ("POST", "/add", self._subject),
            ("POST", "/remove", self._subject),
            ("POST", "/verify", self._verify),
            ("POST", "/poll/{stream_id}", self._poll),
            ("POST", "/emit", self._emit),
        ):
            application.router.add_route(method, path, handler)
        connector = aiohttp.TCPConnector(ssl=False if self.has("trusts_anyone") else self._trust)
        self._http = aiohttp.ClientSession(connector=connector)
        self._runner = web.AppRunner(application, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._tls).start()
        self.url = f"https://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        for stream in self.streams.values():
            if stream.pushing is not None:
                stream.pushing.cancel()
        await self._http.close()
        await self._runner.cleanup()

    # --- what it says of itself ------------------------------------------------------------------

    async def _metadata(self, _request: web.Request) -> web.Response:
        url = self.url
        document: dict[str, Any] = {
            "spec_version": "1.0" if self.has("version_dot") else "1_0",
            "issuer": "https://else.example" if self.has("wrong_issuer") else url,
            "jwks_uri": f"{url}/jwks",
            "delivery_methods_supported": [PUSH, POLL],
            "configuration_endpoint": f"{url}/streams",
            "status_endpoint": f"{url}/status",
            "add_subject_endpoint": f"{url}/add",
            "remove_subject_endpoint": f"{url}/remove",
            "verification_endpoint": f"{url}/verify",
            "authorization_schemes": [{"spec_urn": "urn:ietf:rfc:6749"}],
            "default_subjects": "ALL",
        }
        if self.has("empty_array"):
            document["critical_subject_members"] = []
        if self.has("no_methods"):
            document["delivery_methods_supported"] = [POLL]
        if self.has("http_endpoint"):
            document["status_endpoint"] = "http://127.0.0.1/status"
        if self.has("no_oauth_scheme"):
            document["authorization_schemes"] = [{"spec_urn": "urn:example:magic"}]
        media_type = "text/plain" if self.has("metadata_as_text") else "application/json"
        return web.Response(text=json.dumps(document), content_type=media_type)

    async def _as_metadata(self, _request: web.Request) -> web.Response:
        issuer = "https://else.example" if self.has("other_server") else self.url
        return _json(
            {
                "issuer": issuer,
                "token_endpoint": f"{self.url}/token",
                "revocation_endpoint": f"{self.url}/revoke",
            }
        )

    async def _form(self, request: web.Request) -> dict[str, str]:
        """Return a form of our client. Raises HTTPUnauthorized."""
        form = {name: str(value) for name, value in (await request.post()).items()}
        assertion = form.get("client_assertion", "")
        if assertion:
            known = assertion in self._assertions and not self.has("replayed")
            self._assertions.add(assertion)
        else:
            pair = base64.b64encode(f"suite:{SECRET}".encode()).decode()
            known = request.headers.get("authorization") != f"Basic {pair}"
        if known and not self.has("any_client"):
            raise web.HTTPUnauthorized(
                text=json.dumps({"error": "invalid_client"}), content_type="application/json"
            )
        return form

    async def _token(self, request: web.Request) -> web.Response:
        form = await self._form(request)
        token = READ_ONLY + secrets.token_hex(8) if form.get("scope") == "ssf.read" else OWN
        self._tokens.add(token)
        kind = "magic" if self.has("token_type") else "Bearer"
        return _json({"access_token": token, "token_type": kind, "expires_in": 60})

    async def _revoke(self, request: web.Request) -> web.Response:
        form = await self._form(request)
        if not self.has("revokes_nothing"):
            self._tokens.discard(form["token"])
        return web.Response()

    async def _jwks(self, _request: web.Request) -> web.Response:
        keys = [json.loads(key.export_public()) for key in KEYS.values()]
        if self.has("private_key"):
            keys[0] = json.loads(KEYS["RS256"].export_private())
        if self.has("same_kid"):
            keys[1]["kid"] = keys[0]["kid"]
        return _json({"keys": keys})

    # --- who asks, and for what ------------------------------------------------------------------

    def _caller(self, request: web.Request, *, reads: bool = False) -> str:
        """Return the token of the caller. Raises the HTTP error that fits."""
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if self.has("anyone"):
            return OWN
        if "access_token" in request.query:
            if self.has("token_in_query"):
                return OWN
            raise web.HTTPBadRequest
        if token not in self._tokens:
            challenge = 'Bearer realm="x", error="invalid_token"'
            headers = {} if self.has("no_challenge") else {"WWW-Authenticate": challenge}
            raise web.HTTPUnauthorized(headers=headers)
        if token.startswith(READ_ONLY):
            if not reads and not self.has("reader_manages"):
                headers = {"WWW-Authenticate": 'Bearer error="insufficient_scope"'}
                raise web.HTTPForbidden(headers=headers)
            return OWN
        return token

    async def _body(self, request: web.Request) -> dict[str, Any]:
        try:
            document = json.loads(await request.read() or b"{}")
        except ValueError:
            broken = self.has("broken_is_500")
            raise (web.HTTPInternalServerError if broken else web.HTTPBadRequest) from None
        if not isinstance(document, dict):
            raise web.HTTPBadRequest
        if request.content_type != "application/json":
            raise web.HTTPBadRequest
        return document

    def _find(self, stream_id: object, caller: str) -> Stream:
        if not stream_id:
            raise web.HTTPBadRequest
        stream = self.streams.get(str(stream_id))
        if stream is None or (stream.owner != caller and not self.has("foreign_stream")):
            raise web.HTTPNotFound
        return stream

    def _configuration(self, stream: Stream) -> dict[str, Any]:
        requested = stream.wanted.get("events_requested") or []
        delivery = {"method": stream.delivery["method"]}
        poll_url = f"{self.url}/poll/{'one' if self.has('one_poll_url') else stream.stream_id}"
        delivery["endpoint_url"] = stream.delivery.get("endpoint_url") or poll_url
        document = {
            "stream_id": stream.stream_id,
            "iss": self.url + ("/" if self.has("configured_iss") else ""),
            "aud": f"aud-{stream.owner}",
            "events_supported": SUPPORTED,
            "events_requested": requested,
            "events_delivered": [one for one in requested if one in SUPPORTED],
            "delivery": delivery,
            "min_verification_interval": INTERVAL_S,
        }
        if self.has("delivers_all"):
            document["events_delivered"] = [*SUPPORTED, CAEP + "token-claims-change"]
        if self.has("no_aud"):
            del document["aud"]
        if stream.wanted.get("description"):
            document["description"] = stream.wanted["description"]
        return document

    def _check_wanted(self, wanted: Mapping[str, Any], current: Stream | None) -> None:
        delivery = wanted.get("delivery") or {"method": POLL}
        events = wanted.get("events_requested", [])
        if not isinstance(events, list) or not isinstance(delivery, dict):
            raise web.HTTPBadRequest
        if delivery.get("method") not in {PUSH, POLL}:
            raise web.HTTPBadRequest
        url, header = delivery.get("endpoint_url"), delivery.get("authorization_header", "")
        if delivery["method"] == PUSH and not str(url).startswith("https://"):
            raise web.HTTPBadRequest
        if "@" in str(url) or "\n" in header:
            raise web.HTTPBadRequest
        if self.has("takes_foreign_values"):
            return
        known = self._configuration(current) if current else {"iss": self.url}
        for name in ("iss", "aud", "events_delivered"):
            if name in wanted and wanted[name] != known.get(name):
                raise web.HTTPBadRequest

    # --- streams ---------------------------------------------------------------------------------

    async def _create(self, request: web.Request) -> web.Response:
        if self.has("body_before_token"):
            await self._body(request)
        caller = self._caller(request)
        wanted = await self._body(request)
        self._check_wanted(wanted, None)
        if self.has("create_same") and self.streams:
            return _json(self._configuration(next(iter(self.streams.values()))), status=200)
        stream = Stream(f"s-{secrets.token_hex(8)}", caller, wanted)
        self.streams[stream.stream_id] = stream
        status = 200 if self.has("create_200") else 201
        return _json(self._configuration(stream), status=status)

    async def _read(self, request: web.Request) -> web.Response:
        caller = self._caller(request, reads=True)
        if "stream_id" in request.query:
            stream = self._find(request.query["stream_id"], caller)
            document: Any = self._configuration(stream)
            return _json([document] if self.has("read_is_array") else document)
        own = [one for one in self.streams.values() if one.owner == caller]
        if self.has("list_404") and not own:
            raise web.HTTPNotFound
        listed = [self._configuration(one) for one in own]
        return _json(listed[0] if self.has("list_is_object") and own else listed)

    async def _change(self, request: web.Request) -> web.Response:
        caller = self._caller(request)
        wanted = await self._body(request)
        if not wanted and self.has("broken_is_404"):
            raise web.HTTPNotFound
        stream = self._find(wanted.get("stream_id"), caller)
        self._check_wanted(wanted, stream)
        members: dict[str, Any] = {
            name: wanted[name] for name in _RECEIVER_SUPPLIED if name in wanted
        }
        merges = request.method == "PATCH" and not self.has("patch_replaces")
        if merges or self.has("put_merges"):
            members = {**stream.wanted, **members}
        stream.wanted = members
        return _json(self._configuration(stream), status=202 if self.has("change_202") else 200)

    async def _delete(self, request: web.Request) -> web.Response:
        caller = self._caller(request)
        if self.has("delete_again") and request.query.get("stream_id", "").startswith("s-"):
            self.streams.pop(request.query["stream_id"], None)
            return web.Response(status=204)
        stream = self._find(request.query.get("stream_id"), caller)
        if self.has("disabled_stays") and stream.status == "disabled":
            raise web.HTTPConflict
        del self.streams[stream.stream_id]
        if stream.pushing is not None and not self.has("pushes_deleted"):
            stream.pushing.cancel()
        return web.Response(status=204)

    async def _get_status(self, request: web.Request) -> web.Response:
        stream = self._find(request.query.get("stream_id"), self._caller(request, reads=True))
        return _json({"stream_id": stream.stream_id, "status": stream.status})

    async def _set_status(self, request: web.Request) -> web.Response:
        caller, wanted = self._caller(request), await self._body(request)
        stream = self._find(wanted.get("stream_id"), caller)
        if wanted.get("status") not in {"enabled", "paused", "disabled"}:
            raise web.HTTPBadRequest
        if request.query.get("stream_id", stream.stream_id) != stream.stream_id:
            raise web.HTTPBadRequest
        if not self.has("status_stays"):
            stream.status = wanted["status"]
        if stream.status == "disabled" and not self.has("disabled_keeps"):
            stream.queue.clear()
        self._flush(stream)
        return _json({"stream_id": stream.stream_id, "status": stream.status})

    async def _subject(self, request: web.Request) -> web.Response:
        caller, wanted = self._caller(request), await self._body(request)
        self._find(wanted.get("stream_id"), caller)
        subject = wanted.get("subject")
        if not isinstance(subject, dict) or len(subject) < 2:
            raise web.HTTPBadRequest
        if self.has("probing") and "nobody" in str(subject):
            raise web.HTTPNotFound
        right = request.path == "/add"
        return web.Response(status=200 if right is not self.has("subject_codes") else 204)

    # --- events ----------------------------------------------------------------------------------

    async def _verify(self, request: web.Request) -> web.Response:
        caller, wanted = self._caller(request), await self._body(request)
        stream = self._find(wanted.get("stream_id"), caller)
        now = monotonic()
        enforced_s = INTERVAL_S * (3 if self.has("interval_longer") else 1)
        if stream.asked_at is not None and now - stream.asked_at < enforced_s:
            raise web.HTTPTooManyRequests(headers={"Retry-After": str(INTERVAL_S)})
        stream.asked_at = now
        state = {} if self.has("state_lost") else {k: wanted[k] for k in ("state",) if k in wanted}
        if self.has("state_invented"):
            state.setdefault("state", "made up")
        if stream.status != "disabled" or self.has("disabled_keeps"):
            sub_id = {"format": "opaque", "id": stream.stream_id}
            if self.has("sub_id_else"):
                sub_id = {"format": "email", "email": "a@example.com"}
            self._queue(stream, VERIFICATION, state, sub_id)
        return web.Response(status=200 if self.has("verify_200") else 204)

    async def _emit(self, request: web.Request) -> web.Response:
        order = await request.json()
        event = dict(order["event"])
        if self.has("milliseconds"):
            event["event_timestamp"] = event["event_timestamp"] * 1000
        if self.has("reason_as_text"):
            event["reason_admin"] = "because"
        stream = self.streams[order["stream_id"]]
        self._queue(stream, order["event_type"], event, order["subject"])
        return _json({})

    def _queue(self, stream: Stream, event_type: str, event: object, sub_id: object) -> None:
        jti = secrets.token_hex(8)
        claims: dict[str, Any] = {
            "iss": self.url + ("/" if self.has("iss_slash") else ""),
            "aud": f"aud-{stream.owner}",
            "iat": int(now_s()) + (100 if self.has("iat_future") else 0),
            "jti": jti,
            "txn": jti,
            "sub_id": sub_id,
            "events": {event_type: event},
        }
        extra: dict[str, dict[str, Any]] = {
            "sub_claim": {"sub": "somebody"},
            "exp_claim": {"exp": int(now_s()) + 60},
            "two_events": {"events": {event_type: event, CAEP + "session-presented": {}}},
            "null_event": {"events": {event_type: None}},
            "iat_fraction": {"iat": now_s() - 1},
        }
        for fault in self.faults & extra.keys():
            claims |= extra[fault]
        for fault, name in (("no_aud_claim", "aud"), ("no_sub_id", "sub_id")):
            if self.has(fault):
                del claims[name]
        stream.queue[jti] = self._sign(claims)
        self._flush(stream)

    def _sign(self, claims: Mapping[str, Any]) -> str:
        alg = "ES256" if self.has("es256") else "RS256"
        key = FOREIGN if self.has("other_key") else KEYS[alg]
        header = {"alg": alg, "typ": "JWT" if self.has("typ_jwt") else "secevent+jwt"}
        header["kid"] = "unknown" if self.has("unknown_kid") else KIDS[alg]
        if self.has("alg_none"):
            parts = ({**header, "alg": "none"}, claims)
            texts = [base64.urlsafe_b64encode(json.dumps(one).encode()) for one in parts]
            return ".".join(text.decode().rstrip("=") for text in texts) + "."
        jws = JWS(json.dumps(claims).encode())
        jws.add_signature(key, None, json.dumps(header))
        signed: str = jws.serialize(compact=True)
        return signed

    def _flush(self, stream: Stream) -> None:
        """Wake whoever delivers."""
        self._came.set()
        self._came = asyncio.Event()
        sends = stream.status == "enabled" or self.has("paused_sends")
        if stream.delivery["method"] == PUSH and sends:
            for jti in list(stream.queue):
                raw = stream.queue.pop(jti)
                stream.pushing = asyncio.create_task(self._push(stream, raw))

    def _push_headers(self, value: str | None) -> dict[str, str]:
        headers = {"Content-Type": "application/secevent+jwt", "Accept": "application/json"}
        if self.has("push_as_form"):
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        if self.has("no_accept"):
            headers["Accept"] = "*/*"
        if self.has("bearer_twice"):
            value = f"Bearer {value}"
        if value and not self.has("no_header"):
            headers["Authorization"] = value
        if self.has("header_anyway"):
            headers["Authorization"] = "Bearer made-up"
        return headers

    async def _push(self, stream: Stream, raw: str) -> None:
        headers = self._push_headers(stream.delivery.get("authorization_header"))
        for attempt in range(5):
            try:
                async with self._http.post(
                    stream.delivery["endpoint_url"],
                    data=raw.encode(),
                    headers=headers,
                    allow_redirects=self.has("follows_redirects"),
                ) as answer:
                    status, after = answer.status, float(answer.headers.get("Retry-After", "0.2"))
            except aiohttp.ClientError:
                return
            again = status in {429, 500} or (status == 400 and self.has("retries_400"))
            if not again or self.has("no_retry"):
                return
            await asyncio.sleep(0 if self.has("no_patience") else after)
            if self.has("new_jti") and attempt == 0:
                claims = json.loads(base64.urlsafe_b64decode(raw.split(".")[1] + "=="))
                raw = self._sign({**claims, "iat": claims["iat"] - 1})

    def _poll_members(self, wanted: Mapping[str, Any]) -> tuple[list[str], dict[str, Any], int]:
        acks, most = wanted.get("ack", []), wanted.get("maxEvents", 100)
        errors = wanted.get("setErrs", {})
        if not isinstance(acks, list) or not isinstance(errors, dict):
            raise web.HTTPBadRequest
        if not isinstance(most, int) or most < 0:
            raise web.HTTPBadRequest
        return acks, errors, most

    async def _poll(self, request: web.Request) -> web.Response:
        caller = self._caller(request, reads=True)
        wanted = await self._body(request)
        stream = self._find(request.match_info["stream_id"], caller)
        acks, errors, most = self._poll_members(wanted)
        before = dict(stream.queue)
        for jti in (*acks, *(() if self.has("ignores_errors") else errors)):
            if not self.has("ignores_acks"):
                stream.queue.pop(jti, None)
        page = await self._wait_for_page(stream, wanted, most)
        if self.has("acks_late"):
            page |= {jti: before[jti] for jti in acks if jti in before}
        if self.has("poll_204") and not page:
            return web.Response(status=204)
        return _json({"sets": list(page.values()) if self.has("sets_are_array") else page})

    async def _wait_for_page(
        self, stream: Stream, wanted: Mapping[str, Any], most: int
    ) -> dict[str, str]:
        ends = monotonic() + LONG_POLL_S
        waits = not wanted.get("returnImmediately") and not self.has("never_waits")
        while True:
            page = self._page(stream, most)
            if page or not waits or monotonic() > ends:
                return page
            came = self._came
            try:
                async with asyncio.timeout(ends - monotonic()):
                    await came.wait()
            except TimeoutError:
                continue

    def _page(self, stream: Stream, most: int) -> dict[str, str]:
        if stream.status != "enabled" and not self.has("paused_sends"):
            return {}
        now, page = monotonic(), dict[str, str]()
        for jti, raw in stream.queue.items():
            if len(page) >= most and not self.has("no_limit"):
                break
            if stream.hidden.get(jti, 0) <= now or self.has("never_hides"):
                page[jti] = raw
                stream.hidden[jti] = now + VISIBLE_AGAIN_S
        return page


_RECEIVER_SUPPLIED: Final = ("events_requested", "delivery", "description")


def _json(document: object, *, status: int = 200) -> web.Response:
    return web.Response(text=json.dumps(document), status=status, content_type="application/json")
