"""One admin write: the change, its audit entry and its kept answer, in one transaction.

What a kind of object does opens transactions of its own; here they join the outer one, so that
nothing can be changed without leaving an audit entry, whenever the process dies.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import override

from hub import store
from hub.admin.bodies import Body
from hub.admin.context import Admin
from hub.admin.idempotency import find_answer, keep_answer, request_key
from runtime.audit import AuditNote
from runtime.database import Database, serialize
from runtime.deadlocks import repeated
from runtime.notify import TOPICS

REF_CHARACTERS_MAX: Final = 255
#: what a request may carry that nobody may read again
_SECRETS: Final = frozenset(
    {
        "authorization_header",
        "introspection_secret",
        "scim_token",
        "secret",
        "token",
        "webhook_secrets",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What was done: the answer to give, and what the audit is to say of it."""

    response: Response
    action: str
    ref: str
    body: Body | None


class JoinedDatabase(Database):
    """The database as it is inside one open transaction: what begins here is part of it."""

    def __init__(self, outer: Database, connection: AsyncConnection) -> None:
        super().__init__(outer.engine)
        self._connection = connection

    @override
    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """Yield the open transaction's connection, inside a savepoint."""
        async with self._connection.begin_nested():
            yield self._connection

    @override
    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[AsyncConnection]:
        """Yield the open transaction's connection: it sees what the transaction wrote."""
        yield self._connection


async def write(
    request: Request, admin: Admin, perform: Callable[[Admin], Awaitable[Written]]
) -> Response:
    """Run one admin write and answer it; a refusal undoes all of it.

    A tenant's admin writes happen one after the other: `If-Match` compares with what nobody can
    change meanwhile, and the audit chain has one end. Raises what `perform` raises, and Conflict
    for an Idempotency-Key that came with another request.
    """
    key = await request_key(request) if request.method == "POST" else None
    response = await repeated(partial(_write, admin, perform, key))
    # After the commit: whoever was woken inside the transaction has not seen it yet.
    admin.node.notifier.wake_all(sorted(TOPICS))
    return response


async def _write(
    admin: Admin, perform: Callable[[Admin], Awaitable[Written]], key: tuple[str, str] | None
) -> Response:
    async with admin.node.database.transaction() as connection:
        await serialize(connection, "audit", admin.tenant_id)
        if key is not None:
            answered = await find_answer(connection, admin, key)
            if answered is not None:
                return answered
        joined = JoinedDatabase(admin.node.database, connection)
        written = await perform(replace(admin, node=replace(admin.node, database=joined)))
        await store.add_audit(connection, _note(admin, written), now=admin.now)
        if key is not None:
            await keep_answer(connection, admin, key, written.response)
    return written.response


async def write_note(admin: Admin, written: Written) -> None:
    """Audit what is about to be done outside of any transaction."""
    async with admin.node.database.transaction() as connection:
        await serialize(connection, "audit", admin.tenant_id)
        await store.add_audit(connection, _note(admin, written), now=admin.now)


def _note(admin: Admin, written: Written) -> AuditNote:
    body = written.body
    return AuditNote(
        tenant_id=admin.tenant_id,
        actor=admin.caller.client_id,
        action=written.action,
        ref=written.ref[:REF_CHARACTERS_MAX],
        detail=masked(body.model_dump(mode="json", exclude_unset=True)) if body else {},
    )


def masked(value: Any) -> Any:
    """Return a JSON document in which every secret is `***`. Raises nothing."""
    if isinstance(value, dict):
        return {
            name: "***" if name in _SECRETS and inner else masked(inner)
            for name, inner in value.items()
        }
    if isinstance(value, list):
        return [masked(inner) for inner in value]
    return value
