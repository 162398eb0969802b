"""Checks of what a transmitter says of itself: metadata, keys, TLS. They run once."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from conformance.suite.checks import Checks, Verdict
from conformance.suite.http import JSON_MEDIA_TYPE
from conformance.suite.tls import Probe, probe
from conformance.suite.transmitter.options import Profile
from conformance.suite.transmitter.party import Transmitter
from ssf.errors import RemoteProtocolError, SETError
from ssf.jose import verification_key
from ssf.jwks import parse_jwks

checks: Checks[Transmitter] = Checks()
check = checks.check

ENDPOINTS: Final = {
    "configuration_endpoint": "SSF-META-5",
    "status_endpoint": "SSF-META-6",
    "add_subject_endpoint": "SSF-META-7",
    "remove_subject_endpoint": "SSF-META-8",
    "verification_endpoint": "SSF-META-9",
}
PRIVATE_MEMBERS: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


@check("CTC-1", "CT-1", "SSF-META-2", "SSF-META-20", "SSF-META-21", "SET-11", group="once")
async def metadata_location(tx: Transmitter, v: Verdict) -> None:
    """The metadata lies where the standard says and names the issuer."""
    answer = await tx.asker.ask("GET", tx.metadata_url)
    ids = ("CTC-1", "SSF-META-20", "SSF-META-21")
    v.need(answer.status == 200, *ids, told=f"200: {answer.told()}")  # noqa: PLR2004 - OK
    ok = answer.media_type == JSON_MEDIA_TYPE
    v.must(ok, "CTC-1", "SSF-META-21", told=f"application/json: {answer.told()}")
    v.need(
        isinstance(answer.json, dict), "CTC-1", "SSF-META-21", told=f"an object: {answer.told()}"
    )
    issuer = answer.object.get("issuer")
    v.need(isinstance(issuer, str), "CT-1", "SSF-META-2", told="issuer is a string")
    same = str(issuer).rstrip("/") == tx.options.issuer.rstrip("/")
    v.must(same, "CT-1", "SSF-META-2", told=f"issuer is {tx.options.issuer}, it says {issuer}")
    parts = urlsplit(str(issuer))
    plain = parts.scheme == "https" and not parts.query and not parts.fragment
    v.must(plain, "SSF-META-2", "SET-11", told=f"issuer is https without query: {issuer}")


@check(
    "CT-1",
    "SSF-META-5",
    "SSF-META-6",
    "SSF-META-7",
    "SSF-META-8",
    "SSF-META-9",
    "SSF-META-11",
    "SSF-META-22",
    group="once",
)
async def metadata_members(tx: Transmitter, v: Verdict) -> None:
    """Members have the right types, and none is an empty array."""
    metadata = tx.metadata
    v.need(metadata, "CT-1", told="there is metadata to read")
    empty = [name for name, value in metadata.items() if value == []]
    v.must(not empty, "CT-1", "SSF-META-22", told=f"no empty arrays; empty: {empty}")
    for name, requirement_id in ENDPOINTS.items():
        value = metadata.get(name)
        ok = value is None or (isinstance(value, str) and value.startswith("https://"))
        v.must(ok, "CT-1", requirement_id, told=f"{name} is https or absent: {value!r}")
    subjects = metadata.get("default_subjects")
    known = subjects in (None, "ALL", "NONE")
    v.should(known, "SSF-META-11", told=f"default_subjects is ALL or NONE: {subjects!r}")


@check("CT-1", "SSF-META-1", "SSF-META-3", "SSF-META-4", "SSF-META-10", "SSF-META-12", group="once")
async def metadata_values(tx: Transmitter, v: Verdict) -> None:
    """The version has an underscore; methods and schemes are URNs."""
    metadata = tx.metadata
    v.need(metadata, "CT-1", told="there is metadata to read")
    version = metadata.get("spec_version")
    ok = version is None or (isinstance(version, str) and "." not in version and "_" in version)
    v.must(ok, "SSF-META-1", told=f"spec_version has an underscore and no dot: {version!r}")
    jwks_uri = metadata.get("jwks_uri")
    ok = isinstance(jwks_uri, str) and jwks_uri.startswith("https://")
    v.must(ok, "CT-1", "SSF-META-3", told=f"jwks_uri is https: {jwks_uri!r}")
    methods = metadata.get("delivery_methods_supported")
    ok = isinstance(methods, list) and all(isinstance(one, str) for one in methods)
    v.should(ok, "CT-1", "SSF-META-4", told=f"delivery_methods_supported: {methods!r}")
    for scheme in _list(metadata, "authorization_schemes"):
        urn = scheme.get("spec_urn") if isinstance(scheme, dict) else None
        ok = isinstance(urn, str) and urn.startswith("urn:")
        v.should(ok, "SSF-META-10", told=f"spec_urn begins with urn: {scheme!r}")
    critical = metadata.get("critical_subject_members")
    ok = critical is None or all(isinstance(one, str) for one in critical or [None])
    v.must(ok, "SSF-META-12", told=f"critical_subject_members are strings: {critical!r}")


@check(
    "INT-3",
    "INT-4",
    "INT-5",
    "INT-6",
    "INT-7",
    "INT-8",
    "INT-9",
    "INT-15",
    "SET-34",
    group="interop",
)
async def interop_metadata(tx: Transmitter, v: Verdict) -> None:
    """The interoperability profile makes these members binding."""
    metadata = tx.metadata
    version = metadata.get("spec_version")
    ok = isinstance(version, str) and "." not in version and version >= "1_0"
    v.must(ok, "INT-3", told=f"spec_version is 1_0 or greater: {version!r}")
    both = {"urn:ietf:rfc:8935", "urn:ietf:rfc:8936"}
    methods = set(map(str, _list(metadata, "delivery_methods_supported")))
    v.must(both & methods, "INT-4", told=f"delivery methods: {sorted(methods)}")
    for name, requirement_id in (
        ("jwks_uri", "INT-5"),
        ("configuration_endpoint", "INT-6"),
        ("status_endpoint", "INT-7"),
        ("verification_endpoint", "INT-8"),
    ):
        v.must(tx.endpoint(name), requirement_id, told=f"{name} is there")
    schemes = _list(metadata, "authorization_schemes")
    ok = {"spec_urn": "urn:ietf:rfc:6749"} in schemes
    v.must(ok, "INT-9", told=f"authorization_schemes has urn:ietf:rfc:6749: {schemes}")
    keys = tx.keys.keys if tx.keys else ()
    rs256 = any("RS256" in key.algorithms for key in keys)
    v.must(rs256, "INT-15", "SET-34", told="a key for RS256 with 2048 bits or more")


@check("SSF-META-20", "SSF-META-26", group="once")
async def metadata_of_nobody(tx: Transmitter, v: Verdict) -> None:
    """There is no metadata for an issuer that does not exist."""
    unknown = f"{tx.metadata_url.rstrip('/')}/no-such-{secrets.token_hex(6)}"
    answer = await tx.asker.ask("GET", unknown)
    v.should(answer.status == 404, "SSF-META-26", told=f"404: {answer.told()}")  # noqa: PLR2004
    claimed = answer.object.get("issuer") if answer.status == 200 else None  # noqa: PLR2004
    v.must(claimed is None, "SSF-META-20", told=f"no issuer is made up: {answer.told()}")


@check("CT-1", "SET-35", "INT-5", "SSF-META-3", group="once")
async def published_keys(tx: Transmitter, v: Verdict) -> None:
    """The JWK Set holds distinct public keys that can be read."""
    uri = tx.endpoint("jwks_uri")
    v.need(uri, "CT-1", "SSF-META-3", "INT-5", told="jwks_uri is there")
    answer = await tx.asker.ask("GET", uri or "")
    keys = answer.object.get("keys")
    ok = answer.status == 200 and isinstance(keys, list) and bool(keys)  # noqa: PLR2004
    v.need(ok, "CT-1", "SET-35", "INT-5", told=f"a JWK Set with keys: {answer.told()}")
    read = [key for key in keys or [] if isinstance(key, dict)]
    v.must(len(read) == len(keys or []), "CT-1", "SET-35", told="every key is an object")
    for key in read:
        _judge_key(v, key)
    kids = [key.get("kid") for key in read]
    v.must(len(set(map(str, kids))) == len(kids), "SET-35", told=f"kids are distinct: {kids}")
    try:
        found = parse_jwks(answer.body)
        v.must(found.keys, "CT-1", told="at least one key can be used")
    except RemoteProtocolError as problem:
        v.must(False, "CT-1", told=f"the JWK Set can be read: {problem.description}")  # noqa: FBT003


def _judge_key(v: Verdict, key: Mapping[str, Any]) -> None:
    private = sorted(PRIVATE_MEMBERS & key.keys())
    name = key.get("kid")
    v.must(not private, "CT-1", "SET-35", told=f"key {name!r} has no private members: {private}")
    ok = isinstance(name, str) and isinstance(key.get("kty"), str)
    v.must(ok, "SET-35", told=f"key {name!r} has kid and kty")
    hints = key.get("use") == "sig" and isinstance(key.get("alg"), str)
    v.should(hints, "SET-35", told=f"key {name!r} has use=sig and alg")
    if key.get("kty") in {"RSA", "EC", "OKP"}:
        try:
            verification_key(key)
        except SETError as problem:
            told = f"key {name!r} can be used: {problem.description}"
            v.should(False, "SET-35", told=told)  # noqa: FBT003


@check("CTC-3", "INT-1", group="once")
async def tls_versions(tx: Transmitter, v: Verdict) -> None:
    """The issuer speaks TLS 1.2 or 1.3 and refuses 1.0 and 1.1."""
    parts = urlsplit(tx.metadata_url)
    v.need(
        parts.scheme == "https", "CTC-3", "INT-1", told=f"the issuer is https: {tx.metadata_url}"
    )
    host, port = parts.hostname or "", parts.port or 443
    seen = {version: await probe(host, port, version) for version in ("1.0", "1.1", "1.2", "1.3")}
    modern = Probe.ACCEPTED in {seen["1.2"], seen["1.3"]}
    v.must(modern, "CTC-3", "INT-1", told=f"TLS 1.2 or 1.3 is accepted: {seen}")
    for old in ("1.0", "1.1"):
        if seen[old] is Probe.UNABLE:
            v.skip("CTC-3", why=f"TLS {old} cannot be offered from here")
        else:
            refused = seen[old] is Probe.REFUSED
            v.must(refused, "CTC-3", "INT-1", told=f"TLS {old} is refused: {seen[old]}")
    v.should(seen["1.3"] is Probe.ACCEPTED, "CTC-3", told=f"TLS 1.3 is supported: {seen['1.3']}")
    if seen["1.3"] is Probe.ACCEPTED:
        chosen = await probe(host, port, "any")
        v.should(chosen is Probe.ACCEPTED, "CTC-3", told="TLS 1.3 is preferred over 1.2")


@check("CTC-2", "INT-10", "SSF-META-4", group="each")
async def delivery_method_offered(tx: Transmitter, v: Verdict) -> None:
    """The delivery method under test is offered."""
    methods = tx.metadata.get("delivery_methods_supported")
    if methods is None and tx.options.profile is Profile.SSF:
        v.should(False, "SSF-META-4", "CTC-2", told="delivery_methods_supported is there")  # noqa: FBT003
        return
    ok = isinstance(methods, list) and tx.delivery.method in methods
    v.must(ok, "CTC-2", "INT-10", "SSF-META-4", told=f"{tx.delivery.method} in {methods!r}")


def _list(metadata: Mapping[str, Any], name: str) -> list[Any]:
    value = metadata.get(name)
    return value if isinstance(value, list) else []
