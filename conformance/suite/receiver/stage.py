"""The transmitter that we play, as strict as the OpenID suite's (CRC-1 to CRC-15): its rules.

Pure bookkeeping; `server.py` is the HTTP around it. What a receiver does wrong is kept as a
violation of a requirement, whatever answer it gets.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from conformance.suite.receiver.sets import PAYLOADS, Signer

PUSH, POLL = "urn:ietf:rfc:8935", "urn:ietf:rfc:8936"
RECEIVER_SUPPLIED: Final = frozenset({"events_requested", "delivery", "description"})
TRANSMITTER_SUPPLIED: Final = frozenset(
    {
        "iss",
        "aud",
        "events_supported",
        "events_delivered",
        "min_verification_interval",
        "inactivity_timeout",
    }
)
STATUSES: Final = frozenset({"enabled", "paused", "disabled"})
SEEN_MAX: Final = 10_000
QUEUE_MAX: Final = 1_000


class Refused(Exception):  # noqa: N818 - an answer, not a failure of ours
    """A request that is answered with an error. status, err: of the answer."""

    def __init__(self, status: int, err: str) -> None:
        super().__init__(err)
        self.status = status
        self.err = err


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One request that the receiver made. step: what it was, such as `create` or `poll`."""

    step: str
    status: int
    detail: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A rule that the receiver broke."""

    requirement_id: str
    text: str


@dataclass(slots=True)
class StagedStream:
    """The one stream of the receiver. sent: jti to what became of the SET (None: nothing yet)."""

    stream_id: str
    wanted: dict[str, Any]
    status: str = "enabled"
    queue: dict[str, bytes] = field(default_factory=dict)
    sent: dict[str, str | None] = field(default_factory=dict)
    polls_open: int = 0

    @property
    def method(self) -> str:
        """How SETs are delivered; poll when the receiver did not say."""
        return str(self.delivery.get("method", POLL))

    @property
    def delivery(self) -> Mapping[str, Any]:
        """The delivery that was asked for."""
        found = self.wanted.get("delivery")
        return found if isinstance(found, dict) else {}


class Stage:
    """What the played transmitter knows, and what it saw."""

    def __init__(self, signer: Signer, *, token: str, client_id: str, secret: str) -> None:
        self.signer = signer
        self.token = token
        self.client_id = client_id
        self.secret = secret
        self.stream: StagedStream | None = None
        #: a finished module answers 204 to everything (CRC-15)
        self.is_open = True
        self.is_interop = False
        self.seen: list[Seen] = []
        self.violations: list[Violation] = []
        self.granted: dict[str, frozenset[str]] = {token: frozenset({"ssf.read", "ssf.manage"})}
        self.states: list[str | None] = []
        self._changed = asyncio.Event()

    # --- watching --------------------------------------------------------------------------------

    def note(self, step: str, answered: int = 200, /, **detail: Any) -> None:
        """Keep what the receiver did."""
        if len(self.seen) < SEEN_MAX:
            self.seen.append(Seen(step=step, status=answered, detail=detail))
        self.wake()

    def violate(self, requirement_id: str, text: str) -> None:
        """Keep what the receiver did wrong."""
        if len(self.violations) < SEEN_MAX:
            self.violations.append(Violation(requirement_id=requirement_id, text=text))

    def wake(self) -> None:
        """Let whoever waits look again."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait(self, holds: Callable[[], bool], limit_s: float) -> bool:
        """Wait until a condition holds; say whether it does."""
        ends_s = time.monotonic() + limit_s
        while not holds():
            changed = self._changed
            try:
                async with asyncio.timeout(ends_s - time.monotonic()):
                    await changed.wait()
            except TimeoutError:
                return holds()
        return True

    # --- stream management -----------------------------------------------------------------------

    def create(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """Make the receiver's one stream (CRC-4, CRC-5)."""
        foreign = sorted(set(wanted) & (TRANSMITTER_SUPPLIED | {"stream_id"}))
        if foreign:
            self.violate("CRC-4", f"create sends what only the transmitter sets: {foreign}")
        delivery = wanted.get("delivery")
        pushes = isinstance(delivery, dict) and delivery.get("method") == PUSH
        if pushes and not delivery.get("endpoint_url"):  # type: ignore[union-attr]  # a dict: pushes
            self.violate("CRC-4", "create asks for push without endpoint_url")
            raise Refused(400, "invalid_request")
        if not isinstance(wanted.get("events_requested"), list):
            self.violate("CRC-4", "create has no events_requested")
            raise Refused(400, "invalid_request")
        if self.stream is not None:
            self.violate("CRC-5", "create was sent although the receiver has a stream")
            raise Refused(409, "conflict")
        self.stream = StagedStream(f"stream-{secrets.token_hex(8)}", dict(wanted))
        return self.configuration(self.stream)

    def change(self, wanted: Mapping[str, Any], *, replaces: bool) -> dict[str, Any]:
        """Update or replace the stream (CRC-6)."""
        stream = self.find(wanted.get("stream_id"))
        foreign = sorted(set(wanted) & TRANSMITTER_SUPPLIED)
        if foreign:
            self.violate("CRC-6", f"a change sends what only the transmitter sets: {foreign}")
            raise Refused(400, "invalid_request")
        members = {name: wanted[name] for name in RECEIVER_SUPPLIED & wanted.keys()}
        stream.wanted = members if replaces else {**stream.wanted, **members}
        if replaces:
            stream.status = "enabled"
        return self.configuration(stream)

    def set_status(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """Set the status; `disabled` is final (CRC-7)."""
        stream = self.find(wanted.get("stream_id"))
        if wanted.get("status") not in STATUSES:
            self.violate("CRC-7", f"an unknown status was asked for: {wanted.get('status')!r}")
            raise Refused(400, "invalid_request")
        if stream.status == "disabled":
            self.violate("CRC-7", "a disabled stream was to be changed")
            raise Refused(400, "invalid_request")
        stream.status = str(wanted["status"])
        return {"stream_id": stream.stream_id, "status": stream.status}

    def find(self, stream_id: object) -> StagedStream:
        """Return the stream. Raises Refused."""
        if not stream_id:
            raise Refused(400, "invalid_request")
        if self.stream is None or stream_id != self.stream.stream_id:
            raise Refused(404, "not_found")
        return self.stream

    def configuration(self, stream: StagedStream) -> dict[str, Any]:
        """Return the configuration as the receiver is shown it (CRC-8)."""
        requested = [
            one for one in stream.wanted.get("events_requested", []) if isinstance(one, str)
        ]
        delivery = {"method": stream.method}
        poll_url = f"{self.signer.issuer}/events?stream_id={stream.stream_id}"
        pushes = stream.method == PUSH
        delivery["endpoint_url"] = str(stream.delivery["endpoint_url"]) if pushes else poll_url
        document = {
            "stream_id": stream.stream_id,
            "iss": self.signer.issuer,
            "aud": self.signer.audience,
            "events_supported": list(PAYLOADS),
            "events_requested": requested,
            "events_delivered": [one for one in requested if one in PAYLOADS],
            "delivery": delivery,
            "min_verification_interval": 1,
        }
        if stream.wanted.get("description"):
            document["description"] = stream.wanted["description"]
        return document

    # --- events ----------------------------------------------------------------------------------

    def send(self, jti: str, raw: bytes) -> None:
        """Queue a SET for the stream."""
        assert self.stream is not None  # noqa: S101 - modules send to a stream they saw made
        if len(self.stream.queue) < QUEUE_MAX:
            self.stream.queue[jti] = raw
            self.stream.sent[jti] = None
        self.wake()

    def verify(self, wanted: Mapping[str, Any]) -> None:
        """Queue a verification event with the state of the request."""
        stream = self.find(wanted.get("stream_id"))
        state = wanted.get("state")
        self.states.append(state if isinstance(state, str) else None)
        self.send(*self.signer.verification(stream.stream_id, self.states[-1]))

    def settle(self, stream: StagedStream, wanted: Mapping[str, Any]) -> None:
        """Take what a poll acknowledges and refuses."""
        acks, errors = wanted.get("ack", []), wanted.get("setErrs", {})
        if not isinstance(acks, list) or not isinstance(errors, dict):
            self.violate("POLL-3", "ack is no array or setErrs no object")
            raise Refused(400, "invalid_request")
        for jti in acks:
            if jti in stream.sent:
                stream.sent[jti] = "ack"
        for jti, error in errors.items():
            if jti in stream.sent:
                code = error.get("err") if isinstance(error, dict) else None
                stream.sent[jti] = f"error {code}"
        self.wake()

    def page(self, stream: StagedStream, most: int) -> dict[str, str]:
        """Hand out SETs; what was handed out is gone (CRC-11)."""
        if stream.status != "enabled":
            return {}
        chosen = list(stream.queue)[:most]
        return {jti: stream.queue.pop(jti).decode("latin-1") for jti in chosen}
