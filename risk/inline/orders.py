"""What follows when a context is settled, in the same transaction. Values only."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

import msgspec


class SessionLogout(msgspec.Struct, frozen=True, kw_only=True):
    """One session that is to be logged out at its apps, as it travels to the writer.

    app_ids: only there, where their policies fail; None: everywhere. context_key: of the context
    that was judged; each (session, context, app) is logged out once. of_user: not this session
    alone, but all of its user.
    """

    tenant_id: str
    user_id: str
    session_id: str
    iss: str
    sid: str
    context_key: str
    app_ids: tuple[str, ...] | None
    at: datetime
    reasons: tuple[str, ...] = ()
    trace_id: str = ""
    of_user: bool = False


class FindingMark(NamedTuple):
    """What makes two findings about one session the same: told once.

    acts: what was only watched counts when policies enforce. proven_at: when the context was proven
    before it was found; what is found since is another finding.
    """

    context_key: str
    acts: bool
    proven_at: datetime | None


class SessionFinding(msgspec.Struct, frozen=True, kw_only=True):
    """A context of a session that was found at HIGH, as it travels to the writer.

    changes: names of what changed. acts: policies enforce; else it is recorded and counts nothing.
    proven_at: when somebody proved themselves there before.
    """

    tenant_id: str
    session_id: str
    iss: str
    sid: str
    context_key: str
    at: datetime
    changes: tuple[str, ...] = ()
    trace_id: str | None = None
    acts: bool = True
    proven_at: datetime | None = None

    @property
    def mark(self) -> FindingMark:
        """What makes another one the same."""
        return FindingMark(self.context_key, self.acts, self.proven_at)


class UsedApp(msgspec.Struct, frozen=True, kw_only=True):
    """One app that a session is used for, as it travels to the writer.

    is_opened: whether it was let in. A door may have refused it.
    """

    tenant_id: str
    session_id: str
    app_id: str
    at: datetime
    is_opened: bool = False
