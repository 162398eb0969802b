"""Says of users what their sign-ins give reason to: findings become signals of the hub's own."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from hub.node import Node
from hub.sign_ins.finding import signal_of
from hub.sign_ins.model import Asked, Judged
from receivers.store import ACCEPT
from risk.entities import service as entities
from risk.signins.detections import Found, found_by, guessed
from risk.signins.failures import Failures
from risk.signins.model import Outcome

#: attacks this process remembers to have told; one told twice is a duplicate in the inbox
TOLD_MAX: Final = 10_000


class Telling:
    """Tells of users, for one process."""

    def __init__(self, node: Node, failures: Failures) -> None:
        self._node = node
        self._failures = failures
        self._told: OrderedDict[str, None] = OrderedDict()

    async def succeeded(self, asked: Asked, judged: Judged, now: datetime) -> None:
        """Say what a good sign-in says of its user; return after the commit.

        Raises Unavailable and database errors.
        """
        found = found_by(
            judged.view,
            action=asked.question.action,
            ip_level=judged.ip_level,
            of_idp=asked.of_idp,
            now=now,
        )
        told = [(each, f"{judged.trace_id}:{each.name}") for each in found]
        await self._tell(asked, judged, told, now)

    async def guessed(self, asked: Asked, judged: Judged, now: datetime) -> None:
        """Say that somebody guesses at a user's credentials, once an hour; after the commit.

        Raises Unavailable and database errors.
        """
        place = judged.place(asked)
        failed = await self._failures.of_user(asked.tenant_id, asked.reference, place, now)
        outcome = asked.question.outcome
        found = guessed(failed, is_right=outcome is Outcome.SUCCESS)
        # A device does not guess: whoever guesses says another one each time, or the user's own.
        if found is None or not place.is_address:
            return
        by = hashlib.sha256(f"{asked.tenant_id}\n{asked.reference}\n{place.name}".encode())
        jti = f"{found.name}:{by.hexdigest()[:32]}:{outcome}:{now:%Y%m%d%H}"
        if jti in self._told:
            return
        if not await self._tell(asked, judged, [(found, jti)], now):
            return
        self._told[jti] = None
        if len(self._told) > TOLD_MAX:
            self._told.popitem(last=False)

    async def _tell(
        self, asked: Asked, judged: Judged, found: Sequence[tuple[Found, str]], now: datetime
    ) -> bool:
        """Put findings, each with its `jti`, into the inbox; return whether they are there.

        Of nobody the hub knows nothing.
        """
        user_id = min(asked.user_ids, default=None)
        if not found or user_id is None:
            return False
        async with self._node.database.snapshot() as connection:
            named = (await entities.view(connection, asked.tenant_id, user_id)).identifiers
        for each, jti in found if named else ():
            signal = signal_of(
                each,
                tenant_id=asked.tenant_id,
                subject=named[0],
                trace_id=judged.trace_id,
                jti=jti,
                mode=judged.verdict.mode,
                now=now,
            )
            await self._node.writer.submit(ACCEPT, signal)
        return bool(named)
