"""The sessions of a peer. A session ends at most once: the effect that fault tests count."""

import secrets
from dataclasses import dataclass, replace

from conformance.peers.clock import now_s, timestamp
from conformance.peers.ledger import Ledger, Outcome
from conformance.peers.people import Selection, User

SESSIONS_MAX = 200_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A session of a user on a device. idp_sid: the session at the IdP it was born from."""

    sid: str
    user_id: str
    device: str | None
    idp_sid: str | None
    started_at_s: float
    ended_at_s: float | None = None
    ended_by: str | None = None

    def render(self) -> dict[str, object]:
        """Render for GET /sessions."""
        return {
            "sid": self.sid,
            "user": self.user_id,
            "device": self.device,
            "idp_sid": self.idp_sid,
            "started_at": timestamp(self.started_at_s),
            "alive": self.ended_at_s is None,
            "ended_at": None if self.ended_at_s is None else timestamp(self.ended_at_s),
            "ended_by": self.ended_by,
        }


class SessionBook:
    """All sessions of one peer."""

    def __init__(self, ledger: Ledger) -> None:
        self._sessions: dict[str, Session] = {}
        self._ledger = ledger

    def open(
        self, user: User, device: str | None, *, sid: str | None = None, idp_sid: str | None = None
    ) -> Session:
        """Open a session. Raises ValueError for a used sid, or when the book is full."""
        sid = sid or f"sid-{secrets.token_hex(8)}"
        if sid in self._sessions:
            raise ValueError("this sid is taken")
        if len(self._sessions) >= SESSIONS_MAX:
            raise ValueError("too many sessions")
        session = Session(
            sid=sid, user_id=user.user_id, device=device, idp_sid=idp_sid, started_at_s=now_s()
        )
        self._sessions[sid] = session
        self._ledger.record(
            "session.opened", Outcome.NOTED, sid=sid, user=user.user_id, device=device
        )
        return session

    def get(self, sid: str) -> Session | None:
        """Find a session, alive or ended."""
        return self._sessions.get(sid)

    def matching(self, selection: Selection, *, alive: bool = True) -> list[Session]:
        """List the sessions that match all of a selection together; alive ones only, or all."""
        return [
            session
            for session in self._sessions.values()
            if (session.ended_at_s is None or not alive) and _matches(session, selection)
        ]

    def end(
        self,
        selection: Selection,
        *,
        by: str,
        request_id: str | None,
        started_until_s: float = float("inf"),
    ) -> int:
        """End every live session of a selection and write each to the ledger.

        started_until_s: leave sessions alone that started later. Returns how many ended: 0 when
        there was nothing left to do.
        """
        ended = [
            session
            for session in self.matching(selection)
            # An event's time has whole seconds; a session of the same second is not newer.
            if int(session.started_at_s) <= started_until_s
        ]
        for session in ended:
            self._sessions[session.sid] = replace(session, ended_at_s=now_s(), ended_by=by)
            self._ledger.record(
                "session.ended",
                Outcome.EFFECT,
                request_id=request_id,
                sid=session.sid,
                user=session.user_id,
                device=session.device,
                by=by,
            )
        return len(ended)


def _matches(session: Session, selection: Selection) -> bool:
    return (
        (selection.user_ids is None or session.user_id in selection.user_ids)
        and (selection.device_ids is None or session.device in selection.device_ids)
        and (
            selection.session_ids is None
            or session.sid in selection.session_ids
            or session.idp_sid in selection.session_ids
        )
    )
