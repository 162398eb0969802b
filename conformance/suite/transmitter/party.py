"""The transmitter under test as a receiver sees it: metadata, token, streams, and what arrives."""

from __future__ import annotations

import asyncio
import secrets
import shlex
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final

import msgspec

from conformance.suite.http import JSON_MEDIA_TYPE, Answer, Asker, AskError
from conformance.suite.mailbox import PostOffice
from conformance.suite.transmitter.options import Delivery, Options
from conformance.suite.transmitter.streams import OpenStream
from conformance.suite.transmitter.tokens import fetch_token
from ssf.errors import RemoteProtocolError
from ssf.events.caep import CredentialChange, DeviceComplianceChange, SessionRevoked
from ssf.jwks import JWKSet, parse_jwks
from ssf.metadata import metadata_url

#: what the OpenID suite asks for in every stream (CTC-7)
INTEROP_EVENTS: Final = (
    SessionRevoked.type_uri,
    CredentialChange.type_uri,
    DeviceComplianceChange.type_uri,
)
EXAMPLE_SUBJECT: Final[Mapping[str, Any]] = MappingProxyType(
    {"format": "email", "email": "example.user@example.com"}
)
STREAMS_OPEN_MAX: Final = 200
CLEAN_UP_S: Final = 30.0
TRIGGER_OUTPUT_BYTES_MAX: Final = 64 * 1024
OK: Final = 200
CREATED: Final = 201


class Transmitter:
    """One transmitter under test. `delivery` is the variant that runs."""

    def __init__(self, options: Options, asker: Asker, office: PostOffice) -> None:
        self.options = options
        self.asker = asker
        self.office = office
        self.delivery: Delivery = options.deliveries[0]
        self.metadata: Mapping[str, Any] = {}
        self.token: str | None = options.credentials.token
        self.keys: JWKSet | None = None
        self.token_answer: Answer | None = None
        self.seen: list[Mapping[str, Any]] = []
        self._streams: list[OpenStream] = []

    @property
    def metadata_url(self) -> str:
        """Where its metadata lies (SSF-META-20)."""
        return self.options.metadata_url or metadata_url(self.options.issuer)

    @property
    def issuer(self) -> str:
        """The issuer its metadata names."""
        return str(self.metadata.get("issuer", self.options.issuer))

    async def start(self) -> None:
        """Fetch metadata, token and keys; what is missing shows in the checks. Raises AskError."""
        self.metadata = (await self.asker.ask("GET", self.metadata_url)).object
        if self.options.credentials.client_id is not None:
            self.token_answer = await fetch_token(self.asker, self.issuer, self.options.credentials)
            token = self.token_answer.object.get("access_token")
            self.token = token if isinstance(token, str) else None
        await self.fetch_keys()

    async def fetch_keys(self) -> None:
        """Read its keys, as at the start of every module (CTS-1)."""
        uri = self.endpoint("jwks_uri")
        if uri is None:
            return
        try:
            self.keys = parse_jwks((await self.asker.ask("GET", uri)).body)
        except (AskError, RemoteProtocolError):
            self.keys = None

    def endpoint(self, member: str) -> str | None:
        """Return a URL of the metadata, None when it is not offered."""
        value = self.metadata.get(member)
        return value if isinstance(value, str) and value.startswith(("https:", "http:")) else None

    async def call(
        self,
        method: str,
        url: str,
        body: object = None,
        *,
        token: str | None = None,
        raw: bytes | None = None,
        limit_s: float | None = None,
    ) -> Answer:
        """Send one management or poll request with our token, or another one. Raises AskError."""
        content = msgspec.json.encode(body) if body is not None else raw
        headers = {"content-type": JSON_MEDIA_TYPE} if content is not None else {}
        return await self.asker.ask(
            method,
            url,
            token=self.token if token is None else token,
            body=content,
            headers=headers,
            limit_s=limit_s,
        )

    async def manage(self, method: str, body: object = None, **how: Any) -> Answer:
        """Call the configuration endpoint. how: query and what `call` takes."""
        url = self.endpoint("configuration_endpoint") or ""
        query = how.pop("query", "")
        return await self.call(method, with_query(url, query) if query else url, body, **how)

    def wanted(self, *, authorized: bool = True) -> tuple[dict[str, Any], OpenStream]:
        """Return a create request as the OpenID suite sends it, and its stream (CTC-7)."""
        delivery: dict[str, Any] = {"method": self.delivery.method}
        stream = OpenStream(self)
        if self.delivery is Delivery.PUSH:
            header = f"Bearer push_token_{secrets.token_hex(8)}" if authorized else None
            stream.box = self.office.open(header)
            delivery["endpoint_url"] = stream.box.url
            if header is not None:
                delivery["authorization_header"] = header
        body = {
            "description": "conformance check",
            "events_requested": list(INTEROP_EVENTS),
            "delivery": delivery,
        }
        return body, stream

    async def create(self, *, authorized: bool = True, **changes: Any) -> OpenStream:
        """Create a stream that is removed after the check. Raises AskError when it is refused."""
        body, stream = self.wanted(authorized=authorized)
        answer = await self.manage("POST", {**body, **changes})
        self.adopt(stream, answer)
        if answer.status not in {OK, CREATED} or not stream.stream_id:
            raise AskError(f"no stream was made: {answer.told()}")
        return stream

    def adopt(self, stream: OpenStream, answer: Answer) -> OpenStream:
        """Take the answer of a create request as the stream's, and remember to remove it."""
        stream.configuration = answer.object
        if stream.stream_id and len(self._streams) < STREAMS_OPEN_MAX:
            self._streams.append(stream)
        return stream

    async def close_streams(self) -> None:
        """Remove what the check before left; a transmitter that refuses keeps it."""
        streams, self._streams = self._streams, []
        try:
            async with asyncio.timeout(CLEAN_UP_S):
                for stream in streams:
                    if not stream.is_deleted:
                        await stream.delete()
        except (AskError, TimeoutError):
            return

    async def trigger(
        self,
        stream: OpenStream,
        event_type: str,
        event: Mapping[str, Any],
        *,
        subject: Mapping[str, Any] = EXAMPLE_SUBJECT,
    ) -> None:
        """Make an event happen, in the way the operator named. Raises AskError."""
        order = msgspec.json.encode(
            {
                "stream_id": stream.stream_id,
                "event_type": event_type,
                "subject": dict(subject),
                "event": dict(event),
            }
        )
        trigger = self.options.trigger
        if trigger.command is not None:
            await _run(trigger.command, order, self.options.limits.request_s)
        elif trigger.url is not None:
            headers = {"content-type": JSON_MEDIA_TYPE, **dict(trigger.headers)}
            answer = await self.asker.ask("POST", trigger.url, body=order, headers=headers)
            if answer.status >= 300:  # noqa: PLR2004 - HTTP's own boundary
                raise AskError(f"the trigger did not work: {answer.told()}")

    async def with_scope(self, scope: str) -> str | None:
        """Get another token of our client with this scope; None without client credentials."""
        if self.options.credentials.client_id is None:
            return None
        wanted = replace(self.options.credentials, scope=scope)
        answer = await fetch_token(self.asker, self.issuer, wanted)
        token = answer.object.get("access_token")
        return token if isinstance(token, str) else None


def with_query(url: str, query: str) -> str:
    """Append to the query of a URL."""
    return f"{url}{'&' if '?' in url else '?'}{query}"


async def _run(command: str, order: bytes, limit_s: float) -> None:
    """Run the operator's command with the order on its standard input."""
    process = await asyncio.create_subprocess_exec(
        *shlex.split(command),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(limit_s):
            told, _ = await process.communicate(order)
    except TimeoutError:
        process.kill()
        raise AskError(f"the trigger command did not end within {limit_s:g} s") from None
    if process.returncode:
        text = told[:TRIGGER_OUTPUT_BYTES_MAX].decode("utf-8", "replace")
        raise AskError(f"the trigger command ended with {process.returncode}: {text[-300:]}")
