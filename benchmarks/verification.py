"""Promise: verifying a SET costs little more than the signature check itself.

One thread, one core, in turn: the bare `cryptography` primitive on the same bytes, and the way a
SET takes at intake (`ssf.jose.split_jws`, `check_header`, `verify`): strict parsing, canonical
base64url, header rules, signature. With `parse_set` the claims are checked, too.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from jwcrypto.jwk import JWK

from benchmarks.figures import table
from benchmarks.machine import Machine, machine_facts, write_result
from ssf.jose import (
    CompactJWS,
    VerificationKey,
    check_header,
    sign,
    signing_key,
    split_jws,
    verification_key,
    verify,
)
from ssf.secevent import Expectation, parse_set

TARGETS: Final = {"RS256": 0.60, "ES256": 0.80}
ISSUER: Final = "https://vendor.example"
AUDIENCE: Final = "https://hub.example"
IAT_S: Final = 1_790_000_000
COMPLIANCE: Final = "https://schemas.openid.net/secevent/caep/event-type/device-compliance-change"
EXPECTATION: Final = Expectation(issuer=ISSUER, audiences=frozenset({AUDIENCE}))


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """Of one algorithm: operations per CPU-second, the median of all rounds, and their share."""

    algorithm: str
    token_bytes: int
    primitive_per_cpu_s: float
    verified_per_cpu_s: float
    with_claims_per_cpu_s: float
    of_primitive: float


class VerificationResult(msgspec.Struct, frozen=True, kw_only=True):
    """One run."""

    machine: Machine
    command: str
    figures: list[Figure]


def measure(rounds: int, slice_s: float, folder: Path, *, command: str) -> VerificationResult:
    """Measure both algorithms."""
    machine = machine_facts(folder)
    kinds: dict[str, dict[str, Any]] = {
        "RS256": {"kty": "RSA", "size": 2048},
        "ES256": {"kty": "EC", "crv": "P-256"},
    }
    figures = []
    for algorithm, kind in kinds.items():
        jwk = JWK.generate(kid="benchmark", use="sig", alg=algorithm, **kind)
        token = sign(_claims(), signing_key(jwk.export_private(as_dict=True)), typ="secevent+jwt")
        key = verification_key(jwk.export_public(as_dict=True))
        figures.append(_figure(algorithm, token, key, rounds=rounds, slice_s=slice_s))
    return VerificationResult(machine=machine, command=command, figures=figures)


def _figure(
    algorithm: str, token: bytes, key: VerificationKey, *, rounds: int, slice_s: float
) -> Figure:
    def verified() -> CompactJWS:
        jws = split_jws(token)
        check_header(jws.header)
        verify(jws, key)
        return jws

    def with_claims() -> None:
        parse_set(verified().payload, EXPECTATION, IAT_S)

    ways = (_primitive(token, key), verified, with_claims)
    rates: list[list[float]] = [[], [], []]
    for _ in range(rounds):
        for rate, way in zip(rates, ways, strict=True):
            rate.append(_per_cpu_s(way, slice_s))
    primitive, strict, claims = (sorted(rate)[rounds // 2] for rate in rates)
    return Figure(
        algorithm=algorithm,
        token_bytes=len(token),
        primitive_per_cpu_s=primitive,
        verified_per_cpu_s=strict,
        with_claims_per_cpu_s=claims,
        of_primitive=strict / primitive,
    )


def _primitive(token: bytes, key: VerificationKey) -> Callable[[], object]:
    """Return the bare check, on bytes that were taken apart before."""
    jws, public = split_jws(token), key.public
    if isinstance(public, rsa.RSAPublicKey):
        scheme, digest = padding.PKCS1v15(), hashes.SHA256()
        return lambda: public.verify(jws.signature, jws.signing_input, scheme, digest)
    assert isinstance(public, ec.EllipticCurvePublicKey)
    der, ecdsa = _der(jws.signature), ec.ECDSA(hashes.SHA256())
    return lambda: public.verify(der, jws.signing_input, ecdsa)


def _der(signature: bytes) -> bytes:
    from cryptography.hazmat.primitives.asymmetric.utils import (  # noqa: PLC0415 - here only
        encode_dss_signature,
    )

    middle = len(signature) // 2
    return encode_dss_signature(
        int.from_bytes(signature[:middle]), int.from_bytes(signature[middle:])
    )


def _per_cpu_s(way: Callable[[], object], slice_s: float) -> float:
    started, done = time.process_time(), 0
    while time.process_time() - started < slice_s:
        for _ in range(20):
            way()
        done += 20
    return done / (time.process_time() - started)


def _claims() -> bytes:
    return msgspec.json.encode(
        {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "iat": IAT_S,
            "jti": "benchmark-0001",
            "txn": "txn-0001",
            "sub_id": {
                "format": "complex",
                "user": {"format": "email", "email": "user000001@load.example"},
                "device": {"format": "opaque", "id": "device-000001.load.example"},
            },
            "events": {
                COMPLIANCE: {
                    "event_timestamp": IAT_S,
                    "initiating_entity": "system",
                    "reason_admin": {"en": "Disk encryption is off."},
                    "previous_status": "compliant",
                    "current_status": "not-compliant",
                }
            },
        }
    )


def report_text(result: VerificationResult) -> str:
    """Return the result for people."""
    rows = [
        (
            one.algorithm,
            f"{one.primitive_per_cpu_s:,.0f}",
            f"{one.verified_per_cpu_s:,.0f}",
            f"{one.of_primitive:.0%}",
            f"{TARGETS[one.algorithm]:.0%}",
            f"{one.with_claims_per_cpu_s:,.0f}",
        )
        for one in result.figures
    ]
    header = ("per CPU-second", "primitive", "verified", "share", "target", "with claims")
    return table(header, rows)


def main() -> int:
    """Measure, print, and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--slice-s", type=float, default=0.5)
    parser.add_argument("--keep-result", action="store_true", help="write benchmarks/results/")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        result = measure(
            options.rounds,
            options.slice_s,
            Path(made),
            command=shlex.join(["python", "-m", "benchmarks.verification", *sys.argv[1:]]),
        )
    print(report_text(result))
    if options.keep_result:
        print(f"written to {write_result('verification', result)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
