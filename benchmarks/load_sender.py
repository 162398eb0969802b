"""A vendor under load: so many SETs per second, each sent again until the hub acknowledges it.

Most SETs change nothing (password changes of one half of the people, who are well); the others, the
consequential ones, move the level of somebody of the other half between LOW and MEDIUM, which the
hub tells every stream. The next one about a subject is sent when some receiver heard of the one
before: of two that are in the inbox together the hub may rightly tell only what they come to.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
import msgspec
from jwcrypto.jwk import JWK
from jwcrypto.jws import JWS

from benchmarks.load_judge import Cause
from hub.relay.model import own_txn
from runtime.clock import SystemClock, epoch_s

CAEP: Final = "https://schemas.openid.net/secevent/caep/event-type"
ISSUER: Final = "https://vendor.load.example"
KID: Final = "load-1"
#: reports are of the past, so that the times of later ones are in the past as well
REPORTED_LATER_S: Final = 86_400
CONNECTIONS: Final = 64
ANSWER_LIMIT_S: Final = 10.0
RETRY_FIRST_S: Final = 0.05
RETRY_CEILING_S: Final = 1.0
#: beyond this the hub is not getting on, and the run is over
WAITING_MAX: Final = 50_000
TICK_S: Final = 0.02
ACCEPTED: Final = 202
#: answers that say "not now"; anything else but 202 is a fault, 500 too
LATER: Final = frozenset({429, 503})


@dataclass(slots=True, kw_only=True)
class Letter:
    """One SET on its way."""

    jti: str
    token: str
    cause: Cause | None


@dataclass(slots=True)
class SenderLedger:
    """What the hub has acknowledged, and how it answered. jtis and causes are each unique."""

    sent: int = 0
    acknowledged: set[str] = field(default_factory=set)
    causes: list[Cause] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    refused: list[str] = field(default_factory=list)


class Sender:
    """Sends at a steady rate, whatever the hub does, and never gives a SET up."""

    def __init__(
        self,
        *,
        authorization: str,
        audience: str,
        users: list[str],
        seed: int,
    ) -> None:
        """users: email addresses, known to the hub, whose level is LOW."""
        self.ledger = SenderLedger()
        #: the `txn` under which the hub tells of a cause
        self.published: dict[str, Cause] = {}
        #: where to send; known when the sender is registered
        self.url = ""
        self._headers = {
            "authorization": authorization,
            "content-type": "application/secevent+jwt",
            "accept": "application/json",
        }
        self._audience = audience
        self._users = users
        self._random = random.Random(seed)
        # Apart, so that how often something is sent again does not change what is sent.
        self._jitter = random.Random(seed)
        self._key = JWK.generate(kty="EC", crv="P-256", kid=KID, use="sig", alg="ES256")
        self._base_s = epoch_s(SystemClock().now()) - REPORTED_LATER_S
        self._numbers = [0] * len(users)
        half = len(users) // 2
        self._free = deque(self._random.sample(range(half), half))
        self._unheard: dict[Cause, None] = {}
        self._waiting: asyncio.Queue[Letter] = asyncio.Queue()
        self._under_way = 0

    @property
    def jwks(self) -> dict[str, Any]:
        """The published keys, for the provider's settings."""
        return {"keys": [msgspec.json.decode(self._key.export_public())]}

    @property
    def unacknowledged(self) -> int:
        """How many SETs wait or are on their way."""
        return self._waiting.qsize() + self._under_way

    @property
    def unheard(self) -> int:
        """How many consequential SETs no receiver has heard of yet."""
        return len(self._unheard)

    def heard(self, cause: Cause) -> None:
        """Note that a receiver heard of a cause: its subject may go on. Repeats are harmless."""
        if cause in self._unheard:
            del self._unheard[cause]
            self._free.append(cause.subject)

    async def run(
        self, *, rate_per_s: float, consequential_per_s: float, stop: asyncio.Event
    ) -> None:
        """Send until `stop` is set and everything is acknowledged. Cancel it to give up.

        Raises RuntimeError when more than WAITING_MAX SETs wait.
        """
        connector = aiohttp.TCPConnector(limit=CONNECTIONS)
        timeout = aiohttp.ClientTimeout(total=ANSWER_LIMIT_S)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            asyncio.TaskGroup() as group,
        ):
            workers = [group.create_task(self._work(session)) for _ in range(CONNECTIONS)]
            await self._keep_pace(rate_per_s, consequential_per_s, stop)
            await self._waiting.join()
            for worker in workers:
                worker.cancel()

    async def _keep_pace(
        self, rate_per_s: float, consequential_per_s: float, stop: asyncio.Event
    ) -> None:
        began = time.monotonic()
        while not stop.is_set():
            due = int((time.monotonic() - began) * rate_per_s)
            while self.ledger.sent < due:
                is_consequential = self._random.random() < consequential_per_s / rate_per_s
                self._waiting.put_nowait(self._write(is_consequential=is_consequential))
                self.ledger.sent += 1
            if self._waiting.qsize() > WAITING_MAX:
                raise RuntimeError(f"{WAITING_MAX} SETs wait: the hub does not take them")
            await asyncio.sleep(TICK_S)

    def _write(self, *, is_consequential: bool) -> Letter:
        if is_consequential and self._free:
            subject = self._free.popleft()
            self._numbers[subject] += 1
            cause = Cause(subject, self._numbers[subject])
            self._unheard[cause] = None
            self.published[own_txn("default", ISSUER, cause.txn)] = cause
            levels = ("LOW", "MEDIUM") if cause.number % 2 else ("MEDIUM", "LOW")
            event = {"principal": "USER", "previous_level": levels[0], "current_level": levels[1]}
            return self._sign("risk-level-change", event, subject, cause)
        event = {"credential_type": "password", "change_type": "update"}
        subject = self._random.randrange(len(self._users) // 2, len(self._users))
        return self._sign("credential-change", event, subject, None)

    def _sign(
        self, kind: str, event: Mapping[str, object], subject: int, cause: Cause | None
    ) -> Letter:
        jti = cause.txn if cause else f"b-{self.ledger.sent}"
        happened_s = self._base_s + (cause.number if cause else 0)
        claims = {
            "iss": ISSUER,
            "aud": self._audience,
            "iat": epoch_s(SystemClock().now()),
            "jti": jti,
            "txn": jti,
            "sub_id": {"format": "email", "email": self._users[subject]},
            "events": {f"{CAEP}/{kind}": {**event, "event_timestamp": happened_s}},
        }
        jws = JWS(msgspec.json.encode(claims))
        header = {"alg": "ES256", "typ": "secevent+jwt", "kid": KID}
        jws.add_signature(self._key, None, msgspec.json.encode(header).decode())
        return Letter(jti=jti, token=jws.serialize(compact=True), cause=cause)

    async def _work(self, session: aiohttp.ClientSession) -> None:
        while True:
            letter = await self._waiting.get()
            self._under_way += 1
            try:
                await self._deliver(session, letter)
            finally:
                self._under_way -= 1
                self._waiting.task_done()

    async def _deliver(self, session: aiohttp.ClientSession, letter: Letter) -> None:
        pause_s = RETRY_FIRST_S
        while True:
            status, text = await self._post(session, letter.token)
            self.ledger.answers[str(status) if status else text] += 1
            if status == ACCEPTED:
                self.ledger.acknowledged.add(letter.jti)
                if letter.cause:
                    self.ledger.causes.append(letter.cause)
                return
            if status and status not in LATER:
                self.ledger.refused.append(f"{letter.jti} was answered {status}: {text}")
                return
            await asyncio.sleep(pause_s * self._jitter.uniform(0.5, 1.0))
            pause_s = min(2 * pause_s, RETRY_CEILING_S)

    async def _post(self, session: aiohttp.ClientSession, token: str) -> tuple[int, str]:
        """Send once; status 0 and the reason when no answer came."""
        try:
            async with session.post(self.url, data=token, headers=self._headers) as answer:
                return answer.status, await answer.text()
        except (aiohttp.ClientError, TimeoutError) as failure:
            return 0, type(failure).__name__
