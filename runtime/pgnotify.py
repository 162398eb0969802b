"""Wake-ups between nodes on PostgreSQL: LISTEN and NOTIFY on a connection of their own.

NOTIFY takes a lock at commit that serialises transactions, so it never runs inside one of ours:
topics are collected for a few milliseconds and sent alone (contracts §3).
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import asyncpg
import sqlalchemy as sa
import structlog

from runtime import ids
from runtime.notify import TOPICS, Notifier

CHANNEL: Final = "signalhub"
COALESCE_S: Final = 0.005
RECONNECT_S: Final = 0.5

log = structlog.get_logger()


class PostgreSQLBridge:
    """Passes this process's wake-ups to the other processes of the database, and theirs to it."""

    def __init__(self, url: str, notifier: Notifier) -> None:
        self._dsn = (
            sa.make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
        )
        self._notifier = notifier
        self._me = ids.new_ulid()
        self._outgoing: set[str] = set()
        self._something_to_send = asyncio.Event()
        notifier.forward_to(self._collect)

    def _collect(self, topic: str) -> None:
        self._outgoing.add(topic)
        self._something_to_send.set()

    async def run(self) -> None:
        """Keep listening and sending until cancelled; reconnect after trouble."""
        while True:
            try:
                await self._session()
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
                log.warning("notify.lost", channel=CHANNEL)
            await asyncio.sleep(RECONNECT_S)

    async def _session(self) -> None:
        connection = await asyncpg.connect(self._dsn, timeout=10)
        try:
            # A connection that breaks is noticed at once, not at the next thing to send.
            connection.add_termination_listener(lambda _: self._something_to_send.set())
            await connection.add_listener(CHANNEL, self._heard)
            # Whatever was said while nobody listened is unknown: everybody looks again.
            for topic in TOPICS:
                self._notifier.deliver(topic)
            while True:
                await self._something_to_send.wait()
                if connection.is_closed():
                    raise ConnectionResetError("the server closed the connection")
                await asyncio.sleep(COALESCE_S)
                self._something_to_send.clear()
                topics, self._outgoing = sorted(self._outgoing), set()
                message = f"{self._me} {' '.join(topics)}"
                await connection.execute("SELECT pg_notify($1, $2)", CHANNEL, message)
        finally:
            await connection.close(timeout=2)

    def _heard(self, _connection: Any, _pid: int, _channel: str, payload: str) -> None:
        sender, *topics = payload.split()
        if sender == self._me:
            return
        for topic in TOPICS.intersection(topics):
            self._notifier.deliver(topic)
