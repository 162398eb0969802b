"""Checks of stream status and subjects."""

from __future__ import annotations

import secrets
from typing import Any, Final

from conformance.suite.checks import Checks, Verdict
from conformance.suite.http import Answer
from conformance.suite.transmitter.expect import need_object, status_is, status_should_be
from conformance.suite.transmitter.party import EXAMPLE_SUBJECT, Transmitter, with_query
from conformance.suite.transmitter.streams import OpenStream

checks: Checks[Transmitter] = Checks()
check = checks.check

OK: Final = 200
NO_CONTENT: Final = 204
#: the order of the OpenID suite, which then deletes the disabled stream
STATUSES: Final = ("enabled", "paused", "disabled")


async def read_status(tx: Transmitter, query: str) -> Answer:
    """Ask for the status of a stream. Raises AskError."""
    return await tx.call("GET", with_query(tx.endpoint("status_endpoint") or "", query))


@check("CT-2", "SSF-STAT-1", "SSF-STAT-2", "INT-7", "INT-11", group="each")
async def status(tx: Transmitter, v: Verdict) -> None:
    """The status of a stream can be read."""
    _need_endpoint(tx, v)
    stream = await tx.create()
    answer = await read_status(tx, stream.query)
    need_object(v, answer, OK, "CT-2", "SSF-STAT-1", "INT-7", "INT-11")
    told = answer.object
    v.must(told.get("stream_id") == stream.stream_id, "SSF-STAT-1", told="it names the stream")
    v.must(told.get("status") in STATUSES, "SSF-STAT-2", told=f"a known status: {told}")
    status_is(v, await read_status(tx, "stream_id=no-such-stream"), 404, "SSF-STAT-1")
    url = tx.endpoint("status_endpoint") or ""
    status_should_be(v, await tx.call("GET", url), 400, "SSF-STAT-1")


@check(
    "CT-2",
    "SSF-STAT-7",
    "SSF-STAT-8",
    "SSF-STAT-9",
    "SSF-OP-40",
    "INT-7",
    "SSF-STAT-13",
    group="each",
)
async def status_update(tx: Transmitter, v: Verdict) -> None:
    """A stream is enabled, paused, disabled in turn, and then deleted."""
    _need_endpoint(tx, v)
    stream = await tx.create()
    url = with_query(tx.endpoint("status_endpoint") or "", stream.query)
    for wanted in STATUSES:
        body = {"stream_id": stream.stream_id, "status": wanted, "reason": "conformance check"}
        answer = await tx.call("POST", url, body)
        need_object(v, answer, OK, "CT-2", "SSF-STAT-7", "SSF-STAT-8", "INT-7", "SSF-STAT-13")
        told = answer.object
        v.must(told.get("status") == wanted, "SSF-STAT-7", "INT-7", told=f"{wanted}: {told}")
        read = (await read_status(tx, stream.query)).object.get("status")
        v.must(read == wanted, "SSF-STAT-7", told=f"{wanted} is read back: {read}")
    back = await stream.set_status("enabled")
    status_should_be(v, back, OK, "SSF-STAT-9")
    await stream.set_status("disabled")
    status_is(v, await stream.delete(), NO_CONTENT, "CT-2", "SSF-OP-40")


@check("SSF-STAT-7", "SSF-STAT-8", "SSF-STAT-10", "SSF-OP-52", "SSF-OP-53", group="each")
async def status_refusals(tx: Transmitter, v: Verdict) -> None:
    """An unknown status is 400, an unknown stream 404, no token 401."""
    _need_endpoint(tx, v)
    stream = await tx.create()
    url = tx.endpoint("status_endpoint") or ""
    status_is(v, await tx.call("POST", url, raw=b";{ broken"), 400, "SSF-STAT-7", "SSF-OP-52")
    status_is(v, await stream.set_status("asleep"), 400, "SSF-STAT-7")
    body = {"stream_id": "no-such-stream", "status": "paused"}
    status_is(v, await tx.call("POST", url, body), 404, "SSF-STAT-10")
    bad = await tx.call("POST", url, body, token="invalid:token")  # noqa: S106
    status_is(v, bad, 401, "SSF-STAT-10")
    other = with_query(url, "stream_id=another")
    mixed = await tx.call("POST", other, {"stream_id": stream.stream_id, "status": "paused"})
    status_should_be(v, mixed, {400, 200}, "SSF-STAT-8")


@check("CT-16", "SSF-SUBJ-1", "SSF-SUBJ-2", "SSF-SUBJ-3", "SSF-SUBJ-7", group="managed")
async def subjects(tx: Transmitter, v: Verdict) -> None:
    """A subject is added with 200 and removed with 204, however often."""
    add, remove = _subject_endpoints(tx, v)
    stream = await tx.create()
    body = {"stream_id": stream.stream_id, "subject": dict(EXAMPLE_SUBJECT)}
    added = await tx.call("POST", add, {**body, "verified": True})
    status_is(v, added, OK, "CT-16", "SSF-SUBJ-1")
    v.should(not added.body, "SSF-SUBJ-1", told=f"an empty body: {added.told()}")
    status_is(v, await tx.call("POST", remove, body), NO_CONTENT, "CT-16", "SSF-SUBJ-3")
    status_is(v, await tx.call("POST", add, {**body, "verified": False}), OK, "SSF-SUBJ-2")
    for _ in range(2):
        status_should_be(v, await tx.call("POST", add, body), OK, "SSF-SUBJ-7")
    for _ in range(2):
        status_should_be(v, await tx.call("POST", remove, body), NO_CONTENT, "SSF-SUBJ-7")


@check(
    "SSF-SUBJ-4", "SSF-SUBJ-5", "SSF-SUBJ-8", "SSF-OP-52", "SSF-SEC-1", "SSF-OP-53", group="managed"
)
async def subject_refusals(tx: Transmitter, v: Verdict) -> None:
    """Broken orders are refused, unknown people are not told from known ones."""
    add, remove = _subject_endpoints(tx, v)
    stream = await tx.create()
    unknown: Any = {"format": "email", "email": f"nobody-{secrets.token_hex(6)}@nowhere.example"}
    for url, accepted in ((add, OK), (remove, NO_CONTENT)):
        status_is(v, await tx.call("POST", url, raw=b";{ broken"), 400, "SSF-SUBJ-4", "SSF-OP-52")
        body = {"stream_id": stream.stream_id, "subject": unknown}
        missing = await tx.call("POST", url, {**body, "stream_id": "no-such-stream"})
        status_is(v, missing, 404, "SSF-SUBJ-4")
        bad = await tx.call("POST", url, body, token="invalid:token")  # noqa: S106
        status_is(v, bad, 401, "SSF-SUBJ-4")
        told = await tx.call("POST", url, body)
        status_should_be(v, told, accepted, "SSF-SUBJ-5", "SSF-SEC-1")
        for subject in ({}, {"format": "email"}, "x", None):
            answer = await tx.call("POST", url, {**body, "subject": subject})
            status_is(v, answer, 400, "SSF-SUBJ-4")
    own = {"format": "opaque", "id": stream.stream_id}
    answer = await tx.call("POST", remove, {"stream_id": stream.stream_id, "subject": own})
    status_is(v, answer, {400, NO_CONTENT}, "SSF-SUBJ-8")
    await _still_verifies(tx, v, stream)


async def _still_verifies(tx: Transmitter, v: Verdict, stream: OpenStream) -> None:
    if tx.endpoint("verification_endpoint") is None:
        v.skip("SSF-SUBJ-8", why="no verification_endpoint")
        return
    state = secrets.token_hex(8)
    await stream.verify(state)
    arrived = await stream.wait(lambda one: one.state == state)
    v.must(arrived, "SSF-SUBJ-8", told="the stream itself is still a subject of its stream")


def _need_endpoint(tx: Transmitter, v: Verdict) -> None:
    if tx.endpoint("status_endpoint") is None:
        v.stop(*v.allowed, why="no status_endpoint")


def _subject_endpoints(tx: Transmitter, v: Verdict) -> tuple[str, str]:
    add, remove = tx.endpoint("add_subject_endpoint"), tx.endpoint("remove_subject_endpoint")
    if add is None or remove is None:
        v.stop(*v.allowed, why="subjects are not managed here")
    return add or "", remove or ""
