"""HTTP of the transmitter that we play: discovery, tokens, streams, keys, push and poll."""

from __future__ import annotations

import base64
import json
import secrets
import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

from aiohttp import web

from conformance.suite.http import Asker, AskError
from conformance.suite.receiver.stage import POLL, PUSH, Refused, Stage, StagedStream
from ssf.errors import RemoteProtocolError
from ssf.strict_json import parse_object

#: the path of our issuer: metadata then lies between host and path (CRC-1)
PATH: Final = "/test/a/signalhub"
BODY_BYTES_MAX: Final = 2 * 1024 * 1024
TOKEN_LIFETIME_S: Final = 900
MAX_EVENTS_DEFAULT: Final = 16
POLLS_OPEN_MAX: Final = 8
GRACE_S: Final = 1.0
SCOPES: Final = frozenset({"ssf.read", "ssf.manage"})

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class StageServer:
    """Serves a stage on one address. hold_s: how long a poll waits for more SETs (CRC-13)."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        public_url: str | None,
        tls: ssl.SSLContext | None,
        hold_s: float,
    ) -> None:
        self._address = (host, port)
        self._tls = tls
        self._hold_s = hold_s
        self._runner: web.AppRunner | None = None
        self.base_url = public_url or ""
        self.stage: Stage
        #: how the JWK Set is answered: 200, or an error while it is "down"
        self.jwks_status = 200
        self.jwks_fetches = 0
        self.published: list[Mapping[str, object]] = []

    @property
    def issuer(self) -> str:
        """Our issuer, which has a path."""
        return f"{self.base_url}{PATH}"

    async def start(self) -> None:
        """Listen. Raises OSError when the address cannot be had."""
        application = web.Application(client_max_size=BODY_BYTES_MAX)
        for method, path, handler in (
            ("GET", f"/.well-known/ssf-configuration{PATH}", self._metadata),
            ("GET", f"/.well-known/oauth-authorization-server{PATH}", self._as_metadata),
            ("POST", f"{PATH}/token", self._token),
            ("GET", f"{PATH}/jwks", self._jwks),
            ("POST", f"{PATH}/streams", self._managed(self._create, "ssf.manage")),
            ("GET", f"{PATH}/streams", self._managed(self._read, "ssf.read")),
            ("PATCH", f"{PATH}/streams", self._managed(self._change, "ssf.manage")),
            ("PUT", f"{PATH}/streams", self._managed(self._change, "ssf.manage")),
            ("DELETE", f"{PATH}/streams", self._managed(self._delete, "ssf.manage")),
            ("GET", f"{PATH}/status", self._managed(self._get_status, "ssf.read")),
            ("POST", f"{PATH}/status", self._managed(self._set_status, "ssf.manage")),
            ("POST", f"{PATH}/verify", self._managed(self._verify, "ssf.manage")),
            ("POST", f"{PATH}/events", self._managed(self._poll, "ssf.read")),
        ):
            application.router.add_route(method, path, handler)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=GRACE_S)
        await self._runner.setup()
        host, port = self._address
        await web.TCPSite(self._runner, host, port, ssl_context=self._tls).start()
        if not self.base_url:
            scheme = "https" if self._tls else "http"
            self.base_url = f"{scheme}://{host}:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        """Close the address."""
        if self._runner is not None:
            await self._runner.cleanup()

    # --- discovery, keys, tokens -----------------------------------------------------------------

    async def _metadata(self, _request: web.Request) -> web.Response:
        issuer = self.issuer
        document = {
            "spec_version": "1_0",
            "issuer": issuer,
            "jwks_uri": f"{issuer}/jwks",
            "delivery_methods_supported": [PUSH, POLL],
            "configuration_endpoint": f"{issuer}/streams",
            "status_endpoint": f"{issuer}/status",
            "verification_endpoint": f"{issuer}/verify",
            "authorization_schemes": [{"spec_urn": "urn:ietf:rfc:6749"}],
        }
        self.stage.note("discover")
        return _json(document)

    async def _as_metadata(self, _request: web.Request) -> web.Response:
        issuer = self.issuer
        methods = ["client_secret_basic", "client_secret_post"]
        return _json(
            {
                "issuer": issuer,
                "token_endpoint": f"{issuer}/token",
                "grant_types_supported": ["client_credentials"],
                "token_endpoint_auth_methods_supported": methods,
                "scopes_supported": sorted(SCOPES),
            }
        )

    async def _token(self, request: web.Request) -> web.Response:
        """Give a token by client credentials; the scope is required (CRC-3)."""
        stage = self.stage
        form = dict(parse_qsl((await request.read()).decode("utf-8", "replace")))
        asked = (form.get("client_id"), form.get("client_secret"))
        kind, _, pair = request.headers.get("authorization", "").partition(" ")
        if kind.lower() == "basic":
            asked = _basic(pair)
        if asked != (stage.client_id, stage.secret):
            stage.note("token", 401)
            return _json({"error": "invalid_client"}, status=401)
        if form.get("grant_type") != "client_credentials":
            stage.note("token", 400)
            return _json({"error": "unsupported_grant_type"}, status=400)
        scopes = frozenset(form.get("scope", "").split())
        if not scopes or scopes - SCOPES:
            stage.violate("CRC-3", f"a token was asked for with scope {form.get('scope')!r}")
            stage.note("token", 400)
            return _json({"error": "invalid_scope"}, status=400)
        token = secrets.token_urlsafe(32)
        stage.granted[token] = scopes
        stage.note("token", 200)
        answer = {"access_token": token, "token_type": "Bearer", "expires_in": TOKEN_LIFETIME_S}
        return _json({**answer, "scope": " ".join(sorted(scopes))})

    async def _jwks(self, _request: web.Request) -> web.Response:
        self.jwks_fetches += 1
        if self.jwks_status != 200:  # noqa: PLR2004 - OK
            return web.Response(status=self.jwks_status)
        return _json({"keys": self.published})

    # --- stream management -----------------------------------------------------------------------

    def _managed(
        self, handler: Callable[[web.Request], Awaitable[web.Response]], scope: str
    ) -> Handler:
        async def handle(request: web.Request) -> web.Response:
            if not self.stage.is_open:
                return web.Response(status=204)
            try:
                self._check_token(request, scope)
                return await handler(request)
            except Refused as refused:
                self.stage.note("refused", refused.status, path=request.path, err=refused.err)
                return _json(
                    {"err": refused.err, "description": refused.err}, status=refused.status
                )

        return handle

    def _check_token(self, request: web.Request, scope: str) -> None:
        """Check the token: exactly `Bearer <token>`, with a scope that suffices (CRC-3)."""
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        scopes = self.stage.granted.get(token) if kind == "Bearer" else None
        if scopes is None:
            raise Refused(401, "unauthorized")
        if scope not in scopes:
            self.stage.violate("CRC-3", f"{request.method} {request.path} needs the scope {scope}")
            raise Refused(403, "insufficient_scope")

    async def _create(self, request: web.Request) -> web.Response:
        document = self.stage.create(await _object(request))
        self.stage.note("create", 201, **document)
        return _json(document, status=201)

    async def _read(self, request: web.Request) -> web.Response:
        stage = self.stage
        if "stream_id" not in request.query:
            stage.note("list")
            return _json([stage.configuration(stage.stream)] if stage.stream else [])
        stream = stage.find(request.query["stream_id"])
        stage.note("read")
        return _json(stage.configuration(stream))

    async def _change(self, request: web.Request) -> web.Response:
        if self.stage.is_interop:
            raise Refused(405, "not_supported")
        replaces = request.method == "PUT"
        document = self.stage.change(await _object(request), replaces=replaces)
        self.stage.note("replace" if replaces else "update")
        return _json(document)

    async def _delete(self, request: web.Request) -> web.Response:
        self.stage.find(request.query.get("stream_id"))
        self.stage.stream = None
        self.stage.note("delete", 204)
        return web.Response(status=204)

    async def _get_status(self, request: web.Request) -> web.Response:
        stream = self.stage.find(request.query.get("stream_id"))
        self.stage.note("read-status")
        return _json({"stream_id": stream.stream_id, "status": stream.status})

    async def _set_status(self, request: web.Request) -> web.Response:
        if self.stage.is_interop:
            raise Refused(405, "not_supported")
        document = self.stage.set_status(await _object(request))
        self.stage.note("set-status", 200, **document)
        return _json(document)

    async def _verify(self, request: web.Request) -> web.Response:
        wanted = await _object(request)
        self.stage.verify(wanted)
        self.stage.note("verify", 204, state=wanted.get("state"))
        return web.Response(status=204)

    # --- delivery --------------------------------------------------------------------------------

    async def _poll(self, request: web.Request) -> web.Response:
        stage = self.stage
        if "stream_id" not in request.query:
            stage.violate("CRC-14", "a poll did not use endpoint_url as it is")
            raise Refused(400, "invalid_request")
        stream = stage.find(request.query["stream_id"])
        wanted = await _object(request)
        if stream.status == "enabled":
            stage.settle(stream, wanted)
        if wanted.get("setErrs") and "content-language" not in request.headers:
            stage.violate("POLL-18", "a poll with setErrs has no Content-Language header")
        most = wanted.get("maxEvents", MAX_EVENTS_DEFAULT)
        if not isinstance(most, int) or isinstance(most, bool) or most < 0:
            raise Refused(400, "invalid_request")
        if stream.polls_open >= POLLS_OPEN_MAX:
            raise Refused(429, "too_many_polls")
        stream.polls_open += 1
        try:
            if stream.polls_open > 1:
                stage.violate("POLL-25", "the receiver polls while a poll of it is still open")
            await self._hold(stream, wanted, most)
            page = stage.page(stream, most)
        finally:
            stream.polls_open -= 1
        stage.note("poll", 200, ack=wanted.get("ack", []), count=len(page))
        return _json({"sets": page})

    async def _hold(self, stream: StagedStream, wanted: Mapping[str, Any], most: int) -> None:
        """Hold the answer until it is full or the time is over (CRC-13)."""
        if wanted.get("returnImmediately") is not True and most:
            await self.stage.wait(
                lambda: len(stream.queue) >= most or self.stage.stream is not stream, self._hold_s
            )

    async def push(self, asker: Asker, stream: StagedStream, jti: str) -> None:
        """Push one queued SET; the answer is what becomes of it. No Accept is set (CRC-12)."""
        raw = stream.queue.pop(jti)
        headers = {"content-type": "application/secevent+jwt", "accept": ""}
        header = stream.delivery.get("authorization_header")
        if isinstance(header, str):
            headers["authorization"] = header
        try:
            url = str(stream.delivery["endpoint_url"])
            answer = await asker.ask("POST", url, body=raw, headers=headers)
        except AskError as problem:
            stream.sent[jti] = f"no answer: {problem}"
        else:
            accepted = answer.status == 202 and not answer.body  # noqa: PLR2004 - PUSH-7
            stream.sent[jti] = "ack" if accepted else f"answered {answer.told()}"
        self.stage.wake()


def _basic(pair: str) -> tuple[str, str]:
    try:
        user, _, secret = base64.b64decode(pair).decode().partition(":")
    except ValueError:
        return "", ""
    return unquote(user), unquote(secret)


async def _object(request: web.Request) -> dict[str, Any]:
    """Read a JSON object. Raises Refused."""
    body = await request.read() or b"{}"
    try:
        return dict(parse_object(body, bytes_max=BODY_BYTES_MAX, error=_broken))
    except RemoteProtocolError:
        raise Refused(400, "invalid_request") from None


def _broken(description: str) -> RemoteProtocolError:
    return RemoteProtocolError("invalid_request", description, requirement="PD-3")


def _json(document: object, *, status: int = 200) -> web.Response:
    headers = {"cache-control": "no-store"}
    return web.Response(
        text=json.dumps(document), status=status, content_type="application/json", headers=headers
    )
