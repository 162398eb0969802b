"""For ASGI apps: asks the hub about every request before the app sees it.

Three lines:

    from hub.middleware import SessionCheck

    app = SessionCheck(app, hub="https://hub.example", token=TOKEN, app_id=APP, cookie="session")

It is a gateway inside the app's own process, and speaks forward-auth (standards §19): only the
session's cookie leaves the app, and whatever is not the hub's own 200 is not let through. Runs in
the app's process, so it imports nothing of the hub's.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import httpx2

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

PATH: Final = "/v1/forward-auth"
TIMEOUT_S: Final = 1.0
CACHE_ENTRIES_MAX: Final = 10_000
CACHE_S_MAX: Final = 300.0
CONNECTIONS_MAX: Final = 100
OK: Final = 200
#: answers of the hub that are meant for the browser
MEANT: Final = frozenset({302, 401, 403})
UNAVAILABLE: Final = 503
POLICY_VIOLATION: Final = 1008
OWN_HEADER: Final = "x-signalhub-authorization"
OWN_PREFIX: Final = b"x-signalhub-"
#: what of the hub's answer a browser gets
SHOWN: Final = frozenset(
    {"location", "set-cookie", "www-authenticate", "cache-control", "content-type"}
)
#: what of the request the hub gets, apart from the cookie
SENT: Final = MappingProxyType(
    {b"user-agent": "user-agent", b"accept": "accept", b"accept-language": "accept-language"}
)
_SCHEMES: Final = MappingProxyType({"ws": "http", "wss": "https"})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Decision:
    """What the hub said. headers: for the browser. user, session_id: empty where not told."""

    status: int
    headers: Headers
    body: bytes = b""
    user: str = ""
    session_id: str = ""
    ttl_s: float = 0.0


class SessionCheck:
    """Pure ASGI middleware. An app behind it sees requests of good sessions only.

    What the hub tells is in `scope["state"]["signalhub"]`: `{user, session_id}`.
    """

    def __init__(  # noqa: PLR0913 - a setting each, all by name
        self,
        app: ASGIApp,
        *,
        hub: str,
        token: str,
        app_id: str,
        cookie: str,
        fail_open: bool = False,
        timeout_s: float = TIMEOUT_S,
        public: Iterable[str] = (),
        client: httpx2.AsyncClient | None = None,
    ) -> None:
        """hub: its issuer URL. token: scope `sessions.evaluate`. cookie: the session's.

        fail_open: whether requests pass while the hub does not answer within timeout_s; by default
        they get 503. public: paths that are not asked about, such as `/healthz`, exact. client: of
        your own, with certificates or proxies; it is not closed here.
        """
        self._app = app
        self._url = f"{hub.rstrip('/')}{PATH}"
        self._query = {"dialect": "traefik", "app": app_id}
        self._authorization = f"Bearer {token}"
        self._cookie = cookie.encode()
        self._fail_open = fail_open
        self._timeout_s = timeout_s
        self._public = frozenset(public)
        self._own_client: httpx2.AsyncClient | None = None
        self._client = client
        self._known: OrderedDict[tuple[tuple[str, str], ...], tuple[float, _Decision]] = (
            OrderedDict()
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Ask about a request or a WebSocket, then pass it on or answer it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            await self.aclose()
            return
        headers = _without_own(scope["headers"])
        if scope["path"] in self._public:
            await self._app({**scope, "headers": headers}, receive, send)
            return
        decision = await self._decide(scope)
        if decision.status == OK:
            told = {"user": decision.user, "session_id": decision.session_id}
            state = {**scope.get("state", {}), "signalhub": told}
            await self._app({**scope, "headers": headers, "state": state}, receive, send)
        elif scope["type"] == "websocket":
            await receive()  # the handshake, which is refused with 403 by the server
            await send({"type": "websocket.close", "code": POLICY_VIOLATION})
        else:
            await _refuse(decision, send)

    async def aclose(self) -> None:
        """Close the connections to the hub; done by itself where the server speaks lifespan."""
        if self._own_client is not None:
            await self._own_client.aclose()
            self._own_client = None

    async def _decide(self, scope: Scope) -> _Decision:
        question = self._question(scope)
        # The key is all that was asked: another address, path or browser is another question.
        key = tuple(sorted(question.items()))
        if (known := self._known.get(key)) is not None:
            if known[0] > time.monotonic():
                self._known.move_to_end(key)
                return known[1]
            del self._known[key]
        decision = await self._ask(question)
        if decision.ttl_s > 0:
            self._known[key] = (time.monotonic() + decision.ttl_s, decision)
            while len(self._known) > CACHE_ENTRIES_MAX:
                self._known.popitem(last=False)
        return decision

    def _question(self, scope: Scope) -> dict[str, str]:
        """Return the headers that tell the hub about a request."""
        headers: Headers = scope["headers"]
        scheme = scope.get("scheme", "http")
        address = scope.get("client")
        query = scope.get("query_string", b"").decode("latin-1")
        path = scope.get("raw_path") or scope["path"].encode()
        asked = {
            "x-forwarded-method": scope.get("method", "GET"),
            "x-forwarded-proto": _SCHEMES.get(scheme, scheme),
            "x-forwarded-host": _first(headers, b"host"),
            "x-forwarded-uri": path.decode("latin-1") + (f"?{query}" if query else ""),
            "x-forwarded-for": address[0] if address else "",
        }
        asked |= {said: _first(headers, name) for name, said in SENT.items()}
        asked["cookie"] = b"; ".join(_cookies(headers, self._cookie)).decode("latin-1")
        return {name: value for name, value in asked.items() if value}

    async def _ask(self, question: dict[str, str]) -> _Decision:
        try:
            answer = await self._connected().get(
                self._url,
                params=self._query,
                headers=[
                    (name.encode(), value.encode("latin-1"))
                    for name, value in (*question.items(), (OWN_HEADER, self._authorization))
                ],
                timeout=self._timeout_s,
                follow_redirects=False,
            )
        except (httpx2.HTTPError, ValueError):
            return self._undecided()
        if answer.status_code == OK:
            return _Decision(
                status=OK,
                headers=[],
                user=answer.headers.get("x-signalhub-user", ""),
                session_id=answer.headers.get("x-signalhub-session-id", ""),
                ttl_s=_ttl_s(answer.headers.get("x-signalhub-cache-ttl-ms", "0")),
            )
        if answer.status_code not in MEANT:
            return self._undecided()
        shown = [
            (name.encode("latin-1"), value.encode("latin-1"))
            for name, value in answer.headers.multi_items()
            if name.lower() in SHOWN
        ]
        return _Decision(status=answer.status_code, headers=shown, body=answer.content)

    def _undecided(self) -> _Decision:
        if self._fail_open:
            return _Decision(status=OK, headers=[])
        return _Decision(status=UNAVAILABLE, headers=[(b"retry-after", b"5")])

    def _connected(self) -> httpx2.AsyncClient:
        if self._client is not None:
            return self._client
        if self._own_client is None:
            self._own_client = httpx2.AsyncClient(
                limits=httpx2.Limits(max_connections=CONNECTIONS_MAX)
            )
        return self._own_client


async def _refuse(decision: _Decision, send: Send) -> None:
    headers = [*decision.headers, (b"content-length", str(len(decision.body)).encode())]
    await send({"type": "http.response.start", "status": decision.status, "headers": headers})
    await send({"type": "http.response.body", "body": decision.body})


def _without_own(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Return the headers without those that only the hub's side may set: a client's are forged."""
    return [pair for pair in headers if not pair[0].lower().startswith(OWN_PREFIX)]


def _first(headers: Headers, wanted: bytes) -> str:
    return next((value.decode("latin-1") for name, value in headers if name == wanted), "")


def _cookies(headers: Headers, wanted: bytes) -> list[bytes]:
    return [
        pair.strip()
        for name, value in headers
        if name == b"cookie"
        for pair in value.split(b";")
        if pair.strip().partition(b"=")[0] == wanted
    ]


def _ttl_s(said: str) -> float:
    return min(int(said) / 1_000, CACHE_S_MAX) if said.isdecimal() else 0.0
