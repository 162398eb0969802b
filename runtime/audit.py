"""What the audit is to say of a write, for parts that write but do not keep the audit."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from sqlalchemy.ext.asyncio import AsyncConnection


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditNote:
    """What an audit entry is to say: who did what to which object. detail: no secrets."""

    tenant_id: str
    actor: str
    action: str
    ref: str
    detail: dict[str, Any]


class AddAudit(Protocol):
    """Appends one entry, in the transaction of the write itself."""

    async def __call__(
        self, connection: AsyncConnection, note: AuditNote, /, *, now: datetime
    ) -> None:
        """Append it. A tenant's entries are chained, so its writers wait for each other here.

        Call it before any other lock of the transaction is taken: everybody does.
        """
        ...
