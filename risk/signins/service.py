"""Use cases of sign-ins: keep them, at once or soon; forget the old."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import structlog
from prometheus_client import Counter

from risk.signins import store
from risk.signins.failures import WINDOW
from risk.signins.model import SignInRecord
from risk.sql.store import Connection
from runtime.behind import WriteBehind
from runtime.writer import Operation, Writer

#: how long sign-ins are kept
LIFE: Final = timedelta(days=90)

log = structlog.get_logger()
_lost_total = Counter("hub_risk_sign_ins_lost_total", "Allowed sign-ins that could not be kept.")


async def record_sign_ins(connection: Connection, items: Sequence[SignInRecord]) -> list[bool]:
    """Keep sign-ins of any tenants."""
    await store.write_sign_ins(connection, items)
    return [True] * len(items)


async def purge(connection: Connection, *, now: datetime) -> int:
    """Forget old sign-ins and counts of failures, a bounded number; return how many."""
    counts = await store.system_purge_tallies(connection, before=now - WINDOW)
    return counts + await store.system_purge_sign_ins(connection, before=now - LIFE)


RECORD_SIGN_IN: Final = Operation(
    name="risk.record_sign_in", item=SignInRecord, result=bool, handle=record_sign_ins
)


class SignInLog(WriteBehind[SignInRecord, bool]):
    """Sign-ins: those that were allowed are noted, and written behind the answer."""

    def __init__(
        self, writer: Writer, operation: Operation[SignInRecord, bool] = RECORD_SIGN_IN
    ) -> None:
        """operation: keeps a sign-in, and may draw conclusions from it."""
        self._writer, self._operation = writer, operation
        super().__init__(self.write, lost=_lost_total, warn=_warn)

    async def write(self, record: SignInRecord) -> bool:
        """Keep a sign-in; return after the commit. Raises Refused, Unavailable."""
        return await self._writer.submit(self._operation, record)


def _warn(count: int, error: str) -> None:
    log.warning("sign_ins.lost", count=count, error=error)
