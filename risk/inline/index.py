"""Which sessions in memory have an id.

Ids of sessions are unique over all tenants; what is asked for is a tenant's all the same.
"""

from __future__ import annotations

from typing import TypeAlias

from risk.sessions.model import Session

#: tenant, issuer, sid
Key: TypeAlias = tuple[str, str, str]


class Index:
    """Keys of sessions by session id."""

    def __init__(self) -> None:
        self._by_id: dict[str, Key] = {}

    def of_id(self, tenant_id: str, session_id: str) -> Key | None:
        """Return the key of a session. Raises nothing."""
        key = self._by_id.get(session_id)
        return key if key is not None and key[0] == tenant_id else None

    def add(self, key: Key, session: Session) -> None:
        """Note a session."""
        self._by_id[session.session_id] = key

    def drop(self, session: Session) -> None:
        """Forget a session."""
        self._by_id.pop(session.session_id, None)
