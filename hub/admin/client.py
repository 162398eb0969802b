"""How the command line reaches the admin API: over HTTP, or in this process on the database.

Both ways run the same routes, so that a rule holds wherever the request comes from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Protocol
from urllib.parse import unquote

import msgspec
from starlette.types import ASGIApp, Message

from hub.tenancy import DEFAULT_TENANT
from runtime.egress import EgressRules
from runtime.errors import Unavailable
from runtime.outbound import TIMEOUT_S, OutboundRequest
from runtime.pinned import PinnedOutbound

ANSWER_BYTES_MAX: Final = 16 * 1024 * 1024
EVERYWHERE: Final = ("0.0.0.0/0", "::/0")


def tenant_url(url: str, tenant_id: str) -> str:
    """Return the issuer URL of a tenant. Raises ValueError when the URL is that of another one."""
    base, separator, named = url.rstrip("/").partition("/t/")
    if tenant_id in {DEFAULT_TENANT, named}:
        return url.rstrip("/")
    if separator:
        raise ValueError(f"{url} is the tenant {named}, not {tenant_id}")
    return f"{base}/t/{tenant_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer: status and JSON, None without a body."""

    status: int
    document: Any


class AdminClient(Protocol):
    """Sends admin requests."""

    async def request(
        self, method: str, path: str, body: object = None, *, timeout_s: float = TIMEOUT_S
    ) -> Reply:
        """Return the answer to one request; path begins with /admin/v1 or /v1."""
        ...


class RemoteClient:
    """Over HTTP with a bearer token. The operator named the address, so any is allowed."""

    def __init__(self, url: str, token: str, *, extra_ca: str | None = None) -> None:
        """extra_ca: file with further authorities to trust."""
        self._url = url.rstrip("/")
        self._token = token
        rules = EgressRules(dev_insecure=True, allow=EVERYWHERE, extra_ca=extra_ca)
        self._outbound = PinnedOutbound(rules)

    async def request(
        self, method: str, path: str, body: object = None, *, timeout_s: float = TIMEOUT_S
    ) -> Reply:
        """Send one request. Raises Unavailable, also when the answer is no JSON."""
        answer = await self._outbound.send(
            OutboundRequest(
                method=method,
                url=self._url + path,
                headers={
                    "authorization": f"Bearer {self._token}",
                    "content-type": "application/json",
                },
                body=b"" if body is None else msgspec.json.encode(body),
                timeout_s=timeout_s,
                body_bytes_max=ANSWER_BYTES_MAX,
            )
        )
        try:
            document = msgspec.json.decode(answer.body) if answer.body else None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Unavailable(
                f"It answered {answer.status} without JSON: is it the hub's issuer URL?"
            ) from error
        return Reply(status=answer.status, document=document)

    async def close(self) -> None:
        """Close the connection."""
        await self._outbound.close()


class LocalClient:
    """Calls the application in this process; what it does is audited as `cli`."""

    def __init__(self, app: ASGIApp, *, tenant_id: str) -> None:
        self._app = app
        self._prefix = "" if tenant_id == DEFAULT_TENANT else f"/t/{tenant_id}"

    async def request(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        timeout_s: float = TIMEOUT_S,  # noqa: ARG002 - the routes have limits of their own
    ) -> Reply:
        """Run one request through the application."""
        path, _, query = path.partition("?")
        raw = b"" if body is None else msgspec.json.encode(body)
        sent: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": raw, "more_body": False}

        async def send(message: Message) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            # As servers do: the path is what the percent signs stand for.
            "path": self._prefix + unquote(path),
            "raw_path": (self._prefix + path).encode(),
            "root_path": "",
            "query_string": query.encode(),
            "headers": [(b"content-type", b"application/json"), (b"host", b"localhost")],
            "client": None,
            "server": ("localhost", 80),
        }
        await self._app(scope, receive, send)
        answer = b"".join(message.get("body", b"") for message in sent)
        document = msgspec.json.decode(answer) if answer else None
        return Reply(status=sent[0]["status"], document=document)
