"""The poll receiver of an application: long polls, acknowledging in the next request (RFC 8936)."""

import asyncio
import time
from typing import Any

import httpx2
import msgspec

from conformance.peers.consumer import SETConsumer
from conformance.peers.errors import KeysUnavailableError, PollFailedError
from conformance.peers.faults import FaultState
from conformance.peers.hub_client import ConnectedStream
from conformance.peers.ledger import Ledger, Outcome
from conformance.peers.options import AppOptions
from ssf.errors import SETError

EVENTS_MAX = 100
# A hub that answers "nothing" at once, for a paused stream, must not make us spin.
EMPTY_PAUSE_S = 0.1
FIRST_PAUSE_S = 0.1
PAUSE_S_MAX = 2.0
DOUBLINGS_MAX = 5
OK = 200


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A poll answer; `sets` is required, even when empty (POLL-8).

    `moreAvailable` changes nothing: the next poll follows at once anyway.
    """

    sets: dict[str, str]


class Poller:
    """One outstanding poll at a time on one stream (POLL-25)."""

    def __init__(
        self,
        *,
        client: httpx2.AsyncClient,
        consumer: SETConsumer,
        ledger: Ledger,
        fault: FaultState,
    ) -> None:
        self._client = client
        self._consumer = consumer
        self._ledger = ledger
        self._fault = fault
        self._acks: list[str] = []
        self._errors: dict[str, dict[str, str]] = {}

    async def run(self, connected: ConnectedStream, options: AppOptions) -> None:
        """Poll until cancelled; back off while polls fail, stay away while a fault is ordered."""
        failures = 0
        while True:
            if self._fault.active():
                await self._fault.wait_until_over()
                continue
            try:
                undecided = await self._poll(connected, options)
            except PollFailedError as problem:
                failures += 1
                self._ledger.record("poll.failed", Outcome.NOTED, detail=str(problem))
            else:
                failures = failures + 1 if undecided else 0
            if failures:
                await asyncio.sleep(
                    min(PAUSE_S_MAX, FIRST_PAUSE_S * 2.0 ** min(failures, DOUBLINGS_MAX))
                )

    async def _poll(self, connected: ConnectedStream, options: AppOptions) -> bool:
        """Poll once; True if a SET stayed undecided and is neither acked nor refused (SET-54)."""
        body: dict[str, Any] = {"maxEvents": EVENTS_MAX, "returnImmediately": False}
        acks, errors = list(self._acks), dict(self._errors)
        if acks:
            body["ack"] = acks
        if errors:
            body["setErrs"] = errors
        asked_at = time.monotonic()
        answer = await self._ask(connected, options, body)
        # Only now is it known that the hub has them; a lost answer means acking again (POLL-14).
        self._acks = [jti for jti in self._acks if jti not in acks]
        self._errors = {jti: why for jti, why in self._errors.items() if jti not in errors}
        if acks or errors:
            self._ledger.record("poll.acked", Outcome.NOTED, acks=acks, errors=sorted(errors))
        if not answer.sets and not acks and time.monotonic() - asked_at < EMPTY_PAUSE_S:
            await asyncio.sleep(EMPTY_PAUSE_S)
        undecided = False
        for jti, raw in answer.sets.items():
            undecided |= not await self._take(jti, raw, connected, options)
        return undecided

    async def _ask(
        self, connected: ConnectedStream, options: AppOptions, body: dict[str, Any]
    ) -> _Answer:
        headers = {
            "authorization": f"Bearer {options.hub_token}",
            "accept": "application/json",
            # POLL-18: required with setErrs, harmless without.
            "content-language": "en",
        }
        try:
            answer = await self._client.post(
                connected.stream.delivery.endpoint_url,
                json=body,
                headers=headers,
                timeout=options.poll_timeout_s,
            )
        except httpx2.HTTPError as failure:
            raise PollFailedError(type(failure).__name__) from failure
        if answer.status_code != OK:
            raise PollFailedError(f"status {answer.status_code}")
        try:
            return msgspec.json.decode(answer.content, type=_Answer)
        except msgspec.MsgspecError as cause:
            raise PollFailedError(f"the answer breaks POLL-8: {cause}") from cause

    async def _take(
        self, jti: str, raw: str, connected: ConnectedStream, options: AppOptions
    ) -> bool:
        """Consume one SET; True if it is decided."""
        try:
            token = await self._consumer.consume(raw.encode(), connected, options, by="poll")
        except SETError as problem:
            self._errors[jti] = {"err": problem.code, "description": problem.description}
            return True
        except KeysUnavailableError:
            return False
        if token.jti == jti:
            self._acks.append(jti)
        else:
            self._errors[jti] = {"err": "invalid_request", "description": "jti is another"}
        return True
