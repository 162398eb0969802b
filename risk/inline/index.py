"""Which sessions in memory have an id, or are of a user or on a device.

Ids of sessions, users and devices are unique over all tenants; what is asked for is a tenant's all
the same.
"""

from __future__ import annotations

from typing import TypeAlias

from risk.sessions.model import Session

#: tenant, issuer, sid
Key: TypeAlias = tuple[str, str, str]


class Index:
    """Keys of sessions by session id and by entity. Most entities have one session."""

    def __init__(self) -> None:
        self._by_id: dict[str, Key] = {}
        self._by_entity: dict[str, Key | set[Key]] = {}

    def of_id(self, tenant_id: str, session_id: str) -> Key | None:
        """Return the key of a session. Raises nothing."""
        key = self._by_id.get(session_id)
        return key if key is not None and key[0] == tenant_id else None

    def of_entity(self, tenant_id: str, entity_id: str) -> list[Key]:
        """Return the keys of the sessions of a user, or on a device. Raises nothing."""
        found = self._by_entity.get(entity_id, set())
        keys = found if isinstance(found, set) else {found}
        return sorted(key for key in keys if key[0] == tenant_id)

    def add(self, key: Key, session: Session) -> None:
        """Note a session."""
        self._by_id[session.session_id] = key
        for entity_id in _entities(session):
            known = self._by_entity.setdefault(entity_id, key)
            if isinstance(known, set):
                known.add(key)
            elif known != key:
                self._by_entity[entity_id] = {known, key}

    def drop(self, key: Key, session: Session) -> None:
        """Forget a session."""
        self._by_id.pop(session.session_id, None)
        for entity_id in _entities(session):
            known = self._by_entity.get(entity_id)
            if isinstance(known, set):
                known.discard(key)
            if not known or known == key:
                self._by_entity.pop(entity_id, None)


def _entities(session: Session) -> tuple[str, ...]:
    return (session.user_id, session.device_id) if session.device_id else (session.user_id,)
