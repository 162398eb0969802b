"""What an admin may register: wanted apps and webhooks, and the rules they obey. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from actions.fronting import ForwardAuthSetting, faults_of
from actions.messages import Event
from actions.model import App, AppKind, LogoutMethod, LogoutSetting, SCIMSetting
from actions.subjects import NAMING_MEMBER, SCIM_ATTRIBUTE_FORMATS
from actions.webhook import parse_secret
from runtime.errors import Invalid
from ssf.profile import FINAL, PROFILES

NAME_CHARACTERS_MAX: Final = 200
URL_CHARACTERS_MAX: Final = 2_000
SENSITIVITY_MAX: Final = 100
LOGOUT_METHODS_MAX: Final = 8
STATUSES: Final = frozenset({"active", "inactive"})


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedApp:
    """An app as an admin wants it.

    subject_issuer: the `iss` of the `iss_sub` identifiers the app knows; None takes any.
    client_id_at_app: our client id there: `aud` of logout tokens, `sub` of revocation JWTs.
    scim_token: bearer token for the group; None keeps the stored one.
    """

    name: str
    kind: AppKind = AppKind.RP
    sensitivity: int = 50
    subject_formats: tuple[str, ...] = ("email",)
    subject_issuer: str | None = None
    logout: tuple[LogoutSetting, ...] = ()
    client_id_at_app: str | None = None
    issuer: str | None = None
    scim: SCIMSetting | None = None
    scim_token: str | None = field(default=None, repr=False)
    status: str = "active"
    stream_profile: str = FINAL.name
    forward_auth: ForwardAuthSetting | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedWebhook:
    """A webhook as an admin wants it. events: None for all. secret: `whsec_…`, made when None."""

    url: str
    events: tuple[str, ...] | None = None
    secret: str | None = field(default=None, repr=False)


def wanted_of(app: App) -> WantedApp:
    """Return what was wanted of a stored app, to change a part of it; the token is kept."""
    return WantedApp(
        name=app.name,
        kind=app.kind,
        sensitivity=app.sensitivity,
        subject_formats=app.subject_formats,
        subject_issuer=app.subject_issuer,
        logout=app.logout,
        client_id_at_app=app.client_id_at_app,
        issuer=app.issuer,
        scim=app.scim,
        status=app.status,
        stream_profile=app.stream_profile,
        forward_auth=app.forward_auth,
    )


def check_app(wanted: WantedApp, *, has_scim_token: bool = False) -> None:
    """Raise Invalid with one pointer per wrong member. has_scim_token: one is stored already."""
    problems = _Problems()
    problems.unless(0 < len(wanted.name.strip()) <= NAME_CHARACTERS_MAX, "/name", "1 to 200 chars")
    problems.unless(0 <= wanted.sensitivity <= SENSITIVITY_MAX, "/sensitivity", "0 to 100")
    problems.unless(wanted.status in STATUSES, "/status", "active or inactive")
    formats = wanted.subject_formats
    known = bool(formats) and all(name in NAMING_MEMBER for name in formats)
    problems.unless(known, "/subject_formats", f"a list of {', '.join(NAMING_MEMBER)}")
    profiles = " or ".join(PROFILES)
    problems.unless(wanted.stream_profile in PROFILES, "/stream_profile", profiles)
    _check_logout(wanted, problems)
    if wanted.forward_auth is not None:
        for pointer, rule in faults_of(wanted.forward_auth):
            problems.unless(False, pointer, rule)  # noqa: FBT003 - it is a fault already
    if wanted.scim is not None:
        _check_scim(wanted, wanted.scim, problems, has_token=has_scim_token)
    problems.raise_if_any("The app is not acceptable.")


def check_webhook(wanted: WantedWebhook) -> None:
    """Raise Invalid with one pointer per wrong member. Requirements WH-4, WH-9."""
    problems = _Problems()
    problems.unless(_is_url(wanted.url), "/url", "an absolute http(s) URL without fragment")
    events = {event.value for event in Event}
    known = wanted.events is None or events.issuperset(wanted.events)
    problems.unless(known, "/events", f"some of {', '.join(sorted(events))}")
    if wanted.secret is not None:
        problems.unless_raises(parse_secret, wanted.secret, "/secret")
    problems.raise_if_any("The webhook is not acceptable.")


def _check_logout(wanted: WantedApp, problems: _Problems) -> None:
    problems.unless(len(wanted.logout) <= LOGOUT_METHODS_MAX, "/logout", "at most 8 methods")
    methods = [setting.method for setting in wanted.logout]
    problems.unless(len(set(methods)) == len(methods), "/logout", "each method once")
    for index, setting in enumerate(wanted.logout[:LOGOUT_METHODS_MAX]):
        if setting.method is LogoutMethod.SSF:
            continue
        pointer = f"/logout/{index}/endpoint_url"
        problems.unless(_is_url(setting.endpoint_url), pointer, "an absolute http(s) URL")
        if setting.method is LogoutMethod.BCL:
            needed = bool(wanted.client_id_at_app)
            problems.unless(needed, "/client_id_at_app", "needed: it is the logout token's aud")


def _check_scim(
    wanted: WantedApp, scim: SCIMSetting, problems: _Problems, *, has_token: bool
) -> None:
    problems.unless(wanted.kind is AppKind.IDP, "/scim", "only an app of kind idp has one")
    problems.unless(_is_url(scim.base_url), "/scim/base_url", "an absolute http(s) URL")
    problems.unless(bool(scim.quarantine_group_id), "/scim/quarantine_group_id", "the group's id")
    attributes = ", ".join(SCIM_ATTRIBUTE_FORMATS)
    known = scim.user_attribute in SCIM_ATTRIBUTE_FORMATS
    problems.unless(known, "/scim/user_attribute", f"one of {attributes}")
    problems.unless(bool(wanted.scim_token) or has_token, "/scim_token", "needed for SCIM")


class _Problems:
    """Collects what is wrong, so that an admin sees all of it at once."""

    def __init__(self) -> None:
        self._found: list[tuple[str, str]] = []

    def unless(self, condition: object, pointer: str, rule: str) -> None:
        """Note a problem when the condition does not hold."""
        if not condition:
            self._found.append((pointer, rule))

    def unless_raises(self, parse: Callable[[str], object], text: str, pointer: str) -> None:
        """Note a problem when the text does not parse."""
        try:
            parse(text)
        except ValueError as error:
            self._found.append((pointer, str(error)))

    def raise_if_any(self, detail: str) -> None:
        """Raise Invalid when something was noted."""
        if self._found:
            raise Invalid(detail, pointers=tuple(self._found))


def _is_url(url: str | None) -> bool:
    if not url or len(url) > URL_CHARACTERS_MAX:
        return False
    try:
        parts = urlsplit(url)
        port_is_valid = parts.port is None or parts.port > 0
    except ValueError:
        return False
    # Which addresses may really be called is the egress guard's business, at the call.
    return bool(
        parts.scheme in {"https", "http"}
        and parts.hostname
        and not parts.fragment
        and port_is_valid
    )
