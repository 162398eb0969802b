"""What every SET that arrives has to be (standards' section 9.3)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

from conformance.suite.checks import Verdict
from conformance.suite.transmitter.options import Profile
from conformance.suite.transmitter.party import Transmitter
from conformance.suite.transmitter.streams import OpenStream, Received
from ssf.errors import SharedSignalsError
from ssf.jose import split_jws, verify

#: the rows that `judge_set` speaks of: a check that uses it declares them
SET_RULES: Final = (
    "CTS-1", "CTS-2", "CTS-3", "CTS-4", "CTS-5", "CTS-6", "CTS-7", "CTS-8", "CTS-9", "CTS-10",
    "SET-1", "SET-2", "SET-4", "SET-7", "SET-8", "SET-9", "SET-11", "SET-13", "SET-15", "SET-30",
    "SET-32", "SET-34", "SET-36", "SET-40", "INT-15", "INT-31",
)  # fmt: skip
VERIFICATION_RULES: Final = (*SET_RULES, "CTS-11", "CTS-12", "SSF-VER-3", "SSF-VER-5")


def judge_set(tx: Transmitter, v: Verdict, received: Received, stream: OpenStream) -> None:
    """Judge header, signature and claims of one SET."""
    interop = tx.options.profile is Profile.CAEP_INTEROP
    header, claims = received.header, received.claims
    v.need(header and claims, "SET-1", "CTS-3", told="a compact JWS with JSON header and payload")
    _judge_signature(tx, v, received)
    typ = header.get("typ")
    v.must(typ == "secevent+jwt", "CTS-3", "SET-30", "SET-40", told=f"typ is secevent+jwt: {typ!r}")
    v.should(isinstance(header.get("kid"), str), "SET-36", told="the header has a kid")
    if interop:
        alg = header.get("alg")
        v.must(alg == "RS256", "CTS-2", "SET-34", "INT-15", told=f"alg is RS256: {alg!r}")
    else:
        v.skip("CTS-2", "SET-34", "INT-15", why="binding in the interoperability profile only")
    _judge_times_and_names(tx, v, claims)
    _judge_audience(v, claims, stream)
    _judge_events(v, claims, interop=interop)


def _judge_signature(tx: Transmitter, v: Verdict, received: Received) -> None:
    alg, kid = received.header.get("alg"), received.header.get("kid")
    v.must(alg != "none", "SET-32", told=f"the SET is signed: alg {alg!r}")
    key = tx.keys.find(kid, str(alg)) if tx.keys else None
    if not v.must(key, "CTS-1", "SET-32", told=f"the JWK Set has the key {kid!r} for {alg!r}"):
        return
    try:
        jws = split_jws(received.raw)
        if key is not None:
            verify(jws, key)
    except SharedSignalsError as problem:
        told = f"the signature verifies: {problem.description}"
        v.must(False, "CTS-1", "SET-32", told=told)  # noqa: FBT003


def _judge_times_and_names(tx: Transmitter, v: Verdict, claims: Mapping[str, Any]) -> None:
    for name, requirement_id in (("sub", "SET-7"), ("exp", "SET-8")):
        v.must(name not in claims, "CTS-5", requirement_id, "SET-40", told=f"no {name} claim")
    iss = claims.get("iss")
    v.must(iss == tx.issuer, "CTS-6", "SET-11", told=f"iss is {tx.issuer}: {iss!r}")
    iat = claims.get("iat")
    whole = isinstance(iat, int) and not isinstance(iat, bool)
    past = isinstance(iat, int) and iat <= time.time()  # noqa: TID251 - the receiver's own clock
    v.must(whole and past, "CTS-7", told=f"iat is whole and not in the future: {iat!r}")
    v.must(isinstance(claims.get("jti"), str), "SET-1", told="jti is a string")
    txn = claims.get("txn")
    v.should(isinstance(txn, str), "CTS-10", "SET-15", told=f"txn is a string: {txn!r}")
    v.must(isinstance(claims.get("sub_id"), dict), "SET-9", told="sub_id is an object")


def _judge_audience(v: Verdict, claims: Mapping[str, Any], stream: OpenStream) -> None:
    named, own = _texts(claims.get("aud")), _texts(stream.configuration.get("aud"))
    v.must(named, "CTS-8", "SET-13", told=f"aud is a string or an array: {claims.get('aud')!r}")
    v.should(named <= own, "CTS-9", told=f"aud {sorted(named)} is of the stream's {sorted(own)}")


def _judge_events(v: Verdict, claims: Mapping[str, Any], *, interop: bool) -> None:
    events = claims.get("events")
    ok = isinstance(events, dict) and bool(events)
    v.need(ok, "SET-1", "SET-2", told=f"events is an object with a member: {events!r}")
    payloads = list(events.values()) if isinstance(events, dict) else []
    objects = all(isinstance(one, dict) for one in payloads)
    v.must(objects, "SET-2", told="every event is an object")
    told = f"exactly one event: {len(payloads)}"
    if interop:
        v.must(len(payloads) == 1, "CTS-4", "SET-4", "INT-31", told=told)
    else:
        v.should(len(payloads) == 1, "CTS-4", "SET-4", told=told)


def judge_verification(
    tx: Transmitter, v: Verdict, received: Received, stream: OpenStream, state: str | None
) -> None:
    """Judge a verification SET. state: what was asked for last, None for nothing."""
    judge_set(tx, v, received, stream)
    wanted = {"format": "opaque", "id": stream.stream_id}
    sub_id = received.claims.get("sub_id")
    v.must(sub_id == wanted, "CTS-11", "SSF-VER-5", told=f"sub_id is {wanted}: {sub_id!r}")
    same = received.state == state
    v.must(same, "CTS-12", "SSF-VER-3", told=f"state is {state!r}: {received.state!r}")


def _texts(value: object) -> set[str]:
    if isinstance(value, str):
        return {value}
    if isinstance(value, list) and value and all(isinstance(one, str) for one in value):
        return set(value)
    return set()
