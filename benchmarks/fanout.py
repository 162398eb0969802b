"""Promise: one event reaches a thousand push streams at most of the speed of signing.

The limit is the signature: every stream gets its own SET. So the figure is deliveries per
CPU-second of the delivery process, as a share of what the bare `cryptography` primitive signs per
CPU-second in the same run. Each delivery is rendered, signed, pushed, answered 202 and marked
delivered in the database; marking happens in the core process, whose time is shown beside it.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Final

import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from benchmarks.command import run
from benchmarks.figures import table
from benchmarks.hub_process import running_hub
from benchmarks.machine import Machine, machine_facts, past
from benchmarks.receiver import Verdict
from benchmarks.streams import (
    add_app,
    add_streams,
    add_vendor,
    cpu_by_role,
    emails,
    forget,
    push_to,
    receiving,
    set_level,
    sign_with,
    us_each,
    wait_for,
    wait_until,
)

TARGET_OF_PRIMITIVE: Final = 0.60
PRIMITIVE_S: Final = 1.5
SIGNED_BYTES: Final = 900
PENDING: Final = "SELECT count(*) FROM deliveries WHERE state = 'pending'"


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """How many streams, how many events in turn, and over how many hosts the streams go."""

    streams: int
    events: int
    algorithm: str
    history: int
    hosts: int


class FanoutResult(msgspec.Struct, frozen=True, kw_only=True):
    """One run. per_delivery_cpu_s: deliveries per CPU-second of the delivery process."""

    machine: Machine
    command: str
    sizes: Sizes
    primitive_per_cpu_s: float
    one_event_s: float
    deliveries_per_s: float
    per_delivery_cpu_s: float
    of_primitive: float
    cpu_us_per_delivery: dict[str, float]
    verdict: Verdict


def measure(sizes: Sizes, folder: Path, *, command: str) -> FanoutResult:
    """Run one hub and one receiver; every file lies in `folder`."""
    machine = machine_facts(folder)
    with (
        running_hub(folder, history=sizes.history) as hub,
        receiving(hosts=sizes.hosts) as receiver,
    ):
        if sizes.algorithm != "RS256":
            sign_with(hub, sizes.algorithm)
        vendor = add_vendor(hub, label="fanout", subjects=sizes.events + 1)
        users = emails(vendor, sizes.events + 1)
        deliveries = [push_to(receiver, one, hosts=sizes.hosts) for one in range(sizes.streams)]
        add_streams(hub, add_app(hub, "fanout"), deliveries)
        started = time.monotonic()
        set_level(hub, users[:1], "HIGH")
        first = wait_for(receiver, sizes.streams)
        wait_until(hub, PENDING, 0)
        forget(receiver)
        primitive_before = primitive_per_cpu_s(sizes.algorithm)
        before = cpu_by_role(hub)
        set_level(hub, users[1:], "HIGH")
        verdict = wait_for(receiver, sizes.streams * sizes.events)
        wait_until(hub, PENDING, 0)
        used = cpu_by_role(hub).since(before)
    # A machine that others use is not equally fast all the time.
    primitive = (primitive_before + primitive_per_cpu_s(sizes.algorithm)) / 2
    per_cpu_s = verdict.received / used.delivery
    return FanoutResult(
        machine=machine,
        command=command,
        sizes=sizes,
        primitive_per_cpu_s=primitive,
        one_event_s=first.last_at_s - started,
        deliveries_per_s=verdict.received / (verdict.last_at_s - verdict.first_at_s),
        per_delivery_cpu_s=per_cpu_s,
        of_primitive=per_cpu_s / primitive,
        cpu_us_per_delivery=us_each(used, verdict.received),
        verdict=verdict,
    )


def primitive_per_cpu_s(algorithm: str) -> float:
    """Return how many signatures the bare primitive makes per CPU-second."""
    message = b"s" * SIGNED_BYTES
    if algorithm == "RS256":
        rsa_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        scheme = padding.PKCS1v15()

        def sign() -> bytes:
            return rsa_key.sign(message, scheme, hashes.SHA256())
    else:
        ec_key = ec.generate_private_key(ec.SECP256R1())

        def sign() -> bytes:
            return ec_key.sign(message, ec.ECDSA(hashes.SHA256()))

    started, made = time.process_time(), 0
    while time.process_time() - started < PRIMITIVE_S:
        sign()
        made += 1
    return made / (time.process_time() - started)


def report_text(result: FanoutResult) -> str:
    """Return the result for people."""
    cpu = result.cpu_us_per_delivery
    rows = [
        (
            f"{result.sizes.streams:,} streams, {result.sizes.algorithm}",
            f"{result.deliveries_per_s:,.0f}",
            f"{result.per_delivery_cpu_s:,.0f}",
            f"{result.primitive_per_cpu_s:,.0f}",
            f"{result.of_primitive:.0%}",
            *(f"{cpu[role]:,.0f}" for role in ("delivery", "core", "api")),
        )
    ]
    header = (
        "fan-out",
        "per s",
        "per CPU-s of delivery",
        "primitive",
        "share",
        "delivery us",
        "core us",
        "api us",
    )
    return (
        f"{table(header, rows)}\n\none event to all streams: {result.one_event_s:.2f} s; target "
        f"{TARGET_OF_PRIMITIVE:.0%} of the primitive; {result.verdict}"
    )


def main() -> int:
    """Measure, print, and keep the result; 1 when a SET is missing or out of order."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=1_000)
    parser.add_argument("--events", type=int, default=10)
    parser.add_argument("--algorithm", default="RS256", choices=("RS256", "ES256"))
    parser.add_argument("--history", type=int, default=0, help="old events in the database")
    parser.add_argument("--hosts", type=int, default=0, help="loopback addresses of the receivers")
    result = run(
        "benchmarks.fanout",
        parser,
        Sizes,
        measure,
        report=report_text,
        name=lambda result: (
            f"fanout-{result.sizes.algorithm.lower()}{past(result.sizes.history)}"
            + (f"-{result.sizes.hosts}-hosts" if result.sizes.hosts else "")
        ),
    )
    return 0 if result.verdict.out_of_order == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
