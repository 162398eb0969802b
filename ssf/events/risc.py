"""RISC 1.0 event types (§2). The subject is the account."""

from typing import ClassVar, Final

import msgspec

from ssf.events.common import CommonMembers

RISC_BASE: Final = "https://schemas.openid.net/secevent/risc/event-type/"


class AccountCredentialChangeRequired(CommonMembers, frozen=True, kw_only=True, omit_defaults=True):
    """The account must change a credential (RISC-1)."""

    type_uri: ClassVar[str] = RISC_BASE + "account-credential-change-required"


class AccountPurged(CommonMembers, frozen=True, kw_only=True, omit_defaults=True):
    """The account was deleted for good (RISC-2)."""

    type_uri: ClassVar[str] = RISC_BASE + "account-purged"


class AccountDisabled(CommonMembers, frozen=True, kw_only=True, omit_defaults=True):
    """The account was disabled; reason: hijacking, bulk-account (RISC-3)."""

    type_uri: ClassVar[str] = RISC_BASE + "account-disabled"

    reason: str | None = None


class AccountEnabled(CommonMembers, frozen=True, kw_only=True, omit_defaults=True):
    """The account was enabled again (RISC-4)."""

    type_uri: ClassVar[str] = RISC_BASE + "account-enabled"


class IdentifierChanged(CommonMembers, frozen=True, kw_only=True, omit_defaults=True):
    """An e-mail address or phone number changed; the subject holds the old value (RISC-5)."""

    type_uri: ClassVar[str] = RISC_BASE + "identifier-changed"

    new_value: str | None = msgspec.field(default=None, name="new-value")


class IdentifierRecycled(CommonMembers, frozen=True, kw_only=True, omit_defaults=True):
    """The identifier belongs to somebody else now (RISC-6)."""

    type_uri: ClassVar[str] = RISC_BASE + "identifier-recycled"


class CredentialCompromise(CommonMembers, frozen=True, kw_only=True, omit_defaults=True):
    """A credential is in wrong hands; event_timestamp is when that was found out (RISC-7)."""

    type_uri: ClassVar[str] = RISC_BASE + "credential-compromise"

    credential_type: str


class OptIn(CommonMembers, frozen=True, kw_only=True, omit_defaults=True):
    """The account takes part in the exchange of signals (RISC-8)."""

    type_uri: ClassVar[str] = RISC_BASE + "opt-in"


class OptOutInitiated(CommonMembers, frozen=True, kw_only=True, omit_defaults=True):
    """The account asked to be left out; signals still flow for now (RISC-9)."""

    type_uri: ClassVar[str] = RISC_BASE + "opt-out-initiated"


class OptOutCancelled(CommonMembers, frozen=True, kw_only=True, omit_defaults=True):
    """The account stays in the exchange after all (RISC-10)."""

    type_uri: ClassVar[str] = RISC_BASE + "opt-out-cancelled"


class OptOutEffective(CommonMembers, frozen=True, kw_only=True, omit_defaults=True):
    """The account is out of the exchange (RISC-11)."""

    type_uri: ClassVar[str] = RISC_BASE + "opt-out-effective"


class RecoveryActivated(CommonMembers, frozen=True, kw_only=True, omit_defaults=True):
    """A recovery flow was started (RISC-12)."""

    type_uri: ClassVar[str] = RISC_BASE + "recovery-activated"


class RecoveryInformationChanged(CommonMembers, frozen=True, kw_only=True, omit_defaults=True):
    """Recovery information changed (RISC-13)."""

    type_uri: ClassVar[str] = RISC_BASE + "recovery-information-changed"


class SessionsRevoked(CommonMembers, frozen=True, kw_only=True, omit_defaults=True):
    """All sessions of the account are over; deprecated: accepted, never emitted (RISC-14)."""

    type_uri: ClassVar[str] = RISC_BASE + "sessions-revoked"


RISCEvent = (
    AccountCredentialChangeRequired
    | AccountPurged
    | AccountDisabled
    | AccountEnabled
    | IdentifierChanged
    | IdentifierRecycled
    | CredentialCompromise
    | OptIn
    | OptOutInitiated
    | OptOutCancelled
    | OptOutEffective
    | RecoveryActivated
    | RecoveryInformationChanged
    | SessionsRevoked
)
