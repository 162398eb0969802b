"""The formats of simple subjects: what is well formed, and the one text that matching compares.

`ssf.subject` reads and renders subjects with the rules of this table.
"""

import hashlib
import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import msgspec

from ssf.errors import SubjectError
from ssf.strict_json import holds_nul

MEMBER_CHARS_MAX: Final = 4096
MEMBERS_MAX: Final = 50
IDENTIFIERS_MAX: Final = 100
NORMAL_FORM_CHARS_MAX: Final = 512


@dataclass(frozen=True, slots=True)
class VerbatimJSON:
    """A member value that is no string, as canonical JSON text, so that equal means deeply equal.

    Python alone would hold 1, 1.0 and true for the same value.
    """

    text: str


MemberValue: TypeAlias = str | VerbatimJSON


@dataclass(frozen=True, slots=True, kw_only=True)
class SimpleSubject:
    """One identifier of one principal. members: pairs sorted by name, without `format`."""

    format: str
    members: tuple[tuple[str, MemberValue], ...]

    def get(self, name: str) -> str | None:
        """Return the string member of that name, or None."""
        for member_name, value in self.members:
            if member_name == name and isinstance(value, str):
                return value
        return None


def simple_subject(name: str, members: Mapping[str, object]) -> SimpleSubject:
    """Check the members against the format and keep what belongs to it.

    Unknown formats keep every member verbatim; unknown members of known formats are left out.
    Raises SubjectError. Requirements SUB-1 to SUB-13.
    """
    known = _FORMATS.get(name)
    if known is None:
        return SimpleSubject(format=name, members=_keep_all(members))
    values: dict[str, MemberValue] = {}
    for member in known.required:
        value = members.get(member)
        values[member] = _addresses(value) if name == "ip-addresses" else _text(value, known)
    if known.check is not None and not known.check(values):
        raise malformed(f"the {name} identifier is not well formed", known.requirement)
    if known.keeps_extra:
        values = dict(_keep_all(members)) | values
    return SimpleSubject(format=name, members=tuple(sorted(values.items())))


def _keep_all(members: Mapping[str, object]) -> tuple[tuple[str, MemberValue], ...]:
    if len(members) > MEMBERS_MAX:
        raise malformed(f"more than {MEMBERS_MAX} members", "SUB-13")
    return tuple(
        sorted((name, _keep(value)) for name, value in members.items() if name != "format")
    )


def _keep(value: object) -> MemberValue:
    if isinstance(value, str):
        return value
    return VerbatimJSON(msgspec.json.encode(value, order="sorted").decode())


def render_simple(subject: SimpleSubject) -> dict[str, object]:
    """Render as a JSON object. Raises nothing."""
    return {"format": subject.format} | {
        name: value if isinstance(value, str) else msgspec.json.decode(value.text)
        for name, value in subject.members
    }


def normal_form(subject: SimpleSubject) -> str:
    """Write a simple subject as one text that is equal exactly when the subjects match.

    "format:value", values joined by "|" where a format has two. At most NORMAL_FORM_CHARS_MAX
    characters; longer ones become "format:sha256:<hex>". Stable across versions: it is stored.
    Raises nothing. Requirements SUB-1 to SUB-13, SUB-41.
    """
    rule = _NORMAL_FORMS.get(subject.format, _verbatim_form)
    name = _escape(subject.format, ":")
    body = rule(subject)
    # A short value that looks like a digest is hashed too, so that it cannot pass for a long one.
    if len(name) + 1 + len(body) > NORMAL_FORM_CHARS_MAX or body.startswith("sha256:"):
        body = "sha256:" + hashlib.sha256(body.encode()).hexdigest()
    return f"{name}:{body}"


def malformed(description: str, requirement: str) -> SubjectError:
    """Make the error for a broken subject."""
    return SubjectError("invalid_request", description, requirement=requirement)


def _text(value: object, known: "_Format") -> str:
    if not isinstance(value, str) or not 0 < len(value) <= MEMBER_CHARS_MAX:
        raise malformed("a required member is missing, empty or no string", known.requirement)
    return value


def check_storable(value: object) -> None:
    """Check that a value can be written as JSON, and stored: no NUL, no lone surrogate.

    Raises SubjectError. Requirement SET-59.
    """
    try:
        text = msgspec.json.encode(value)
    except (TypeError, ValueError, RecursionError):
        raise malformed("not a JSON value", "SET-59") from None
    if holds_nul(text):
        raise malformed("a string holds NUL", "SET-59")


def _addresses(value: object) -> VerbatimJSON:
    if not isinstance(value, list) or not 0 < len(value) <= IDENTIFIERS_MAX:
        raise malformed(f"ip-addresses is no array of 1 to {IDENTIFIERS_MAX} strings", "SUB-11")
    try:
        for address in value:
            ipaddress.ip_address(address if isinstance(address, str) else "")
    except ValueError:
        raise malformed("ip-addresses holds something that is no IP address", "SUB-11") from None
    return VerbatimJSON(msgspec.json.encode(value).decode())


# --- formats: what is well formed, and the normal form -----------------------------------------

_EMAIL: Final = re.compile(r'(?:"[^"]*"|[^\s<>@"]+)@[^\s<>@"]+')
_ACCOUNT: Final = re.compile(r"acct:[^\s@]+@[^\s@]+", re.IGNORECASE)
_PHONE: Final = re.compile(r"\+[0-9]{7,15}")
_PHONE_BLANKS: Final = str.maketrans("", "", " -.()")
_DID: Final = re.compile(r"did:[a-z0-9]+:\S+")
_URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:\S+")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Format:
    required: tuple[str, ...]
    requirement: str
    check: Callable[[Mapping[str, Any]], bool] | None = None
    keeps_extra: bool = False


def _fits(pattern: re.Pattern[str], member: str) -> Callable[[Mapping[str, Any]], bool]:
    return lambda values: pattern.fullmatch(values[member]) is not None


def _is_phone(values: Mapping[str, Any]) -> bool:
    return _PHONE.fullmatch(_dial(values["phone_number"])) is not None


def _dial(number: str) -> str:
    return number.translate(_PHONE_BLANKS)


_FORMATS: Final[Mapping[str, _Format]] = MappingProxyType(
    {
        "account": _Format(required=("uri",), requirement="SUB-1", check=_fits(_ACCOUNT, "uri")),
        "email": _Format(required=("email",), requirement="SUB-2", check=_fits(_EMAIL, "email")),
        "iss_sub": _Format(required=("iss", "sub"), requirement="SUB-3"),
        "opaque": _Format(required=("id",), requirement="SUB-4"),
        "phone_number": _Format(required=("phone_number",), requirement="SUB-5", check=_is_phone),
        "did": _Format(required=("url",), requirement="SUB-6", check=_fits(_DID, "url")),
        "uri": _Format(required=("uri",), requirement="SUB-7", check=_fits(_URI, "uri")),
        "jwt_id": _Format(required=("iss", "jti"), requirement="SUB-9"),
        "saml_assertion_id": _Format(required=("issuer", "assertion_id"), requirement="SUB-10"),
        "ip-addresses": _Format(required=("ip-addresses",), requirement="SUB-11"),
        # RFC 9967 §2.1 lets further unique attributes stand beside the path.
        "scim": _Format(required=("uri",), requirement="SUB-12", keeps_extra=True),
    }
)


def _escape(text: str, separator: str) -> str:
    return text.replace("%", "%25").replace(separator, f"%{ord(separator):02X}")


def _account_form(subject: SimpleSubject) -> str:
    _, _, account = (subject.get("uri") or "").partition(":")
    user, _, host = account.rpartition("@")
    return f"acct:{user}@{host.lower()}"


def _email_form(subject: SimpleSubject) -> str:
    local, _, domain = (subject.get("email") or "").rpartition("@")
    return f"{local.lower()}@{_to_a_labels(domain)}"


def _to_a_labels(domain: str) -> str:
    if not domain.isascii():
        try:
            domain = domain.encode("idna").decode("ascii")
        except UnicodeError:
            # No valid international name: compared as it is written.
            return domain.lower()
    return domain.lower()


def _phone_form(subject: SimpleSubject) -> str:
    return _dial(subject.get("phone_number") or "")


def _ip_form(subject: SimpleSubject) -> str:
    value = dict(subject.members)["ip-addresses"]
    listed = msgspec.json.decode(value.text) if isinstance(value, VerbatimJSON) else [value]
    return ",".join(sorted({str(ipaddress.ip_address(address)) for address in listed}))


def _verbatim_form(subject: SimpleSubject) -> str:
    return msgspec.json.encode(render_simple(subject), order="sorted").decode()


def _member_form(*names: str) -> Callable[[SimpleSubject], str]:
    if len(names) == 1:
        return lambda subject: subject.get(names[0]) or ""
    return lambda subject: "|".join(_escape(subject.get(name) or "", "|") for name in names)


_NORMAL_FORMS: Final[Mapping[str, Callable[[SimpleSubject], str]]] = MappingProxyType(
    {
        "account": _account_form,
        "email": _email_form,
        "iss_sub": _member_form("iss", "sub"),
        "opaque": _member_form("id"),
        "phone_number": _phone_form,
        "did": _member_form("url"),
        "uri": _member_form("uri"),
        "jwt_id": _member_form("iss", "jti"),
        "saml_assertion_id": _member_form("issuer", "assertion_id"),
        "ip-addresses": _ip_form,
        "scim": _member_form("uri"),
    }
)
