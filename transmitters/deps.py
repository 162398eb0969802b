"""What stream management and polling run on; hub fills it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from runtime.audit import AddAudit
from runtime.clock import Clock
from runtime.database import Database
from runtime.notify import Notifier
from runtime.secrets import SecretBox
from runtime.writer import Writer
from ssf.metadata import OAUTH2_SPEC_URN
from transmitters.delivery.model import LONG_POLL_S
from transmitters.keys import SigningKeys
from transmitters.subjects.model import ALL

#: how long events of a removed subject go on (SSF-SUBJ-9)
REMOVAL_GRACE_S: Final = 24 * 3600.0


def _going_on() -> bool:
    return False


async def _no_preference(_tenant_id: str, _app_id: str) -> str | None:
    return None


async def _everybody(_tenant_id: str) -> str:
    return ALL


@dataclass(frozen=True, slots=True, kw_only=True)
class TransmitterDeps:
    """What stream management and polling run on, placed into `app.state.transmitters` by hub.

    issuer: tenant id to issuer. subject_format_of: (tenant, app) to the subject format that the
    app's streams get, None for subjects as the event has them. default_subjects: tenant id to ALL
    or NONE, for new streams. removal_grace_s: how long events of a removed subject go on.
    inactivity_timeout_s: of every stream, None for no such time-out.
    authorization_schemes: the `spec_urn`s that our metadata announces.
    allow_http: the development switch. is_stopping: whether this process is about to end, so that
    nothing should wait any longer.
    """

    db: Database
    writer: Writer
    notifier: Notifier
    clock: Clock
    keys: SigningKeys
    box: SecretBox
    issuer: Callable[[str], str]
    add_audit: AddAudit
    subject_format_of: Callable[[str, str], Awaitable[str | None]] = _no_preference
    default_subjects: Callable[[str], Awaitable[str]] = _everybody
    removal_grace_s: float = REMOVAL_GRACE_S
    inactivity_timeout_s: int | None = None
    authorization_schemes: tuple[str, ...] = (OAUTH2_SPEC_URN,)
    allow_http: bool = False
    long_poll_s: float = LONG_POLL_S
    is_stopping: Callable[[], bool] = _going_on
