"""Sessions and what may be said about them. Pure rules."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from risk.entities.model import parse_identifiers, parse_reference
from risk.sessions import anchor
from runtime.errors import Conflict, Invalid, NotFound, Refused
from ssf.errors import SubjectError
from ssf.subject import SimpleSubject, opaque, render_subject

#: both are part of the primary key, which PostgreSQL bounds in bytes
ISS_BYTES_MAX: Final = 1024
SID_BYTES_MAX: Final = 512
TEXT_CHARS_MAX: Final = 200
AMR_MAX: Final = 20
_COOKIE_SHA256: Final = re.compile(r"[0-9a-f]{64}")
#: what the change feed calls sessions; refs are session ids
SESSIONS_KIND: Final = "sessions"
EPOCH_S_MAX: Final = 253_402_300_799


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One session in the index. expires_at, ended_at: None while unknown or live.

    auth_time: when the user last proved themselves, None when nobody said so. binding: the public
    key (JWK) that requests of the session prove to hold, None without.
    """

    tenant_id: str
    iss: str
    sid: str
    session_id: str
    user_id: str
    device_id: str | None
    app_id: str | None
    client: str | None
    amr: tuple[str, ...]
    acr: str | None
    started_at: datetime
    expires_at: datetime | None
    ended_at: datetime | None
    cookie_sha256: str | None
    created_at: datetime
    updated_at: datetime
    auth_time: datetime | None = None
    binding: dict[str, str] | None = None

    @property
    def mark(self) -> tuple[datetime | str | None, ...]:
        """What differs after each writing of the session: see `risk.sessions.store.marks_of`."""
        return (
            self.updated_at,
            self.started_at,
            self.expires_at,
            self.ended_at,
            self.user_id,
            self.device_id,
        )

    @property
    def ends_at(self) -> datetime | None:
        """When it is over, None if that is not known."""
        return self.ended_at or self.expires_at

    def is_live(self, now: datetime) -> bool:
        """Return whether the session is on at `now`."""
        ends_at = self.ends_at
        return ends_at is None or ends_at > now


class PutSession(msgspec.Struct, frozen=True, kw_only=True):
    """One wanted session, as it travels to the writer. Made by `parse_session`.

    user, device: a reference, or subject identifiers of one principal as JSON objects.
    now: when it was asked for. context: where the user proved themselves, as stored contexts are.
    told_by: the client that says all this. vouches: whether it may say of the user's factors what
    remedies findings: identity providers may, apps speak for their own session alone.
    """

    tenant_id: str
    iss: str
    sid: str
    user: str | list[dict[str, object]]
    device: str | list[dict[str, object]] | None
    started_at: datetime
    now: datetime
    app: str | None = None
    client: str | None = None
    amr: tuple[str, ...] = ()
    acr: str | None = None
    expires_at: datetime | None = None
    cookie_sha256: str | None = None
    auth_time: datetime | None = None
    binding: dict[str, str] | None = None
    context: dict[str, Any] | None = None
    told_by: str = ""
    vouches: bool = True


class PutSessionResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of it. refusal: "" or a key of `REFUSALS`; then all else is empty.

    new_alias_keys: names nobody had before; signals about them can be assessed now. proven: the
    user proved themselves since the proof that was known.
    """

    refusal: str = ""
    session_id: str = ""
    user_id: str = ""
    device_id: str | None = None
    created: bool = False
    proven: bool = False
    new_alias_keys: tuple[str, ...] = ()


class EndSession(msgspec.Struct, frozen=True, kw_only=True):
    """The session is over at `at`."""

    tenant_id: str
    iss: str
    sid: str
    at: datetime


REFUSALS: Final[Mapping[str, Refused]] = {
    "unknown_user": NotFound("No such user."),
    "unknown_device": NotFound("No such device."),
    "other_user": Conflict("This session belongs to another user."),
    "ended": Conflict("This session has ended; a new one needs a later started_at."),
}


def put(known: Session | None, wanted: Session) -> Session | str:
    """Return the session to store, or why not (a key of REFUSALS). Raises nothing.

    A session never changes its user. One that ended stays ended, unless it begins anew, and then
    with its own proof.
    """
    if known is None:
        return wanted
    if known.ended_at is not None:
        if wanted.started_at <= known.ended_at:
            return "ended"
        return wanted
    if known.user_id != wanted.user_id:
        return "other_user"
    proven = with_proof(known, auth_time=wanted.auth_time, acr=wanted.acr, amr=wanted.amr)
    return replace(
        wanted,
        session_id=known.session_id,
        device_id=wanted.device_id or known.device_id,
        started_at=min(known.started_at, wanted.started_at),
        created_at=known.created_at,
        auth_time=proven.auth_time,
        acr=proven.acr,
        amr=proven.amr,
        binding=wanted.binding or known.binding,
    )


def with_proof(
    known: Session, *, auth_time: datetime | None, acr: str | None, amr: tuple[str, ...]
) -> Session:
    """Return a session with what is said of its user's last proof. Raises nothing.

    INVARIANT: while it is the same session, a proof is replaced by no older one: what comes late,
    or does not say of when it is, takes nothing from a newer one.
    """
    newest = known.auth_time
    if newest is None:
        return replace(known, auth_time=auth_time, acr=acr, amr=amr)
    if auth_time is None or auth_time < _second_of(newest):
        return known
    if auth_time <= newest:
        return replace(known, acr=acr or known.acr, amr=amr or known.amr)
    return replace(known, auth_time=auth_time, acr=acr, amr=amr)


def result_of(
    before: Session | None, after: Session, item: PutSession, new_alias_keys: tuple[str, ...]
) -> PutSessionResult:
    """Return what became of an item that was not refused. Raises nothing."""
    is_same = before is not None and before.session_id == after.session_id
    return PutSessionResult(
        session_id=after.session_id,
        user_id=after.user_id,
        device_id=after.device_id,
        created=not is_same,
        proven=before is not None and is_same and _is_proven_since(before, item.auth_time),
        new_alias_keys=new_alias_keys,
    )


def _is_proven_since(known: Session, auth_time: datetime | None) -> bool:
    """Return whether somebody proved themselves since the last proof of a session that is known.

    Without one that is its sign-in, when it began at the latest. Identity providers say with every
    refresh when the user signed in, and whoever holds the cookie can cause one.
    """
    last = known.auth_time or known.started_at
    return auth_time is not None and _second_of(auth_time) > _second_of(last)


def _second_of(moment: datetime) -> datetime:
    """Return a moment as an `auth_time` says it: without fractions (OpenID Connect Core 2)."""
    return moment.replace(microsecond=0)


def is_news(before: Session | None, after: Session) -> bool:
    """Return whether whoever holds the session in memory has to hear of it. Raises nothing.

    A refresh that only moves the end is none: a session that seems over is read again anyway.
    """
    if before is None:
        return False
    unmoved = replace(
        after, updated_at=before.updated_at, expires_at=before.expires_at, client=before.client
    )
    return before != unmoved


def session_key(subject: SimpleSubject, issuer: str) -> tuple[str, str] | None:
    """Return (issuer, sid) that a session identifier names; issuer: who says so.

    opaque ids are the issuer's own. Raises nothing.
    """
    if subject.format == "opaque":
        return issuer, subject.get("id") or ""
    if subject.format == "iss_sub":
        return subject.get("iss") or "", subject.get("sub") or ""
    return None


def check_key(iss: str, sid: str) -> None:
    """Check issuer and sid of a session. Raises Invalid."""
    for at, text, bytes_max in (("/iss", iss, ISS_BYTES_MAX), ("/sid", sid, SID_BYTES_MAX)):
        if not text or not text.isprintable() or len(text.encode()) > bytes_max:
            raise Invalid(
                f"{at[1:]} is 1 to {bytes_max} bytes of printable text.",
                pointers=((at, f"1 to {bytes_max} bytes of printable text"),),
            )


def parse_session(body: object, *, tenant_id: str, iss: str, sid: str, now: datetime) -> PutSession:
    """Read the body of `PUT /v1/sessions/{sid}`. Raises Invalid with pointers.

    `{user, device?, app?, client?, amr?, acr?, started_at?, expires_at?, cookie_sha256?,
    auth_time?, binding?, context?}`; times are seconds since 1970 or RFC 3339; user is a reference
    or a subject identifier; device is an opaque id or a subject identifier; binding and context are
    read by `risk.sessions.anchor`. Unknown members are ignored.
    """
    if not isinstance(body, dict):
        raise _invalid("", "an object")
    check_key(iss, sid)
    started_at = parse_moment(body.get("started_at"), "/started_at") or now
    expires_at = parse_moment(body.get("expires_at"), "/expires_at")
    if expires_at is not None and expires_at <= started_at:
        raise _invalid("/expires_at", "later than started_at")
    auth_time = parse_moment(body.get("auth_time"), "/auth_time")
    cookie_sha256 = body.get("cookie_sha256")
    if cookie_sha256 is not None and not (
        isinstance(cookie_sha256, str) and _COOKIE_SHA256.fullmatch(cookie_sha256)
    ):
        raise _invalid("/cookie_sha256", "64 lower-case hexadecimal digits")
    return PutSession(
        tenant_id=tenant_id,
        iss=iss,
        sid=sid,
        user=_user(body.get("user")),
        device=_device(body.get("device")),
        # A session cannot begin later than it is reported.
        started_at=min(started_at, now),
        now=now,
        app=_text(body.get("app"), "/app"),
        client=_text(body.get("client"), "/client"),
        amr=_amr(body.get("amr")),
        acr=_text(body.get("acr"), "/acr"),
        expires_at=expires_at,
        cookie_sha256=cookie_sha256,
        auth_time=None if auth_time is None else min(auth_time, now),
        binding=anchor.parse_binding(body.get("binding")),
        context=anchor.parse_context(body.get("context")),
    )


def render_session(session: Session, now: datetime) -> dict[str, object]:
    """Render a session as JSON; the cookie hash stays inside. Raises nothing."""
    rendered: dict[str, object | None] = {
        "sid": session.sid,
        "iss": session.iss,
        "session_id": session.session_id,
        "user_id": session.user_id,
        "device_id": session.device_id,
        "app": session.app_id,
        "client": session.client,
        "amr": list(session.amr) or None,
        "acr": session.acr,
        "started_at": session.started_at.isoformat(),
        "expires_at": session.expires_at and session.expires_at.isoformat(),
        "ended_at": session.ended_at and session.ended_at.isoformat(),
        "auth_time": session.auth_time and session.auth_time.isoformat(),
        "key_bound": True if session.binding else None,
        "live": session.is_live(now),
    }
    return {name: value for name, value in rendered.items() if value is not None}


def _user(value: object) -> str | list[dict[str, object]]:
    if isinstance(value, str):
        reference = parse_reference(value)
        return [render_subject(reference.subject)] if reference.subject else value
    return [render_subject(subject) for subject in parse_identifiers([value], "/user")]


def _device(value: object) -> str | list[dict[str, object]] | None:
    if value is None:
        return None
    if isinstance(value, str):
        if value.startswith("dev_"):
            return value
        try:
            return [render_subject(opaque(value))]
        except SubjectError as error:
            raise _invalid("/device", error.description) from error
    return [render_subject(subject) for subject in parse_identifiers([value], "/device")]


def parse_moment(value: object, at: str) -> datetime | None:
    """Read a time: seconds since 1970 or RFC 3339; None stays None. Raises Invalid."""
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not 0 <= value <= EPOCH_S_MAX:
            raise _invalid(at, "seconds since 1970")
        return datetime.fromtimestamp(value, tz=UTC)
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
            if moment.tzinfo is not None:
                return moment.astimezone(UTC)
        except (ValueError, OverflowError) as error:
            raise _invalid(at, "seconds since 1970 or RFC 3339") from error
    raise _invalid(at, "seconds since 1970 or RFC 3339 with its offset")


def _text(value: object, at: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not value.isprintable() or len(value) > TEXT_CHARS_MAX:
        raise _invalid(at, f"at most {TEXT_CHARS_MAX} printable characters")
    return value


def _amr(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > AMR_MAX:
        raise _invalid("/amr", f"an array of at most {AMR_MAX} strings")
    return tuple(_text(each, "/amr") or "" for each in value)


def _invalid(at: str, rule: str) -> Invalid:
    return Invalid(f"Not valid: {at or 'the body'}: {rule}.", pointers=((at, rule),))
