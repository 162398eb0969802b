"""The shipped mappings: what every event type we know means. Data, in the form tenants write.

Sources: threat model §1.3 and §4.1; CAEP 1.0 §3, RISC 1.0 §2, RFC 9967 §2. Levels without a
meaning (an unknown word, another principal) match no rule: then the event says nothing.
"""

from __future__ import annotations

from typing import Final

from risk.catalogue import (
    ACCOUNT_ENABLED,
    CREDENTIAL_CHANGED,
    DEVICE_HEALTHY,
    PARTNER_LOWERED,
    PASSWORD,
    PHISHING_RESISTANT_SIGN_IN,
    SESSION_RISK_LOWERED,
    SESSIONS_REVOKED,
    SESSIONS_SECURED,
)
from risk.mappings.model import (
    Clear,
    Condition,
    EndSessions,
    LevelName,
    Mapping,
    Raise,
    ReportPosture,
    Rule,
    Scalar,
    SeeSession,
)
from ssf.events import caep, risc, scim, ssf, vendor

_OF_THIS_TYPE: Final = CREDENTIAL_CHANGED + "{credential_type}"
_PASSWORD_CHANGED: Final = CREDENTIAL_CHANGED + PASSWORD


def _is(member: str, value: Scalar) -> Condition:
    return Condition(member=member, op="eq", value=value)


def _not(member: str, value: Scalar) -> Condition:
    return Condition(member=member, op="ne", value=value)


def _word(member: str, *values: str) -> Condition:
    """Words of closed lists; senders differ in case."""
    return Condition(member=member, op="in", value=values, ignore_case=True)


#: "low" of a scale that goes down to "none" is a finding only when it came up from below
_NO_RISK: Final = _word("current_level", "LOW", "SECURE", "NONE")
_MEDIUM: Final = _word("current_level", "MEDIUM")
_HIGH: Final = _word("current_level", "HIGH")


def _partner(level: LevelName, reason: str = "") -> Raise:
    return Raise(
        detection="partner_reported_risk",
        about="user",
        level=level,
        reason=reason,
        clears_on=(PARTNER_LOWERED,),
    )


_COMPLIANCE: Final = ReportPosture(
    signal="compliance", value="{current_status}", old="{previous_status}"
)


def _device(detection: str, level: LevelName, reason: str = "") -> Raise:
    return Raise(
        detection=detection, about="device", level=level, reason=reason, clears_on=(DEVICE_HEALTHY,)
    )


def _user_levels(*when: Condition, reason: str = "") -> tuple[Rule, ...]:
    return (
        Rule(when=(*when, _NO_RISK), then=(Clear(remedy=PARTNER_LOWERED, about="user"),)),
        Rule(when=(*when, _HIGH), then=(_partner("HIGH", reason),)),
        Rule(
            when=(*when, _MEDIUM),
            then=(
                Clear(remedy=PARTNER_LOWERED, about="user", keep="MEDIUM"),
                _partner("MEDIUM", reason),
            ),
        ),
    )


def _device_levels(*when: Condition, reason: str = "") -> tuple[Rule, ...]:
    return (
        Rule(when=(*when, _NO_RISK), then=(Clear(remedy=DEVICE_HEALTHY, about="device"),)),
        Rule(when=(*when, _HIGH), then=(_device("device_compromised", "HIGH", reason),)),
        Rule(
            when=(*when, _MEDIUM),
            then=(
                Clear(remedy=DEVICE_HEALTHY, about="device", keep="MEDIUM"),
                _device("device_at_risk", "MEDIUM", reason),
            ),
        ),
    )


def _low(detection: str, *clears_on: str) -> Raise:
    return Raise(detection=detection, about="user", level="LOW", clears_on=clears_on)


def _nothing(event_type: str, name: str) -> Mapping:
    return Mapping(name=name, event_type=event_type)


_SESSION: Final = _word("principal", "SESSION")
#: what ends the risk of a session, and what it led to for its user
_OF_SESSIONS: Final = (SESSION_RISK_LOWERED, SESSIONS_SECURED)
_CANNOT_BE_PHISHED: Final = Clear(remedy=PHISHING_RESISTANT_SIGN_IN, about="user")
#: OpenID EAP ACR values; RFC 8176 has no word but that of a key in hardware
_PHISHING_RESISTANT: Final = (
    _word("acr", "phr", "phrh"),
    *(Condition(member="amr", op="contains", value=method) for method in ("hwk", "phr", "phrh")),
)
_ENABLED: Final = Clear(remedy=ACCOUNT_ENABLED, about="user")

_CAEP: Final = (
    Mapping(
        name="Session revoked",
        event_type=caep.SessionRevoked.type_uri,
        rules=(Rule(then=(EndSessions(),), subject="session"),),
    ),
    _nothing(caep.TokenClaimsChange.type_uri, "Token claims changed: recorded only"),
    Mapping(
        name="Credential changed",
        event_type=caep.CredentialChange.type_uri,
        rules=(
            # A new key beside the stolen one remedies nothing; a new password replaces the old one.
            Rule(when=(_is("change_type", "create"), _not("credential_type", PASSWORD))),
            Rule(then=(Clear(remedy=_OF_THIS_TYPE, about="user"),)),
        ),
    ),
    Mapping(
        name="Assurance level changed",
        event_type=caep.AssuranceLevelChange.type_uri,
        rules=(
            Rule(when=(_is("change_direction", "decrease"),), then=(_low("assurance_lowered"),)),
        ),
    ),
    Mapping(
        name="Device compliance changed",
        event_type=caep.DeviceComplianceChange.type_uri,
        rules=(
            Rule(
                when=(_word("current_status", "compliant"),),
                then=(Clear(remedy=DEVICE_HEALTHY, about="device"), _COMPLIANCE),
            ),
            # The list is closed; anything that is not "compliant" is the worse of the two.
            Rule(then=(_device("device_not_compliant", "HIGH"), _COMPLIANCE)),
        ),
    ),
    Mapping(
        name="Session established",
        event_type=caep.SessionEstablished.type_uri,
        rules=(
            *(
                Rule(when=(fits,), then=(SeeSession(), _CANNOT_BE_PHISHED), subject="session")
                for fits in _PHISHING_RESISTANT
            ),
            Rule(then=(SeeSession(),), subject="session"),
        ),
    ),
    Mapping(
        name="Session presented",
        event_type=caep.SessionPresented.type_uri,
        rules=(Rule(then=(SeeSession(),), subject="session"),),
    ),
    Mapping(
        name="Risk level changed",
        event_type=caep.RiskLevelChange.type_uri,
        rules=(
            *_user_levels(_word("principal", "USER"), reason="{risk_reason}"),
            *_device_levels(_word("principal", "DEVICE"), reason="{risk_reason}"),
            Rule(
                when=(_SESSION, _HIGH),
                then=(
                    Raise(
                        detection="session_influenced_user_risk",
                        about="user",
                        level="MEDIUM",
                        reason="{risk_reason}",
                        clears_on=_OF_SESSIONS,
                    ),
                    Raise(
                        detection="session_risk",
                        about="session",
                        level="HIGH",
                        reason="{risk_reason}",
                        clears_on=_OF_SESSIONS,
                    ),
                ),
                subject="session",
            ),
            Rule(
                when=(_SESSION, _word("current_level", "LOW", "MEDIUM")),
                then=(
                    Clear(remedy=SESSION_RISK_LOWERED, about="user"),
                    Clear(remedy=SESSION_RISK_LOWERED, about="session"),
                ),
                subject="session",
            ),
        ),
    ),
)


def _disabled(detection: str, level: LevelName) -> tuple[EndSessions, Raise]:
    found = Raise(detection=detection, about="user", level=level, clears_on=(ACCOUNT_ENABLED,))
    return (EndSessions(), found)


_RISC: Final = (
    Mapping(
        name="Account must change a credential",
        event_type=risc.AccountCredentialChangeRequired.type_uri,
        rules=(
            Rule(
                then=(
                    Raise(
                        detection="credential_change_required",
                        about="user",
                        level="MEDIUM",
                        clears_on=(_PASSWORD_CHANGED,),
                    ),
                )
            ),
        ),
    ),
    Mapping(
        name="Account purged",
        event_type=risc.AccountPurged.type_uri,
        rules=(Rule(then=(EndSessions(),)),),
    ),
    Mapping(
        name="Account disabled",
        event_type=risc.AccountDisabled.type_uri,
        rules=(
            Rule(when=(_is("reason", "hijacking"),), then=_disabled("account_hijacked", "HIGH")),
            Rule(
                when=(_is("reason", "bulk-account"),),
                then=_disabled("account_fraudulent", "MEDIUM"),
            ),
            Rule(then=_disabled("account_disabled", "LOW")),
        ),
    ),
    Mapping(
        name="Account enabled",
        event_type=risc.AccountEnabled.type_uri,
        rules=(Rule(then=(_ENABLED,)),),
    ),
    _nothing(risc.IdentifierChanged.type_uri, "Identifier changed: recorded only"),
    _nothing(risc.IdentifierRecycled.type_uri, "Identifier recycled: recorded only"),
    Mapping(
        name="Credential compromised",
        event_type=risc.CredentialCompromise.type_uri,
        rules=(
            Rule(
                when=(_is("credential_type", PASSWORD),),
                then=(
                    Raise(
                        detection="password_compromised",
                        about="user",
                        level="HIGH",
                        clears_on=(_PASSWORD_CHANGED,),
                    ),
                ),
            ),
            Rule(
                then=(
                    Raise(
                        detection="credential_compromised",
                        about="user",
                        level="HIGH",
                        clears_on=(_OF_THIS_TYPE,),
                    ),
                ),
            ),
        ),
    ),
    _nothing(risc.OptIn.type_uri, "Opted in: recorded only"),
    _nothing(risc.OptOutInitiated.type_uri, "Opt-out initiated: recorded only"),
    _nothing(risc.OptOutCancelled.type_uri, "Opt-out cancelled: recorded only"),
    _nothing(risc.OptOutEffective.type_uri, "Opt-out effective: recorded only"),
    Mapping(
        name="Recovery activated",
        event_type=risc.RecoveryActivated.type_uri,
        rules=(Rule(then=(_low("recovery_activated"),)),),
    ),
    Mapping(
        name="Recovery information changed",
        event_type=risc.RecoveryInformationChanged.type_uri,
        rules=(Rule(then=(_low("recovery_information_changed"),)),),
    ),
    Mapping(
        name="Sessions revoked",
        event_type=risc.SessionsRevoked.type_uri,
        rules=(Rule(then=(EndSessions(), Clear(remedy=SESSIONS_REVOKED, about="user"))),),
    ),
)

#: provisioning says who there is, not who is at risk, but for the end of an account
_SCIM: Final = (
    _nothing(scim.FeedAdd.type_uri, "Resource joined the feed: recorded only"),
    _nothing(scim.FeedRemove.type_uri, "Resource left the feed: it need not be deleted"),
    _nothing(scim.CreateNotice.type_uri, "Resource created: recorded only"),
    _nothing(scim.CreateFull.type_uri, "Resource created, in full: recorded only"),
    _nothing(scim.PatchNotice.type_uri, "Resource patched: recorded only"),
    _nothing(scim.PatchFull.type_uri, "Resource patched, in full: recorded only"),
    _nothing(scim.PutNotice.type_uri, "Resource replaced: recorded only"),
    _nothing(scim.PutFull.type_uri, "Resource replaced, in full: recorded only"),
    Mapping(
        name="Resource deleted",
        event_type=scim.Delete.type_uri,
        rules=(Rule(then=(EndSessions(),)),),
    ),
    Mapping(
        name="Resource activated",
        event_type=scim.Activate.type_uri,
        rules=(Rule(then=(_ENABLED,)),),
    ),
    Mapping(
        name="Resource deactivated",
        event_type=scim.Deactivate.type_uri,
        rules=(Rule(then=_disabled("account_disabled", "LOW")),),
    ),
    _nothing(scim.AsyncResponse.type_uri, "Outcome of an asynchronous request: recorded only"),
)

_VENDOR: Final = (
    Mapping(
        name="Partner's risk level of a user changed",
        event_type=vendor.UserRiskChange.type_uri,
        rules=(
            Rule(
                when=(_word("current_level", "LOW"), _word("previous_level", "SECURE", "NONE")),
                then=(Clear(remedy=PARTNER_LOWERED, about="user", keep="LOW"), _partner("LOW")),
            ),
            *_user_levels(),
        ),
    ),
    Mapping(
        name="Partner's risk level of a device changed",
        event_type=vendor.DeviceRiskChange.type_uri,
        rules=_device_levels(),
    ),
    _nothing(vendor.IPChange.type_uri, "Subject at another address: recorded only"),
)

_STREAM: Final = (
    _nothing(ssf.Verification.type_uri, "About the stream itself: never assessed"),
    _nothing(ssf.StreamUpdated.type_uri, "About the stream itself: never assessed"),
)

DEFAULT_MAPPINGS: Final[tuple[Mapping, ...]] = (*_CAEP, *_RISC, *_SCIM, *_VENDOR, *_STREAM)
