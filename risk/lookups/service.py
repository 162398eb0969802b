"""Finding what an API caller names: a user, device, session, app or service account."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from risk.catalogue_entries import ENTRIES
from risk.entities import service as entities
from risk.entities import store as entities_store
from risk.finding_type import Timing
from risk.lookups import store
from risk.lookups.store import DetectionFilter
from risk.model import Detection, DetectionState, EntityKind
from risk.sessions import store as sessions_store
from risk.sessions.model import Session
from risk.sql.store import Connection
from runtime.errors import Invalid, NotFound

REFERENCE_CHARS_MAX: Final = 2048
PAGE_MAX: Final = 200
SESSION_PREFIX: Final = "ses_"
#: tells whether an app of this tenant exists; apps are no concern of risk otherwise
HasApp: TypeAlias = Callable[[str, str], Awaitable[bool]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What was named. session: when it is one."""

    kind: EntityKind
    entity_id: str
    session: Session | None = None


async def find(
    connection: Connection,
    tenant_id: str,
    *,
    kind: EntityKind,
    reference: str,
    has_app: HasApp,
) -> Subject:
    """Return what a caller names: as in all APIs, `ses_…` or a sid, an app's id.

    Raises Invalid for what is no reference, NotFound; makes nothing.
    """
    if not 0 < len(reference) <= REFERENCE_CHARS_MAX or "\0" in reference:
        raise Invalid("This names nothing.", pointers=(("/id", "not readable"),))
    if kind is EntityKind.SESSION:
        session = await _session(connection, tenant_id, reference)
        return Subject(kind=kind, entity_id=session.session_id, session=session)
    if kind is EntityKind.APP:
        if not await has_app(tenant_id, reference):
            raise NotFound("No such app.")
        return Subject(kind=kind, entity_id=reference)
    entity_id = await entities.resolve(connection, tenant_id, reference, kind=kind)
    return Subject(kind=kind, entity_id=entity_id)


async def users_of(connection: Connection, tenant_id: str, subject: Subject) -> frozenset[str]:
    """Return the users whom the level of something may concern. Raises nothing of its own."""
    if subject.kind is EntityKind.USER:
        return frozenset({subject.entity_id})
    if subject.session is not None:
        return frozenset({subject.session.user_id})
    if subject.kind is EntityKind.DEVICE:
        links = await entities_store.links_of_devices(
            connection, tenant_id, device_ids=[subject.entity_id]
        )
        return frozenset(link.user_id for link in links)
    return frozenset()


async def _session(connection: Connection, tenant_id: str, reference: str) -> Session:
    found = None
    if reference.startswith(SESSION_PREFIX):
        found = await store.session_by_id(connection, tenant_id, session_id=reference)
    found = found or await sessions_store.find_by_sid(connection, tenant_id, sid=reference)
    if found is None:
        raise NotFound("No such session.")
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionQuery:
    """Which detections to list, newest first. before: a detection id to go on below.

    timing: of the kind of finding.
    """

    entity_id: str | None = None
    entity_kind: EntityKind | None = None
    state: DetectionState | None = None
    issuer: str | None = None
    name: str | None = None
    timing: Timing | None = None
    before: str = ""
    limit: int = 50


async def list_detections(
    connection: Connection, tenant_id: str, query: DetectionQuery
) -> list[Detection]:
    """Return detections as they stand, newest first, at most 200."""
    names = None if query.name is None else {query.name}
    if query.timing is not None:
        timed = {each.name for each in ENTRIES if each.timing is query.timing}
        names = timed if names is None else names & timed
    return await store.list_detections(
        connection,
        tenant_id,
        wanted=DetectionFilter(
            entity_id=query.entity_id,
            entity_kind=query.entity_kind,
            state=query.state,
            issuer=query.issuer,
            names=None if names is None else frozenset(names),
        ),
        before=query.before,
        limit=min(query.limit, PAGE_MAX),
    )


async def get_detection(connection: Connection, tenant_id: str, detection_id: str) -> Detection:
    """Return a detection as it stands. Raises NotFound."""
    found = await store.read_detection(connection, tenant_id, detection_id)
    if found is None:
        raise NotFound("No such detection.")
    return found


async def subject_of(connection: Connection, tenant_id: str, detection: Detection) -> Subject:
    """Return what a detection is about. Raises NotFound for a session that is there no more."""
    if detection.entity_kind is EntityKind.SESSION:
        session = await _session(connection, tenant_id, detection.entity_id)
        return Subject(kind=EntityKind.SESSION, entity_id=session.session_id, session=session)
    return Subject(kind=detection.entity_kind, entity_id=detection.entity_id)
