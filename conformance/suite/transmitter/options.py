"""How a transmitter is to be tested."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from conformance.suite.http import Trust


class Delivery(StrEnum):
    """How SETs are delivered."""

    PUSH = "push"
    POLL = "poll"

    @property
    def method(self) -> str:
        """The method as the standard names it."""
        return f"urn:ietf:rfc:{8935 if self is Delivery.PUSH else 8936}"


class Profile(StrEnum):
    """Against which profile a transmitter is judged."""

    SSF = "ssf"
    CAEP_INTEROP = "caep-interop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """A token, or a client that gets one. token_endpoint: discovered when None.

    client_key: file with a private JWK, for private_key_jwt; else the secret is sent as
    client_secret_basic.
    """

    token: str | None = field(default=None, repr=False)
    client_id: str | None = None
    client_secret: str | None = field(default=None, repr=False)
    client_key: Path | None = None
    token_endpoint: str | None = None
    scope: str = "ssf.read ssf.manage"


@dataclass(frozen=True, slots=True, kw_only=True)
class PushPlace:
    """Where our push receiver listens, and how the transmitter reaches it."""

    host: str = "127.0.0.1"
    port: int = 0
    public_url: str | None = None
    certificate: Path | None = None
    key: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """How an event of the operator's is made to happen; nothing set: it is not."""

    url: str | None = None
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    command: str | None = None

    @property
    def is_there(self) -> bool:
        """Whether there is a way."""
        return bool(self.url or self.command)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long to wait, in seconds. quiet_s: for what must not come. event_s: for what must.

    long_poll_s: for the end of an empty long poll, 0 to leave that out. check_s: for a whole check.
    """

    request_s: float = 15.0
    event_s: float = 30.0
    quiet_s: float = 2.0
    long_poll_s: float = 0.0
    check_s: float = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """All there is to say. stranger_token: of another receiver, which must see no stream of ours.

    only: names of checks or requirement ids to run; all when empty.
    """

    issuer: str
    metadata_url: str | None = None
    credentials: Credentials = field(default_factory=Credentials)
    stranger_token: str | None = field(default=None, repr=False)
    trust: Trust = field(default_factory=Trust)
    deliveries: tuple[Delivery, ...] = tuple(Delivery)
    profile: Profile = Profile.SSF
    push: PushPlace = field(default_factory=PushPlace)
    trigger: Trigger = field(default_factory=Trigger)
    limits: Limits = field(default_factory=Limits)
    only: frozenset[str] = frozenset()
