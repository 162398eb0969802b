"""The modules of a receiver's stream client (CR-1 to CR-7): its steps, and what it acknowledges."""

from __future__ import annotations

import asyncio
import secrets
import shlex
import sys
from collections.abc import Sequence
from typing import Final

import msgspec

from conformance.suite.checks import Checks, Verdict
from conformance.suite.http import AskError
from conformance.suite.receiver.party import Receiver
from conformance.suite.receiver.sets import BAD_SETS, CAEP_TYPES
from conformance.suite.receiver.stage import PUSH, StagedStream
from conformance.suite.transmitter.party import INTEROP_EVENTS
from conformance.suite.transmitter.streams import read_set

checks: Checks[Receiver] = Checks()
check = checks.check

#: the OpenID suite sends one SET per second (CRC-12); order, not speed, is what matters
PUSH_PAUSE_S: Final = 0.05
STEP_OUTPUT_CHARS: Final = 300
#: how a step shows itself in what the stage saw
SHOWS_AS: Final = {"status": "set-status"}


async def begin(rx: Receiver, *, interop: bool = False) -> None:
    """Open the stage for one module, with nothing on it."""
    stage = rx.stage
    stage.stream, stage.is_open, stage.is_interop = None, True, interop
    stage.seen.clear()
    stage.states.clear()
    await asyncio.sleep(0)


async def step(rx: Receiver, v: Verdict, name: str, *requirement_ids: str) -> None:
    """Have the operator make one step, and wait for its request. Raises StopCheck, AskError."""
    stage = rx.stage
    shown = SHOWS_AS.get(name, name)
    before = _count(rx, shown)
    if rx.options.step_command is None:
        sys.stderr.write(f"Now let the receiver do this: {name} ...\n")
    else:
        order = {"step": name, "issuer": rx.server.issuer, "audience": rx.signer.audience}
        await _run(rx.options.step_command, name, msgspec.json.encode(order), rx.options.step_s)
    seen = await stage.wait(lambda: _count(rx, shown) > before, rx.options.step_s)
    v.need(seen, *requirement_ids, told=f"the receiver makes the request: {name}")


def _count(rx: Receiver, name: str) -> int:
    return sum(one.step == name for one in rx.stage.seen)


async def _run(command: str, name: str, order: bytes, limit_s: float) -> None:
    process = await asyncio.create_subprocess_exec(
        *shlex.split(command),
        name,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(limit_s):
            told, _ = await process.communicate(order)
    except TimeoutError:
        process.kill()
        raise AskError(f"the step command did not end within {limit_s:g} s: {name}") from None
    if process.returncode:
        text = told.decode("utf-8", "replace")[-STEP_OUTPUT_CHARS:]
        raise AskError(f"the step command ended with {process.returncode} at {name}: {text}")


async def created(rx: Receiver, v: Verdict, *requirement_ids: str) -> StagedStream:
    """Have the receiver create its stream. Raises StopCheck."""
    await step(rx, v, "create", *requirement_ids)
    stream = rx.stage.stream
    v.need(stream, *requirement_ids, told="the receiver has a stream")
    assert stream is not None  # noqa: S101 - needed above
    return stream


async def acknowledged(
    rx: Receiver, v: Verdict, stream: StagedStream, jtis: Sequence[str], *requirement_ids: str
) -> None:
    """Deliver what is queued, and wait until each of `jtis` is acknowledged."""
    if stream.method == PUSH:
        for jti in list(stream.queue):
            await rx.server.push(rx.asker, stream, jti)
            await asyncio.sleep(PUSH_PAUSE_S)
    limit_s = rx.options.step_s + 2 * rx.options.hold_s
    await rx.stage.wait(lambda: all(stream.sent.get(jti) is not None for jti in jtis), limit_s)
    other = {jti: stream.sent.get(jti) for jti in jtis if stream.sent.get(jti) != "ack"}
    told = f"all {len(jtis)} SETs are acknowledged; others: {other}"
    v.must(not other, *requirement_ids, told=told)


async def verified(rx: Receiver, v: Verdict, stream: StagedStream, *requirement_ids: str) -> None:
    """Have the receiver verify its stream, and acknowledge the event."""
    before = set(stream.sent)
    await step(rx, v, "verify", *requirement_ids)
    jtis = [jti for jti in stream.sent if jti not in before]
    await acknowledged(rx, v, stream, jtis, *requirement_ids)


@check("CR-1", "CR-15", "SSF-META-20", "CRC-1", group="ssf")
async def happy_path(rx: Receiver, v: Verdict) -> None:
    """The receiver creates, reads, updates, replaces and deletes a stream."""
    await begin(rx)
    await created(rx, v, "CR-1", "CR-15", "CRC-1")
    found = any(one.step == "discover" for one in rx.stage.seen)
    if found:
        v.must(found, "SSF-META-20", "CRC-1", told="the metadata was found between host and path")
    for name in ("read", "update", "replace", "delete"):
        await step(rx, v, name, "CR-1", "CR-15")


@check("CR-2", "CR-15", group="module")
async def create_and_delete(rx: Receiver, v: Verdict) -> None:
    """The receiver creates a stream and deletes it."""
    await begin(rx, interop=rx.options.interop)
    await created(rx, v, "CR-2", "CR-15")
    await step(rx, v, "delete", "CR-2", "CR-15")


@check("CR-3", "CR-15", group="ssf")
async def status_update(rx: Receiver, v: Verdict) -> None:
    """The receiver sets the status of its stream."""
    await begin(rx)
    await created(rx, v, "CR-3")
    await step(rx, v, "status", "CR-3", "CR-15")
    await step(rx, v, "delete", "CR-3")


@check("CR-4", "CR-11", "CR-15", "SSF-VER-11", group="module")
async def stream_verification(rx: Receiver, v: Verdict) -> None:
    """The receiver verifies its stream with a state and acknowledges the event."""
    await begin(rx, interop=rx.options.interop)
    stream = await created(rx, v, "CR-4")
    await verified(rx, v, stream, "CR-4", "CR-11", "CR-15")
    state = rx.stage.states[-1] if rx.stage.states else None
    v.must(state, "CR-4", told="the request has a state")
    v.should(len(state or "") >= 16, "SSF-VER-11", told=f"the state is long: {len(state or '')}")  # noqa: PLR2004
    await step(rx, v, "delete", "CR-4")


@check("CR-5", "CR-10", "CR-13", "CR-14", group="module")
async def unsolicited_verification(rx: Receiver, v: Verdict) -> None:
    """A verification event without state that comes right after creation is acknowledged."""
    await begin(rx, interop=rx.options.interop)
    stream = await created(rx, v, "CR-5")
    await asyncio.sleep(1)
    jti, raw = rx.signer.verification(stream.stream_id, None)
    rx.stage.send(jti, raw)
    await acknowledged(rx, v, stream, [jti], "CR-5", "CR-10", "CR-13", "CR-14")
    await step(rx, v, "delete", "CR-5")


@check("CR-6", "CR-10", "CR-11", "CR-20", "CR-21", "CR-22", "CRC-10", "POLL-16", group="module")
async def supported_events(rx: Receiver, v: Verdict) -> None:
    """One SET of every delivered type is acknowledged."""
    await begin(rx, interop=rx.options.interop)
    stream = await created(rx, v, "CR-6")
    await verified(rx, v, stream, "CR-6")
    delivered = rx.stage.configuration(stream)["events_delivered"]
    v.need(delivered, "CR-6", told="the receiver asked for event types that there are")
    jtis = []
    for event_type in delivered:
        jti, raw = rx.signer.good(event_type)
        rx.stage.send(jti, raw)
        jtis.append(jti)
    await acknowledged(
        rx,
        v,
        stream,
        jtis,
        "CR-6",
        "CR-10",
        "CR-11",
        "CR-20",
        "CR-21",
        "CR-22",
        "CRC-10",
        "POLL-16",
    )
    await step(rx, v, "delete", "CR-6")


@check("CR-7", "INT-40", "INT-41", "INT-42", "INT-14", group="module")
async def caep_interop(rx: Receiver, v: Verdict) -> None:
    """The receiver asks for interop events, reads stream and status, and acknowledges each."""
    await begin(rx, interop=rx.options.interop)
    stream = await created(rx, v, "CR-7")
    delivered = rx.stage.configuration(stream)["events_delivered"]
    wanted = [one for one in INTEROP_EVENTS if one in delivered]
    v.need(wanted, "CR-7", told="it asks for at least one interop event")
    await step(rx, v, "read", "CR-7")
    await step(rx, v, "read-status", "CR-7")
    await verified(rx, v, stream, "CR-7")
    jtis = []
    subjects = (
        {"format": "email", "email": "example.user@example.com"},
        {"format": "iss_sub", "iss": "https://idp.example.com/", "sub": "1234"},
        {"format": "opaque", "id": "valid"},
    )
    for number, event_type in enumerate(wanted):
        jti, raw = rx.signer.good(event_type, sub_id=subjects[number % len(subjects)])
        rx.stage.send(jti, raw)
        jtis.append(jti)
    await acknowledged(rx, v, stream, jtis, "CR-7", "INT-14", "INT-40", "INT-41", "INT-42")
    await step(rx, v, "delete", "CR-7")


@check("POLL-12", "POLL-14", "POLL-15", "POLL-16", "SET-53", "SET-57", "SET-58", group="module")
async def polled_bad_sets(rx: Receiver, v: Verdict) -> None:
    """Over poll, sound SETs are acknowledged, also again; unsound ones are reported."""
    await begin(rx, interop=rx.options.interop)
    stream = await created(rx, v, "POLL-15")
    if stream.method == PUSH:
        await step(rx, v, "delete", "POLL-15")
        v.stop(*v.allowed, why="the receiver chose push")
    jti, raw = rx.signer.good(CAEP_TYPES[0])
    rx.stage.send(jti, raw)
    await acknowledged(rx, v, stream, [jti], "POLL-15", "POLL-16")
    rx.stage.send(jti, raw)
    await acknowledged(rx, v, stream, [jti], "POLL-14")
    chosen = [bad for bad in BAD_SETS if set(bad.ids) & {"SET-53", "SET-57", "SET-58"}]
    sent = {}
    for bad in chosen:
        raw = bad.build(rx.signer)
        key = str(read_set(raw).claims.get("jti") or secrets.token_hex(8))
        sent[key] = bad
        rx.stage.send(key, raw)
    limit_s = rx.options.step_s + 2 * rx.options.hold_s
    await rx.stage.wait(lambda: all(stream.sent[key] is not None for key in sent), limit_s)
    for key, bad in sent.items():
        became = stream.sent[key] or "nothing"
        ids = tuple(one for one in bad.ids if one in v.allowed)
        told = f"{bad.name} is reported with one of {sorted(bad.codes)}: {became}"
        v.must(became.removeprefix("error ") in bad.codes, *ids, "POLL-12", told=told)
    await step(rx, v, "delete", "POLL-15")


@check(
    "CRC-3",
    "CRC-4",
    "CRC-5",
    "CRC-6",
    "CRC-7",
    "CRC-14",
    "POLL-3",
    "POLL-18",
    "POLL-25",
    group="last",
)
async def strictness(rx: Receiver, v: Verdict) -> None:
    """Over all modules: what the OpenID suite's transmitter would have counted as a failure."""
    await asyncio.sleep(0)
    broken = {one.requirement_id: one.text for one in reversed(rx.stage.violations)}
    for requirement_id in sorted(v.allowed):
        text = broken.get(requirement_id)
        v.must(text is None, requirement_id, told=f"never broken{f': {text}' if text else ''}")
