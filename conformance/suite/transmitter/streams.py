"""One stream of ours at the transmitter under test, and what arrives over it."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import msgspec

from conformance.suite.http import Answer, AskError
from conformance.suite.mailbox import Mailbox, Push

if TYPE_CHECKING:
    from conformance.suite.transmitter.party import Transmitter

POLLS_MAX: Final = 200
POLL_PAUSE_S: Final = 0.2
LONG_POLL_S: Final = 120.0
SEEN_MAX: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One SET that arrived. header, claims: unverified, empty when unreadable. push: if pushed."""

    raw: bytes
    header: Mapping[str, Any]
    claims: Mapping[str, Any]
    at_s: float
    push: Push | None = None

    @property
    def events(self) -> Mapping[str, Any]:
        """Its events."""
        events = self.claims.get("events")
        return events if isinstance(events, dict) else {}

    def event(self, suffix: str) -> Mapping[str, Any] | None:
        """Return the payload of the event whose type ends so, None without."""
        for type_uri, payload in self.events.items():
            if type_uri.endswith(suffix):
                return payload if isinstance(payload, dict) else {}
        return None

    @property
    def state(self) -> object:
        """The `state` of a verification event, None without."""
        return (self.event("/verification") or {}).get("state")


Wanted = Callable[[Received], bool]


class OpenStream:
    """One stream. box: where its pushes arrive; poll streams have none."""

    def __init__(self, transmitter: Transmitter) -> None:
        self._tx = transmitter
        self.configuration: Mapping[str, Any] = {}
        self.box: Mailbox | None = None
        self.is_deleted = False
        self.arrived: list[Received] = []
        self.unacked: list[str] = []

    @property
    def stream_id(self) -> str:
        """Its id, empty when the transmitter gave none."""
        value = self.configuration.get("stream_id")
        return value if isinstance(value, str) else ""

    @property
    def query(self) -> str:
        """The query that names it."""
        return f"stream_id={quote(self.stream_id, safe='')}"

    @property
    def poll_url(self) -> str:
        """Where it is polled. Raises AskError when the transmitter does not say."""
        delivery = self.configuration.get("delivery")
        url = delivery.get("endpoint_url") if isinstance(delivery, dict) else None
        if not isinstance(url, str) or not url.startswith(("https:", "http:")):
            raise AskError("the stream has no usable delivery.endpoint_url to poll")
        return url

    @property
    def interval_s(self) -> float:
        """How long to wait between verification requests; at most 120 s, as the OpenID suite."""
        value = self.configuration.get("min_verification_interval")
        return min(float(value), 120.0) if isinstance(value, int | float) and value > 0 else 0.0

    async def verify(self, state: str | None = None, *, token: str | None = None) -> Answer:
        """Ask for a verification event. Raises AskError."""
        body = {"stream_id": self.stream_id} | ({"state": state} if state is not None else {})
        url = self._tx.endpoint("verification_endpoint") or ""
        return await self._tx.call("POST", url, body, token=token)

    async def set_status(self, status: str) -> Answer:
        """Ask for a status. Raises AskError."""
        url = self._tx.endpoint("status_endpoint") or ""
        return await self._tx.call("POST", url, {"stream_id": self.stream_id, "status": status})

    async def delete(self) -> Answer:
        """Delete it. Raises AskError."""
        answer = await self._tx.manage("DELETE", query=self.query)
        self.is_deleted = self.is_deleted or answer.status in {204, 404}
        return answer

    async def poll(self, *, limit_s: float | None = None, **body: Any) -> Answer:
        """Poll with exactly this body. Raises AskError."""
        answer = await self._tx.call("POST", self.poll_url, body, limit_s=limit_s)
        self._take(answer)
        return answer

    async def wait(self, wanted: Wanted, limit_s: float | None = None) -> Received | None:
        """Return the first SET that is wanted, polling and acknowledging when it is a poll stream.

        None when none comes in time. Raises AskError when polling fails.
        """
        limit_s = self._tx.options.limits.event_s if limit_s is None else limit_s
        if self.box is not None:
            return await self._wait_for_push(self.box, wanted, limit_s)
        ends_s = time.monotonic() + limit_s
        for _ in range(POLLS_MAX):
            for received in self.arrived:
                if wanted(received):
                    return received
            if time.monotonic() >= ends_s:
                break
            acks, self.unacked = self.unacked, []
            await self.poll(maxEvents=10, returnImmediately=True, ack=acks)
            if not self.unacked:
                await asyncio.sleep(POLL_PAUSE_S)
        return None

    async def _wait_for_push(self, box: Mailbox, wanted: Wanted, limit_s: float) -> Received | None:
        push = await box.wait(lambda one: wanted(read_set(one.body, push=one)), limit_s)
        received = None if push is None else read_set(push.body, push=push)
        self._remember(received)
        return received

    def _remember(self, received: Received | None) -> None:
        if received is not None and len(self._tx.seen) < SEEN_MAX:
            self._tx.seen.append(received.claims)

    def _take(self, answer: Answer) -> None:
        sets = answer.object.get("sets")
        for jti, raw in sets.items() if isinstance(sets, dict) else ():
            received = read_set(raw.encode() if isinstance(raw, str) else b"")
            self.unacked.append(jti)
            self.arrived.append(received)
            self._remember(received)


def read_set(raw: bytes, *, push: Push | None = None) -> Received:
    """Take a SET apart without believing it. Raises nothing."""
    parts = raw.split(b".")
    return Received(
        raw=raw,
        header=_part(parts, 0),
        claims=_part(parts, 1),
        at_s=time.monotonic() if push is None else push.at_s,
        push=push,
    )


def _part(parts: Sequence[bytes], index: int) -> Mapping[str, Any]:
    if len(parts) != 3:  # noqa: PLR2004 - header, payload, signature
        return {}
    try:
        document = msgspec.json.decode(_decode(parts[index]))
    except (msgspec.DecodeError, ValueError, UnicodeDecodeError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _decode(part: bytes) -> bytes:
    return base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))
