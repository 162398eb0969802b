"""SCIM event types (RFC 9967). The subject has the format `scim`."""

from typing import Any, ClassVar, Final

import msgspec

SCIM_BASE: Final = "urn:ietf:params:scim:event:"


class FeedAdd(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The resource joined the feed; it need not be new (SCIM-20)."""

    type_uri: ClassVar[str] = SCIM_BASE + "feed:add"


class FeedRemove(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The resource left the feed; it need not be deleted (SCIM-21)."""

    type_uri: ClassVar[str] = SCIM_BASE + "feed:remove"


class _Notice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """attributes: paths of what changed. version: ETag."""

    attributes: tuple[str, ...]
    version: str | None = None


class _Full(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """data: the final representation or the operation. version: ETag."""

    data: dict[str, Any]
    version: str | None = None


class CreateNotice(_Notice, frozen=True, kw_only=True, omit_defaults=True):
    """A resource was created; what it holds is not told (SCIM-22)."""

    type_uri: ClassVar[str] = SCIM_BASE + "prov:create:notice"


class CreateFull(_Full, frozen=True, kw_only=True, omit_defaults=True):
    """A resource was created (SCIM-23)."""

    type_uri: ClassVar[str] = SCIM_BASE + "prov:create:full"


class PatchNotice(_Notice, frozen=True, kw_only=True, omit_defaults=True):
    """A resource was patched; how is not told (SCIM-24)."""

    type_uri: ClassVar[str] = SCIM_BASE + "prov:patch:notice"


class PatchFull(_Full, frozen=True, kw_only=True, omit_defaults=True):
    """A resource was patched (SCIM-25)."""

    type_uri: ClassVar[str] = SCIM_BASE + "prov:patch:full"


class PutNotice(_Notice, frozen=True, kw_only=True, omit_defaults=True):
    """A resource was replaced; by what is not told (SCIM-26)."""

    type_uri: ClassVar[str] = SCIM_BASE + "prov:put:notice"


class PutFull(_Full, frozen=True, kw_only=True, omit_defaults=True):
    """A resource was replaced (SCIM-27)."""

    type_uri: ClassVar[str] = SCIM_BASE + "prov:put:full"


class Delete(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The resource was deleted (SCIM-28)."""

    type_uri: ClassVar[str] = SCIM_BASE + "prov:delete"


class Activate(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The resource was activated (SCIM-29)."""

    type_uri: ClassVar[str] = SCIM_BASE + "prov:activate"


class Deactivate(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The resource was deactivated, so its sessions should be over (SCIM-7, SCIM-30)."""

    type_uri: ClassVar[str] = SCIM_BASE + "prov:deactivate"


class AsyncResponse(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Outcome of an asynchronous request, matched by `txn` (SCIM-31)."""

    type_uri: ClassVar[str] = SCIM_BASE + "misc:asyncresp"

    method: str | None = None
    version: str | None = None
    status: str | None = None
    location: str | None = None
    response: Any = None


SCIMEvent = (
    FeedAdd
    | FeedRemove
    | CreateNotice
    | CreateFull
    | PatchNotice
    | PatchFull
    | PutNotice
    | PutFull
    | Delete
    | Activate
    | Deactivate
    | AsyncResponse
)
