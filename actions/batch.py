"""Collecting what a batch of decisions changes, and the guard that counts them.

A batch may hold decisions about many users; each table is written once for all of them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Self

from actions import store
from actions.drafts import Situation
from actions.model import GUARD_WINDOW, Cause, Containment, Task, containments_max
from actions.planning import Decision
from actions.settlement import note_changed, task_of
from actions.store import Connection, Key
from actions.tasks import store as task_store


class Guard:
    """Counts users per tenant against the blast-radius limit (contracts §6).

    INVARIANT: whoever is contained and whoever has a session logged out are counted together, in
    either order, each once.
    """

    def __init__(self, touched: dict[str, set[str]], user_counts: Mapping[str, int]) -> None:
        """touched: by tenant, the users of late. user_counts: all users of a tenant."""
        self._touched = touched
        self._user_counts = user_counts

    @classmethod
    async def of(
        cls,
        connection: Connection,
        tenant_ids: Collection[str],
        *,
        user_counts: Mapping[str, int],
        now: datetime,
    ) -> Self:
        """Return the guard as it stands now. The caller has locked the tenants."""
        since = now - GUARD_WINDOW
        touched = {
            tenant_id: await store.users_touched(connection, tenant_id, since=since)
            for tenant_id in sorted(tenant_ids)
        }
        return cls(touched, user_counts)

    def admits(self, tenant_id: str, user_id: str) -> bool:
        """Return whether something may be taken away from this user now."""
        touched = self._touched.get(tenant_id, frozenset[str]())
        limit = containments_max(self._user_counts.get(tenant_id, 0))
        return user_id in touched or len(touched) < limit

    def note(self, key: Key, decision: Decision, before: Situation | None) -> None:
        """Count a user, by (tenant_id, user_id), whom a decision newly contained."""
        was = before.containment.enforced_at if before else None
        after = decision.containment
        if after is not None and after.enforced_at is not None and was is None:
            self.count(*key)

    def count(self, tenant_id: str, user_id: str) -> None:
        """Count a user from whom something is taken away."""
        self._touched.setdefault(tenant_id, set()).add(user_id)


@dataclass(slots=True, kw_only=True)
class Changes:
    """Collects the rows of a batch, so that each table is written once."""

    known: Collection[Key]
    containments: list[Containment] = field(default_factory=list)
    attached: list[tuple[Key, Cause]] = field(default_factory=list)
    cleared: list[tuple[Key, str]] = field(default_factory=list)
    cancelled: list[Key] = field(default_factory=list)
    tasks: list[Task] = field(default_factory=list)

    def add(self, decision: Decision, *, now: datetime) -> int:
        """Note what a decision changes; return how many tasks it enqueues."""
        containment = decision.containment
        if containment is None:
            return 0
        key = key_of(containment)
        self.containments.append(containment)
        self.attached += [(key, cause) for cause in decision.attached]
        self.cleared += [(key, detection_id) for detection_id in decision.cleared]
        self.cancelled += [(containment.tenant_id, task_id) for task_id in decision.cancelled]
        self.tasks += [task_of(draft, containment, now=now) for draft in decision.drafts]
        return len(decision.drafts)

    async def write(self, connection: Connection, *, now: datetime) -> None:
        """Write everything, in an order that keeps references whole."""
        await store.write_containments(connection, self.containments, known=self.known)
        await store.write_causes(connection, attached=self.attached, cleared=self.cleared, now=now)
        await task_store.cancel_tasks(connection, self.cancelled, now=now)
        await task_store.add_tasks(connection, self.tasks)
        await note_changed(connection, self.containments)


def key_of(containment: Containment) -> Key:
    """Return (tenant_id, containment_id)."""
    return (containment.tenant_id, containment.containment_id)
