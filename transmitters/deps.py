"""What stream management and polling run on; hub fills it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from runtime.audit import AddAudit
from runtime.clock import Clock
from runtime.database import Database
from runtime.notify import Notifier
from runtime.rate import TokenBuckets
from runtime.secrets import SecretBox
from runtime.writer import Writer
from ssf.metadata import OAUTH2_SPEC_URN
from ssf.profile import FINAL
from transmitters.delivery.model import LONG_POLL_S
from transmitters.keys import SigningKeys
from transmitters.subjects.model import ALL, CHANGES_AT_ONCE, CHANGES_PER_S

#: how long events of a removed subject go on (SSF-SUBJ-9)
REMOVAL_GRACE_S: Final = 24 * 3600.0


def _going_on() -> bool:
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamDefaults:
    """What new streams of an app begin with.

    subject_formats: those that the app knows, the preferred one first; empty for subjects as the
    events have them. profile: a name of `ssf.profile.PROFILES`.
    """

    subject_formats: tuple[str, ...] = ()
    profile: str = FINAL.name


async def _no_preference(_tenant_id: str, _app_id: str) -> StreamDefaults:
    return StreamDefaults()


def _subject_rates() -> TokenBuckets:
    return TokenBuckets(per_s=CHANGES_PER_S, burst=CHANGES_AT_ONCE)


async def _everybody(_tenant_id: str) -> str:
    return ALL


@dataclass(frozen=True, slots=True, kw_only=True)
class TransmitterDeps:
    """What stream management and polling run on, placed into `app.state.transmitters` by hub.

    issuer: tenant id to issuer. stream_defaults: (tenant, app) to what the app's new streams begin
    with. default_subjects: tenant id to ALL
    or NONE, for new streams. removal_grace_s: how long events of a removed subject go on.
    inactivity_timeout_s: of every stream, None for no such time-out.
    authorization_schemes: the `spec_urn`s that our metadata announces.
    subject_rates: how often each client changes subjects. allow_http: the development switch.
    is_stopping: whether this process is about to end, so that nothing should wait any longer.
    """

    db: Database
    writer: Writer
    notifier: Notifier
    clock: Clock
    keys: SigningKeys
    box: SecretBox
    issuer: Callable[[str], str]
    add_audit: AddAudit
    stream_defaults: Callable[[str, str], Awaitable[StreamDefaults]] = _no_preference
    default_subjects: Callable[[str], Awaitable[str]] = _everybody
    removal_grace_s: float = REMOVAL_GRACE_S
    inactivity_timeout_s: int | None = None
    authorization_schemes: tuple[str, ...] = (OAUTH2_SPEC_URN,)
    subject_rates: TokenBuckets = field(default_factory=_subject_rates)
    allow_http: bool = False
    long_poll_s: float = LONG_POLL_S
    is_stopping: Callable[[], bool] = _going_on
