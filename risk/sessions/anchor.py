"""What a session begins with: the context of its sign-in, and the key it is bound to. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from risk.contexts.model import NetworkRecord
from risk.contexts.parsing import (
    DEVICE_ID_CHARS_MAX,
    HOP_CHARS_MAX,
    JA4_CHARS_MAX,
    LANGUAGE_CHARS_MAX,
    TOKEN_HASH_CHARS_MAX,
    parse_signals,
)
from risk.zones.chain import read_chain
from runtime.errors import Invalid
from ssf.errors import SharedSignalsError
from ssf.jose import verification_key

USER_AGENT_CHARS_MAX: Final = 1024
COORDINATE_CHARS_MAX: Final = 1024
#: what a bound session may sign with: key type to (curve, members)
_EC: Final = frozenset({"kty", "crv", "x", "y"})
_RSA: Final = frozenset({"kty", "n", "e"})
_CURVES: Final = frozenset({"P-256"})


def parse_context(said: object) -> dict[str, Any] | None:
    """Read `{ip, ua?, ja4?, accept_lang?, device?: {id?, token_hash?, signals?}}`.

    Returns it in the form of `risk.contexts.stored`; None stays None. Raises Invalid.
    """
    if said is None:
        return None
    body = _object(said, "/context")
    device = _object(body.get("device", {}), "/context/device")
    ip = _text(body, "ip", HOP_CHARS_MAX)
    if not ip:
        raise _invalid("/context/ip", "the address of the client")
    context = {
        "ip": ip,
        "user_agent": _text(body, "ua", USER_AGENT_CHARS_MAX),
        "ja4": _text(body, "ja4", JA4_CHARS_MAX),
        "accept_language": _text(body, "accept_lang", LANGUAGE_CHARS_MAX),
        "device_id": _text(device, "id", DEVICE_ID_CHARS_MAX),
        "device_token_hash": _text(device, "token_hash", TOKEN_HASH_CHARS_MAX),
        "signals": parse_signals(device.get("signals")),
    }
    return {name: value for name, value in context.items() if value}


def placed(
    context: Mapping[str, Any] | None, record_of: Callable[[str], NetworkRecord]
) -> dict[str, Any] | None:
    """Return a parsed context with what is known of its address, as whoever asks has it.

    Its address is in normal form then. None stays None. Raises nothing.
    """
    if context is None:
        return None
    (ip,) = read_chain([context["ip"]]).hops
    if ip is None:
        return dict(context)
    record = record_of(ip)
    known = {"ip": ip, "asn": record.asn, "country": record.country}
    return {**context, **{name: value for name, value in known.items() if value}}


def parse_binding(said: object) -> dict[str, str] | None:
    """Read `{jwk}`: a public P-256 or RSA key; None stays None. Raises Invalid.

    A private key is refused: whoever sent it gave away what should never leave the device.
    """
    if said is None:
        return None
    jwk = _object(_object(said, "/binding").get("jwk"), "/binding/jwk")
    wanted = _EC if jwk.get("kty") == "EC" else _RSA
    if jwk.get("kty") not in {"EC", "RSA"} or not wanted <= jwk.keys():
        raise _invalid("/binding/jwk", "a public EC (P-256) or RSA key")
    if {"d", "p", "q", "dp", "dq", "qi", "k"} & jwk.keys():
        raise _invalid("/binding/jwk", "a public key: a private one must not be sent")
    key = {name: _text(jwk, name, COORDINATE_CHARS_MAX, "/binding/jwk") for name in wanted}
    if jwk["kty"] == "EC" and jwk["crv"] not in _CURVES:
        raise _invalid("/binding/jwk/crv", "P-256")
    try:
        verification_key(key)
    except SharedSignalsError as error:
        raise _invalid("/binding/jwk", error.description) from error
    return key


def _object(value: object, at: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _invalid(at, "an object")
    return value


def _text(body: Mapping[str, Any], name: str, chars_max: int, inside: str = "/context") -> str:
    value = body.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > chars_max or not value.isprintable():
        raise _invalid(f"{inside}/{name}", f"at most {chars_max} printable characters")
    return value


def _invalid(at: str, rule: str) -> Invalid:
    return Invalid(f"Not valid: {at}: {rule}.", pointers=((at, rule),))
