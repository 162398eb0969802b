"""Private event types that partners of a large identity provider send today.

They come with the subject of older drafts inside the event; `secevent` reads that for providers
set to legacy. Levels are low, medium, high, secure and none, in lower case.
"""

from typing import ClassVar, Final

from ssf.events.common import CommonMembers

OKTA_BASE: Final = "https://schemas.okta.com/secevent/okta/event-type/"


class UserRiskChange(CommonMembers, frozen=True, kw_only=True, omit_defaults=True):
    """The partner sees another risk level for a user."""

    type_uri: ClassVar[str] = OKTA_BASE + "user-risk-change"

    previous_level: str
    current_level: str


class DeviceRiskChange(CommonMembers, frozen=True, kw_only=True, omit_defaults=True):
    """The partner sees another risk level for a device."""

    type_uri: ClassVar[str] = OKTA_BASE + "device-risk-change"

    previous_level: str
    current_level: str


class IPChange(CommonMembers, frozen=True, kw_only=True, omit_defaults=True):
    """The partner sees the subject at another address."""

    type_uri: ClassVar[str] = OKTA_BASE + "ip-change"

    current_ip_address: str
    previous_ip_address: str


VendorEvent = UserRiskChange | DeviceRiskChange | IPChange
