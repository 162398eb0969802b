"""The receiver under test as a transmitter sees it, and how it is to be tested."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from conformance.suite.checks import Verdict
from conformance.suite.http import Answer, Asker, Trust
from conformance.suite.receiver.server import StageServer
from conformance.suite.receiver.sets import Signer
from conformance.suite.receiver.stage import Stage
from ssf.push import SECEVENT_MEDIA_TYPE

ACCEPTED: Final = 202
UNAVAILABLE: Final = 503
RETRY_PAUSE_S: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the operator said. push_url: None when the receiver's stream client is tested.

    audience: the `aud` of our SETs. authorization: the whole header value the receiver expects.
    step_command: runs the operator's steps. hold_s: of a poll that waits. flood: how many SETs with
    unknown keys to send.
    """

    push_url: str | None
    audience: str
    authorization: str | None = field(default=None, repr=False)
    issuer: str | None = None
    host: str = "127.0.0.1"
    port: int = 0
    public_url: str | None = None
    certificate: Path | None = None
    key: Path | None = None
    trust: Trust = field(default_factory=Trust)
    step_command: str | None = None
    interop: bool = False
    hold_s: float = 10.0
    step_s: float = 60.0
    request_s: float = 15.0
    check_s: float = 300.0
    only: frozenset[str] = frozenset()


class Receiver:
    """The party under test with the stage we play on."""

    def __init__(self, options: Options, asker: Asker, server: StageServer, signer: Signer) -> None:
        self.options = options
        self.asker = asker
        self.server = server
        self.signer = signer

    @property
    def stage(self) -> Stage:
        """The transmitter we play."""
        return self.server.stage

    async def push(
        self,
        raw: bytes,
        *,
        authorization: str | None = None,
        media_type: str = SECEVENT_MEDIA_TYPE,
        headers: Mapping[str, str] | None = None,
        method: str = "POST",
    ) -> Answer:
        """Push one SET with the header that was agreed on, or another one. Raises AskError.

        authorization: empty for none at all. No Accept is sent, as the OpenID suite does (CRC-12).
        """
        value = self.options.authorization if authorization is None else authorization
        sent = {"content-type": media_type, "accept": "", **(headers or {})}
        if value:
            sent["authorization"] = value
        url = self.options.push_url or ""
        return await self.asker.ask(method, url, body=raw, headers=sent)

    async def push_until_decided(self, raw: bytes) -> Answer:
        """Push one SET again while the receiver says it cannot decide now. Raises AskError."""
        ends_s = time.monotonic() + self.options.step_s
        while True:
            answer = await self.push(raw)
            if answer.status != UNAVAILABLE or time.monotonic() > ends_s:
                return answer
            after = answer.headers.get("retry-after", "")
            pause_s = float(after) if after.isdigit() else RETRY_PAUSE_S
            await asyncio.sleep(min(max(pause_s, RETRY_PAUSE_S), self.options.step_s))


def accepted(v: Verdict, answer: Answer, *requirement_ids: str, what: str) -> bool:
    """Demand 202 with an empty body."""
    ok = answer.status == ACCEPTED and not answer.body
    return v.must(ok, *requirement_ids, told=f"{what}: 202 with an empty body: {answer.told()}")
