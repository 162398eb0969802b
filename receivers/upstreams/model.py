"""What an upstream is, what can be ordered, and how its health is judged. Pure rules."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

import msgspec
from msgspec import UNSET, UnsetType

from runtime.backoff import Backoff
from runtime.queue import Fence

VERIFY_EVERY_S: Final = 3_600
VERIFY_EVERY_MIN_S: Final = 60
VERIFY_EVERY_MAX_S: Final = 7 * 24 * 3600
#: how long a verification may take before the stream counts as silent
VERIFY_PATIENCE: Final = timedelta(minutes=5)
#: how soon a silent or failing stream is asked again
VERIFY_AGAIN: Final = timedelta(minutes=5)
#: how often the status of a stream that is not enabled is looked at
STATUS_EVERY: Final = timedelta(minutes=15)
#: a `state` is known this long (SSF-VER-11)
STATE_LIFETIME: Final = timedelta(hours=1)
#: last_set_at is this exact: a busy stream does not write its row with every SET
HEARD_EXACTNESS: Final = timedelta(seconds=30)

POLL_BACKOFF: Final = Backoff(first_s=1.0, ceiling_s=300.0, attempts_max=1_000_000_000)
ORDER_BACKOFF: Final = Backoff(first_s=1.0, ceiling_s=60.0, attempts_max=6)


class Delivery(StrEnum):
    """How SETs get here: the vendor pushes, or we poll."""

    PUSH = "push"
    POLL = "poll"


class Auth(StrEnum):
    """How we show who we are: not at all, by a fixed header, or by OAuth client credentials."""

    NONE = "none"
    HEADER = "header"
    BASIC = "client_secret_basic"
    POST = "client_secret_post"


class Action(StrEnum):
    """What an admin can order; each is one exchange with the upstream (CR-15)."""

    DISCOVER = "discover"
    CREATE = "create-stream"
    READ = "read-stream"
    UPDATE = "update-stream"
    REPLACE = "replace-stream"
    READ_STATUS = "read-status"
    SET_STATUS = "set-status"
    VERIFY = "verify"
    DELETE = "delete-stream"


#: what only makes sense for a stream that exists
NEEDS_STREAM: Final = frozenset(Action) - {Action.DISCOVER, Action.CREATE}


class OrderState(StrEnum):
    """Where an order stands. sent: the request may have reached the upstream."""

    WAITING = "waiting"
    SENT = "sent"
    DONE = "done"
    FAILED = "failed"


OPEN_STATES: Final = frozenset({OrderState.WAITING, OrderState.SENT})


class Health(StrEnum):
    """What is known of the way from the upstream to us."""

    UNKNOWN = "unknown"
    OK = "ok"
    #: polls fail
    FAILING = "failing"
    #: a verification was asked for and did not come
    SILENT = "silent"


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamSettings:
    """What an admin decides about an upstream; names are those of the columns.

    metadata_url: where the metadata lies when not where SSF 1.0 puts it. endpoint_url: of a poll
    stream; given by hand, or by the upstream when the stream is created. description: how we find
    our stream again; made up when None. token_endpoint, scope: None to discover them.
    verify_every_s: None for no health check.
    """

    name: str
    delivery: Delivery = Delivery.POLL
    metadata_url: str | None = None
    events_requested: tuple[str, ...] = ()
    description: str | None = None
    endpoint_url: str | None = None
    auth: Auth = Auth.NONE
    client_id: str | None = None
    token_endpoint: str | None = None
    scope: str | None = None
    verify_every_s: int | None = VERIFY_EVERY_S
    is_active: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One thing to do at the upstream. arguments: of set-status alone."""

    order_id: str
    action: Action
    arguments: dict[str, Any]
    state: OrderState
    attempts: int
    asked_at: datetime
    due_at: datetime
    settled_at: datetime | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """An upstream, as stored.

    secret_sealed: the Authorization value or the client secret. metadata, stream: what the upstream
    said last, the members we use. acks, set_errs: what the next poll has to report.
    awaiting_since: a verification was asked for then and has not come yet.
    """

    tenant_id: str
    upstream_id: str
    provider_id: str
    bucket: int
    settings: UpstreamSettings
    secret_sealed: str | None
    created_at: datetime
    updated_at: datetime
    metadata: dict[str, Any] | None = None
    stream: dict[str, Any] | None = None
    stream_id: str | None = None
    stream_status: str | None = None
    stream_reason: str | None = None
    order: Order | None = None
    acks: tuple[str, ...] = ()
    set_errs: dict[str, list[str]] | None = None
    poll_due_at: datetime | None = None
    poll_failures: int = 0
    verify_due_at: datetime | None = None
    status_due_at: datetime | None = None
    awaiting_since: datetime | None = None
    last_verified_at: datetime | None = None
    last_set_at: datetime | None = None
    failing_since: datetime | None = None
    last_error: str | None = None
    is_silent: bool = False

    @property
    def description(self) -> str:
        """What our stream is called at the upstream; nobody else's is."""
        return self.settings.description or f"Signalhub {self.upstream_id}"

    @property
    def health(self) -> Health:
        """What is known of the way from the upstream to us."""
        if self.is_silent:
            return Health.SILENT
        if self.failing_since is not None:
            return Health.FAILING
        known = self.last_verified_at is not None or self.last_set_at is not None
        return Health.OK if known else Health.UNKNOWN

    def may_poll(self, now: datetime) -> bool:
        """Whether a poll is due. A disabled stream is left alone (SSF-UPD-6)."""
        settings = self.settings
        return (
            settings.is_active
            and settings.delivery is Delivery.POLL
            and settings.endpoint_url is not None
            and self.stream_status != "disabled"
            and self.poll_due_at is not None
            and self.poll_due_at <= now
        )

    def next_verification(self, now: datetime, *, again: bool = False) -> datetime | None:
        """Return when to ask for the next verification, never sooner than the upstream allows.

        again: soon, because the last one did not come.
        """
        every_s = self.settings.verify_every_s
        if every_s is None or self.stream_id is None:
            return None
        wait = timedelta(seconds=every_s)
        least = (self.stream or {}).get("min_verification_interval") or 0
        return now + max(min(wait, VERIFY_AGAIN) if again else wait, timedelta(seconds=least))


class Change(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is to be written of an upstream: columns by their names; UNSET ones stay."""

    metadata: dict[str, Any] | UnsetType | None = UNSET
    stream: dict[str, Any] | UnsetType | None = UNSET
    stream_id: str | UnsetType | None = UNSET
    stream_status: str | UnsetType | None = UNSET
    stream_reason: str | UnsetType | None = UNSET
    endpoint_url: str | UnsetType | None = UNSET
    order_state: str | UnsetType = UNSET
    order_attempts: int | UnsetType = UNSET
    order_due_at: datetime | UnsetType = UNSET
    order_settled_at: datetime | UnsetType | None = UNSET
    order_detail: str | UnsetType | None = UNSET
    acks: list[str] | UnsetType = UNSET
    set_errs: dict[str, list[str]] | UnsetType = UNSET
    poll_due_at: datetime | UnsetType | None = UNSET
    poll_failures: int | UnsetType = UNSET
    verify_due_at: datetime | UnsetType | None = UNSET
    status_due_at: datetime | UnsetType | None = UNSET
    awaiting_since: datetime | UnsetType | None = UNSET
    failing_since: datetime | UnsetType | None = UNSET
    last_error: str | UnsetType | None = UNSET
    is_silent: bool | UnsetType = UNSET

    def columns(self) -> dict[str, Any]:
        """Return what is set, by column."""
        pairs = ((name, getattr(self, name)) for name in self.__struct_fields__)
        return {name: value for name, value in pairs if value is not UNSET}


class Begin(msgspec.Struct, frozen=True, kw_only=True):
    """What must be durable before a request is sent; item of the operation BEGIN.

    order_id: the order is marked as sent. state: a verification with it is about to be asked for.
    """

    fence: Fence
    tenant_id: str
    upstream_id: str
    at: datetime
    order_id: str | None = None
    state: str | None = None


class Settlement(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one piece of work; item of the operation SETTLE.

    order_id: counts only while this is still the upstream's order. awaited_since: counts only while
    the verification that was asked for then has not come.
    """

    fence: Fence
    tenant_id: str
    upstream_id: str
    change: Change
    order_id: str | None = None
    awaited_since: datetime | None = None


class StateCheck(msgspec.Struct, frozen=True, kw_only=True):
    """A verification SET has come with this `state`; item of the operation CHECK_STATE."""

    tenant_id: str
    upstream_id: str
    state: str
    at: datetime
