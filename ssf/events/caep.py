"""CAEP 1.0 event types (§3). Values of closed lists are read as text (`registry.parse_event`)."""

from typing import Any, ClassVar, Final

from ssf.events.common import CommonMembers

CAEP_BASE: Final = "https://schemas.openid.net/secevent/caep/event-type/"


class SessionRevoked(CommonMembers, frozen=True, kw_only=True, omit_defaults=True):
    """The session, or every session that the subject selects, is over (CAEP-10).

    The last four members are a vendor's addition, not part of CAEP.
    """

    type_uri: ClassVar[str] = CAEP_BASE + "session-revoked"

    current_ip: str | None = None
    current_user_agent: str | None = None
    last_known_ip: str | None = None
    last_known_user_agent: str | None = None


class TokenClaimsChange(CommonMembers, frozen=True, kw_only=True, omit_defaults=True):
    """Claims of a token changed; claims: name to new value, at least one (CAEP-11)."""

    type_uri: ClassVar[str] = CAEP_BASE + "token-claims-change"

    claims: dict[str, Any]


class CredentialChange(CommonMembers, frozen=True, kw_only=True, omit_defaults=True):
    """A credential was created, changed or removed (CAEP-12 to CAEP-16).

    credential_type: password, pin, x509, fido2-platform, fido2-roaming, fido-u2f,
    verifiable-credential, phone-voice, phone-sms, app, or another agreed value.
    change_type: create, revoke, update, delete.
    """

    type_uri: ClassVar[str] = CAEP_BASE + "credential-change"

    credential_type: str
    change_type: str
    friendly_name: str | None = None
    x509_issuer: str | None = None
    x509_serial: str | None = None
    fido2_aaguid: str | None = None


class AssuranceLevelChange(CommonMembers, frozen=True, kw_only=True, omit_defaults=True):
    """The assurance level changed (CAEP-17 to CAEP-20).

    namespace: RFC8176, RFC6711, ISO-IEC-29115, NIST-IAL, NIST-AAL, NIST-FAL or an agreed alias.
    previous_level: None is unknown. change_direction: increase, decrease.
    """

    type_uri: ClassVar[str] = CAEP_BASE + "assurance-level-change"

    namespace: str
    current_level: str
    previous_level: str | None = None
    change_direction: str | None = None


class DeviceComplianceChange(CommonMembers, frozen=True, kw_only=True, omit_defaults=True):
    """A device became compliant or not-compliant (CAEP-21, CAEP-22)."""

    type_uri: ClassVar[str] = CAEP_BASE + "device-compliance-change"

    previous_status: str
    current_status: str


class SessionEstablished(CommonMembers, frozen=True, kw_only=True, omit_defaults=True):
    """A session began (CAEP-23 to CAEP-26). ext_id: a broader, federated session.

    ips: of the user, as seen by the transmitter; a member of earlier drafts.
    """

    type_uri: ClassVar[str] = CAEP_BASE + "session-established"

    fp_ua: str | None = None
    acr: str | None = None
    amr: tuple[str, ...] | None = None
    ext_id: str | None = None
    ips: tuple[str, ...] | None = None


class SessionPresented(CommonMembers, frozen=True, kw_only=True, omit_defaults=True):
    """A session was seen in use, at event_timestamp (CAEP-27). ips: as of SessionEstablished."""

    type_uri: ClassVar[str] = CAEP_BASE + "session-presented"

    fp_ua: str | None = None
    ext_id: str | None = None
    ips: tuple[str, ...] | None = None


class RiskLevelChange(CommonMembers, frozen=True, kw_only=True, omit_defaults=True):
    """The risk level of a principal changed (CAEP-28 to CAEP-31).

    current_level, previous_level: LOW, MEDIUM, HIGH. principal: USER, DEVICE, SESSION, TENANT,
    ORG_UNIT, GROUP or another kind. Text from outside may differ in case.
    """

    type_uri: ClassVar[str] = CAEP_BASE + "risk-level-change"

    principal: str
    current_level: str
    previous_level: str | None = None
    risk_reason: str | None = None


CAEPEvent = (
    SessionRevoked
    | TokenClaimsChange
    | CredentialChange
    | AssuranceLevelChange
    | DeviceComplianceChange
    | SessionEstablished
    | SessionPresented
    | RiskLevelChange
)
