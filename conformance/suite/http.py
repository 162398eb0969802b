"""Asking a party under test over HTTP, with limits: it may be hostile, slow or dead."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec

ANSWER_BYTES_MAX: Final = 16 * 1024 * 1024
HEADER_BYTES_MAX: Final = 64 * 1024
SHOWN_CHARS: Final = 160
REQUEST_S: Final = 15.0
JSON_MEDIA_TYPE: Final = "application/json"


class AskError(Exception):
    """No usable answer came: no connection, a broken or endless answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back. method, url: what it answers."""

    method: str
    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def media_type(self) -> str:
        """The media type without parameters, in lower case."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def json(self) -> Any:
        """The body as JSON, None when it is none."""
        try:
            return msgspec.json.decode(self.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None

    @property
    def object(self) -> Mapping[str, Any]:
        """The body as a JSON object, empty when it is none."""
        document = self.json
        return document if isinstance(document, dict) else {}

    def told(self) -> str:
        """Return what came back as evidence, cut short."""
        text = self.body[:SHOWN_CHARS].decode("utf-8", "replace")
        return f"{self.method} {self.url} answered {self.status} {self.media_type} {text!r}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """Whom to believe over TLS. ca: an authority beside the usual ones."""

    ca: Path | None = None
    insecure: bool = False

    def context(self) -> ssl.SSLContext:
        """Return a client context. Raises OSError, ssl.SSLError for an unreadable file."""
        context = ssl.create_default_context()
        if self.ca is not None:
            context.load_verify_locations(cafile=self.ca)
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


class Asker:
    """An HTTP client that follows no redirect, keeps no cookie and reads no endless answer."""

    def __init__(self, trust: Trust, *, request_s: float = REQUEST_S) -> None:
        """request_s: how long one answer may take unless told otherwise."""
        self._request_s = request_s
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=trust.context(), limit=32),
            cookie_jar=aiohttp.DummyCookieJar(),
            max_line_size=HEADER_BYTES_MAX,
            max_field_size=HEADER_BYTES_MAX,
        )

    async def ask(
        self,
        method: str,
        url: str,
        *,
        token: str | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        limit_s: float | None = None,
    ) -> Answer:
        """Send one request; return whatever comes back. headers: an empty value sends none.

        Raises AskError.
        """
        wanted = {"accept": JSON_MEDIA_TYPE, **(headers or {})}
        sent = {name: value for name, value in wanted.items() if value}
        if token is not None:
            sent["authorization"] = f"Bearer {token}"
        total_s = limit_s or self._request_s
        try:
            async with self._session.request(
                method,
                url,
                data=body,
                headers=sent,
                skip_auto_headers=("accept", "user-agent"),
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=total_s),
            ) as answer:
                return Answer(
                    method=method,
                    url=url,
                    status=answer.status,
                    headers={name.lower(): value for name, value in answer.headers.items()},
                    body=await _read(answer),
                )
        except TimeoutError as problem:
            raise AskError(f"{method} {url}: no answer within {total_s:g} s") from problem
        except (aiohttp.ClientError, OSError, ValueError) as problem:
            raise AskError(f"{method} {url}: {type(problem).__name__} {problem}") from problem

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for piece in answer.content.iter_chunked(64 * 1024):
        body += piece
        if len(body) > ANSWER_BYTES_MAX:
            raise AskError(f"the answer of {answer.url} is larger than {ANSWER_BYTES_MAX} bytes")
    return bytes(body)
