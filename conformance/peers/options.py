"""The options of each peer: flags, `--config`, and later changes by POST /control/configure.

This module is imported before anything heavy, so that a peer can name its URLs at once.
"""

import argparse
import base64
import inspect
import secrets
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias, TypeVar, Union, get_args, get_origin

import msgspec
from typing_extensions import override

SESSION_REVOKED = "https://schemas.openid.net/secevent/caep/event-type/session-revoked"
WEBHOOK_SECRET_BYTES = 32


class UserOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A person the peer knows. sub: in iss_sub subjects and logout tokens; by default the id."""

    id: str
    user_name: str = ""
    email: str | None = None
    external_id: str | None = None
    sub: str | None = None


class PeerOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every peer can be told.

    port: 0 lets the system choose. ledger: a file that gets every ledger entry as a JSON line.
    until_stdin_closes: end at the end of standard input as well.
    """

    port: int = 0
    name: str = "peer"
    ledger: str | None = None
    until_stdin_closes: bool = False

    def urls(self, base_url: str) -> dict[str, object]:
        """Name what the peer serves and the credentials it made up, for its first line."""
        return {"base_url": base_url, "ledger_url": f"{base_url}/ledger"}


class HubOptions(PeerOptions, frozen=True, kw_only=True):
    """Where the hub is, for the peers that trust it.

    hub: the hub's issuer URL. hub_jwks_url: where its keys are, by default `{hub}/jwks.json`.
    hub_token: bearer token for sessions and streams.
    """

    hub: str | None = None
    hub_jwks_url: str | None = None
    hub_token: str | None = None
    client_id: str | None = None
    users: tuple[UserOptions, ...] = ()
    formats: tuple[str, ...] = ("email", "iss_sub", "opaque")
    subject_issuer: str | None = None

    @property
    def jwks_url(self) -> str | None:
        """Where the hub's keys are; None while no hub is configured."""
        if self.hub_jwks_url is not None or self.hub is None:
            return self.hub_jwks_url
        return f"{self.hub}/jwks.json"


class VendorOptions(PeerOptions, frozen=True, kw_only=True):
    """The vendor: whom it pushes to and how patiently.

    issuer: by default its own base URL. authorization: the whole header value, sent verbatim.
    key: a file with a private JWK; without it a key is made at start.
    retry_after_ceiling_s: the longest Retry-After it obeys. client_id, client_secret: of the hub,
    at its token endpoint. long_poll_s: how long a poll is held; redeliver_after_s: when a SET that
    was handed out and not acknowledged is handed out again. audience_per_stream: the `aud` of a
    stream is made up of the client and the stream, and tells_endpoint_once: only the answer to POST
    names where to poll; both as Keycloak 26.7 does.
    """

    name: str = "vendor"
    issuer: str | None = None
    audience: str | None = None
    push_url: str | None = None
    authorization: str | None = None
    key: str | None = None
    retry_first_s: float = 0.1
    retry_ceiling_s: float = 2.0
    retry_after_ceiling_s: float = 5.0
    attempts_max: int = 1000
    answer_timeout_s: float = 10.0
    client_id: str = "signalhub"
    client_secret: str = msgspec.field(default_factory=lambda: secrets.token_urlsafe(24))
    token_lifetime_s: float = 900.0
    long_poll_s: float = 10.0
    redeliver_after_s: float = 2.0
    min_verification_interval_s: int = 0
    audience_per_stream: bool = False
    tells_endpoint_once: bool = False

    @override
    def urls(self, base_url: str) -> dict[str, object]:
        """Add issuer, keys, metadata, and the hub's credentials for stream management."""
        return {
            **PeerOptions.urls(self, base_url),
            "issuer": self.issuer or base_url,
            "jwks_uri": f"{base_url}/jwks.json",
            "metadata_url": f"{base_url}/.well-known/ssf-configuration",
            "client_id": self.client_id,
            "client_secret": self.client_secret,
        }


class IdPOptions(HubOptions, frozen=True, kw_only=True):
    """The identity provider.

    scim_token: bearer token of its SCIM API, made up when not given. session_subject: how users are
    named when sessions are registered at the hub. return_origins: where its pages send browsers
    back to.
    """

    name: str = "idp"
    issuer: str | None = None
    scim_token: str = msgspec.field(default_factory=lambda: secrets.token_urlsafe(24))
    quarantine_group: str = "grp-quarantine"
    session_subject: Literal["email", "iss_sub"] = "email"
    register_sessions: bool = True
    return_origins: tuple[str, ...] = ()

    @override
    def urls(self, base_url: str) -> dict[str, object]:
        """Add issuer, SCIM, revocation and sign-in."""
        return {
            **PeerOptions.urls(self, base_url),
            "issuer": self.issuer or base_url,
            "scim_url": f"{base_url}/scim/v2",
            "scim_token": self.scim_token,
            "quarantine_group": self.quarantine_group,
            "gtr_url": f"{base_url}/global-token-revocation",
            "login_url": f"{base_url}/login",
            "sign_in_url": f"{base_url}/sign-in",
            "step_up_url": f"{base_url}/step-up",
            "sign_out_url": f"{base_url}/sign-out",
        }


class AppOptions(HubOptions, frozen=True, kw_only=True):
    """An application: how it is told to log users out, and whom it asks about sign-ins.

    connect: create the stream at start (push, poll). keep_newer: leave sessions alone that started
    after the event's time (SET-19). webhook_secret: `whsec_...`, made up when not given.
    """

    mode: Literal["gtr", "bcl", "push", "poll", "webhook"] = "gtr"
    name: str = "app"
    idp: str | None = None
    authorization_header: str = msgspec.field(
        default_factory=lambda: f"Bearer {secrets.token_urlsafe(24)}"
    )
    events_requested: tuple[str, ...] = (SESSION_REVOKED,)
    connect: bool = False
    keep_newer: bool = False
    poll_timeout_s: float = 90.0
    webhook_secret: str = msgspec.field(
        default_factory=lambda: "whsec_" + _base64(secrets.token_bytes(WEBHOOK_SECRET_BYTES))
    )

    @override
    def urls(self, base_url: str) -> dict[str, object]:
        """Add what the mode serves."""
        served: dict[str, object] = {**PeerOptions.urls(self, base_url), "mode": self.mode}
        if self.mode == "gtr":
            served["gtr_url"] = f"{base_url}/global-token-revocation"
        elif self.mode == "bcl":
            served["backchannel_logout_uri"] = f"{base_url}/backchannel-logout"
            served["client_id"] = self.client_id or self.name
        elif self.mode == "push":
            served["push_url"] = f"{base_url}/events"
            served["authorization_header"] = self.authorization_header
        elif self.mode == "webhook":
            served["webhook_url"] = f"{base_url}/webhook"
            served["webhook_secret"] = self.webhook_secret
        return served


AnyOptions: TypeAlias = VendorOptions | IdPOptions | AppOptions
Options = TypeVar("Options", bound=PeerOptions)

OPTIONS_OF_ROLE: Mapping[str, type[AnyOptions]] = types.MappingProxyType(
    {"vendor": VendorOptions, "idp": IdPOptions, "app": AppOptions}
)
FIXED_AT_START = frozenset({"port", "ledger", "mode", "until_stdin_closes"})


def parse_options(options_type: type[Options], argv: Sequence[str], *, program: str) -> Options:
    """Read flags and `--config JSON`; a flag wins over the configuration.

    Lists of texts are given with commas; lists of objects only through --config.
    Raises SystemExit with a message for people when something is wrong.
    """
    parser = argparse.ArgumentParser(
        prog=program,
        allow_abbrev=False,
        epilog=_meanings(options_type),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", default="{}", help="options as one JSON object")
    for field in msgspec.structs.fields(options_type):
        flag = "--" + field.name.replace("_", "-")
        if field.type is bool:
            parser.add_argument(
                flag, action=argparse.BooleanOptionalAction, help=_default_of(field)
            )
        elif not _is_objects(field.type):
            parser.add_argument(flag, metavar="VALUE", help=_default_of(field))
    given = {
        name: value for name, value in vars(parser.parse_args(argv)).items() if value is not None
    }
    try:
        configured = msgspec.json.decode(given.pop("config"), type=dict[str, Any])
        flags = {name: _split(options_type, name, value) for name, value in given.items()}
        return msgspec.convert({**configured, **flags}, options_type, strict=False)
    except msgspec.MsgspecError as problem:
        parser.error(str(problem))


def change_options(options: Options, changes: Mapping[str, object]) -> Options:
    """Return the options with changes of POST /control/configure.

    Raises msgspec.ValidationError for unknown names, wrong types, and what is fixed at start.
    """
    if fixed := FIXED_AT_START & changes.keys():
        raise msgspec.ValidationError(f"fixed at start: {', '.join(sorted(fixed))}")
    present = {name: getattr(options, name) for name in options.__struct_fields__}
    return msgspec.convert({**msgspec.to_builtins(present), **changes}, type(options))


def _meanings(options_type: type[PeerOptions]) -> str:
    """Return what the options mean, as the classes that have them say it."""
    classes = [each for each in options_type.__mro__ if issubclass(each, PeerOptions)]
    return "\n\n".join(inspect.getdoc(each) or "" for each in classes)


def _default_of(field: msgspec.structs.FieldInfo) -> str:
    if field.default_factory is not msgspec.NODEFAULT:
        return "made up when not given"
    value = field.default
    if value is None or value == ():
        return "default: none"
    if isinstance(value, tuple):
        return f"default: {','.join(value)}"
    return f"default: {str(value).lower() if isinstance(value, bool) else value}"


def _split(options_type: type[PeerOptions], name: str, value: object) -> object:
    """Split a list flag at its commas."""
    types_by_name = {field.name: field.type for field in msgspec.structs.fields(options_type)}
    if get_origin(types_by_name[name]) is tuple and isinstance(value, str):
        return [part for part in value.split(",") if part]
    return value


def _is_objects(field_type: Any) -> bool:
    """Tell whether a field holds objects, which no flag can spell."""
    inner = get_args(field_type) if get_origin(field_type) in {tuple, Union} else ()
    return any(isinstance(part, type) and issubclass(part, msgspec.Struct) for part in inner)


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")
