"""Checks of poll delivery (RFC 8936)."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from typing import Any, Final

from conformance.suite.checks import Checks, Verdict
from conformance.suite.http import JSON_MEDIA_TYPE, Answer
from conformance.suite.transmitter.expect import status_is, status_should_be
from conformance.suite.transmitter.party import INTEROP_EVENTS, Transmitter
from conformance.suite.transmitter.streams import OpenStream
from conformance.suite.transmitter.verification import verified

checks: Checks[Transmitter] = Checks()
check = checks.check

OK: Final = 200
NO_CONTENT: Final = 204
LONG_POLL_LIMIT_S: Final = 100.0
AT_ONCE_S: Final = 5.0
POLLERS: Final = 4
PAUSE_S: Final = 0.2


def need_page(v: Verdict, answer: Answer, *requirement_ids: str) -> Mapping[str, Any]:
    """Return the SETs of a poll answer. Raises StopCheck for an answer that is none."""
    ids = (*requirement_ids, "POLL-8")
    v.need(answer.status == OK, *ids, told=f"200: {answer.told()}")
    v.need(answer.media_type == JSON_MEDIA_TYPE, *ids, told=f"JSON: {answer.told()}")
    sets = answer.object.get("sets")
    v.need(isinstance(sets, dict), *ids, told=f"sets is an object: {answer.told()}")
    more = answer.object.get("moreAvailable", False)
    v.must(isinstance(more, bool), "POLL-8", told=f"moreAvailable is a boolean: {more!r}")
    return sets if isinstance(sets, dict) else {}


@check("POLL-7", "POLL-8", "POLL-2", "POLL-22", "CTC-6", group="poll")
async def empty_poll(tx: Transmitter, v: Verdict) -> None:
    """An empty poll that does not wait is answered at once with an empty object."""
    stream, other = await tx.create(), await tx.create()
    v.must(stream.poll_url != other.poll_url, "POLL-2", told="every stream has its own poll URL")
    began_s = asyncio.get_running_loop().time()
    answer = await stream.poll(returnImmediately=True)
    took_s = asyncio.get_running_loop().time() - began_s
    v.must(need_page(v, answer, "CTC-6") == {}, "POLL-8", told=f"nothing waits: {answer.told()}")
    v.should(took_s < AT_ONCE_S, "POLL-7", told=f"answered at once: {took_s:.1f} s")
    await stream.delete()
    status_should_be(v, await stream.poll(returnImmediately=True), 404, "POLL-22")


@check("CT-19", "POLL-8", "POLL-10", "POLL-11", "SSF-VER-7", "SSF-CFG-8", "CTS-12", group="poll")
async def poll_and_acknowledge(tx: Transmitter, v: Verdict) -> None:
    """A SET that a poll acknowledges is not in its answer; the next one is."""
    stream = await tx.create()
    first = await verified(tx, v, stream, "CT-19")
    await asyncio.sleep(stream.interval_s + 0.1)
    state = secrets.token_urlsafe(16)
    again = await stream.verify(state)
    status_is(v, again, NO_CONTENT, "CT-19", "SSF-VER-7", "SSF-CFG-8")
    acks, stream.unacked = stream.unacked, []
    began = len(stream.arrived)
    answer = await stream.poll(maxEvents=10, returnImmediately=True, ack=acks)
    page = need_page(v, answer, "CT-19")
    repeated = sorted(set(acks) & page.keys())
    v.must(not repeated, "CT-19", "POLL-10", told=f"what is acknowledged is not sent: {repeated}")
    found = await stream.wait(lambda one: one.state == state)
    v.must(found, "CT-19", "CTS-12", told="the event with the second state arrives")
    stale = [one for one in stream.arrived[began:] if one.claims == first.claims]
    v.must(not stale, "CT-19", "POLL-11", told="the first one does not come again")
    twice = await stream.poll(returnImmediately=True, ack=[*acks, "never-heard-of"])
    status_is(v, twice, OK, "POLL-11")


@check("CT-20", "POLL-5", "POLL-8", "POLL-11", "POLL-17", group="poll")
async def acknowledge_only(tx: Transmitter, v: Verdict) -> None:
    """With maxEvents 0 a poll acknowledges and brings nothing."""
    stream = await tx.create()
    await verified(tx, v, stream, "CT-20")
    answer = await stream.poll(maxEvents=0, returnImmediately=True, ack=stream.unacked)
    page = need_page(v, answer, "CT-20", "POLL-5")
    v.must(page == {}, "CT-20", "POLL-5", "POLL-17", told=f"nothing is sent: {answer.told()}")
    after = need_page(v, await stream.poll(returnImmediately=True), "CT-20")
    v.must(not after.keys() & set(stream.unacked), "POLL-11", told="what was acknowledged is done")


@check("POLL-6", "POLL-8", "POLL-3", "POLL-9", group="poll")
async def long_poll(tx: Transmitter, v: Verdict) -> None:
    """A poll without returnImmediately waits until there is a SET."""
    stream = await tx.create()
    quiet_s = tx.options.limits.quiet_s
    waiting = asyncio.ensure_future(stream.poll(limit_s=LONG_POLL_LIMIT_S))
    try:
        done, _ = await asyncio.wait({waiting}, timeout=quiet_s)
        v.need(not done, "POLL-6", told=f"the poll is still held after {quiet_s:g} s")
        state = secrets.token_urlsafe(16)
        await stream.verify(state)
        done, _ = await asyncio.wait({waiting}, timeout=tx.options.limits.event_s)
        v.need(done, "POLL-6", told="it is answered when there is a SET")
        page = need_page(v, waiting.result(), "POLL-6", "POLL-3")
        v.must(page, "POLL-6", told="the answer brings the SET")
        more = waiting.result().object.get("moreAvailable", False)
        v.must(more is False, "POLL-9", told=f"no more is available: {more!r}")
    finally:
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


@check("POLL-6", "POLL-8", group="poll")
async def long_poll_ends(tx: Transmitter, v: Verdict) -> None:
    """A long poll with nothing to bring ends with an empty object."""
    limit_s = tx.options.limits.long_poll_s
    if not limit_s:
        v.stop("POLL-6", "POLL-8", why="needs --long-poll-s")
    stream = await tx.create()
    answer = await stream.poll(limit_s=limit_s)
    v.must(need_page(v, answer, "POLL-6") == {}, "POLL-6", told=f"empty: {answer.told()}")


@check("POLL-4", "POLL-9", "POLL-8", "POLL-13", "POLL-23", "SET-5", group="poll")
async def pages_and_several_pollers(tx: Transmitter, v: Verdict) -> None:
    """MaxEvents is kept, and pollers at the same time do not get the same SET."""
    stream = await tx.create()
    wanted = 3 if tx.options.trigger.is_there else 1
    await _fill(tx, stream, wanted)
    ends_s = asyncio.get_running_loop().time() + tx.options.limits.event_s
    seen: set[str] = set()
    while len(seen) < wanted and asyncio.get_running_loop().time() < ends_s:
        acks, stream.unacked = stream.unacked, []
        polls = (stream.poll(maxEvents=1, returnImmediately=True, ack=acks) for _ in range(POLLERS))
        at_once: list[str] = []
        for answer in await asyncio.gather(*polls):
            page = need_page(v, answer, "POLL-4")
            v.must(len(page) <= 1, "POLL-4", told=f"at most one SET: {len(page)}")
            at_once += page
        once = len(at_once) == len(set(at_once))
        v.should(once, "POLL-13", "POLL-23", told=f"none is handed out twice at once: {at_once}")
        seen.update(at_once)
        await asyncio.sleep(0 if at_once else PAUSE_S)
    v.must(len(seen) >= wanted, "POLL-9", told=f"all {wanted} arrive: {len(seen)}")
    jtis = {one.claims.get("jti") for one in stream.arrived}
    v.must(seen <= jtis, "POLL-8", "SET-5", told="the members of sets are named by jti")


@check("POLL-12", "POLL-8", group="poll")
async def reported_errors(tx: Transmitter, v: Verdict) -> None:
    """A SET that was reported in setErrs does not come again."""
    stream = await tx.create()
    received = await verified(tx, v, stream, "POLL-12")
    jti = str(received.claims.get("jti"))
    stream.unacked = []
    errors = {jti: {"err": "invalid_request", "description": "conformance check"}}
    first = await stream.poll(returnImmediately=True, setErrs=errors)
    page = need_page(v, first, "POLL-12")
    after = need_page(v, await stream.poll(returnImmediately=True), "POLL-12")
    told = f"{jti} does not come again"
    v.must(jti not in page and jti not in after, "POLL-12", told=told)


@check("POLL-1", "POLL-19", "POLL-20", "POLL-24", "SSF-AUTH-3", "SSF-OP-53", group="poll")
async def poll_refusals(tx: Transmitter, v: Verdict) -> None:
    """Broken polls are 400, without a token 401 with a challenge; GET is no poll."""
    stream = await tx.create()
    url = stream.poll_url
    status_is(v, await tx.call("POST", url, raw=b";{ broken"), 400, "POLL-19", "POLL-24")
    bad_bodies: tuple[Any, ...] = (
        [],
        {"ack": "x"},
        {"maxEvents": -1},
        {"maxEvents": "1"},
        {"setErrs": []},
    )
    for bad in bad_bodies:
        answer = await tx.call("POST", url, bad)
        told = f"{bad!r} is 400: {answer.told()}"
        v.should(answer.status == 400, "POLL-24", told=told)  # noqa: PLR2004
        v.must(answer.status < 500, "POLL-19", told=told)  # noqa: PLR2004
    headers = {"content-type": JSON_MEDIA_TYPE}
    body = b'{"returnImmediately":true}'
    bare = await tx.asker.ask("POST", url, body=body, headers=headers)
    made_up = await tx.call("POST", url, raw=body, token="invalid:token")  # noqa: S106
    for answer in (bare, made_up):
        status_is(v, answer, 401, "POLL-19", "SSF-AUTH-3")
        told = f"401 has WWW-Authenticate: {answer.told()}"
        v.must("www-authenticate" in answer.headers, "POLL-20", told=told)
    got = await tx.call("GET", url)
    v.must(got.status >= 400, "POLL-1", told=f"GET is no poll: {got.told()}")  # noqa: PLR2004
    empty = await tx.call("POST", url, {"returnImmediately": True, "x_member": 1})
    status_should_be(v, empty, OK, "POLL-24")
    if tx.options.stranger_token is not None:
        foreign = await tx.call("POST", url, raw=body, token=tx.options.stranger_token)
        status_is(v, foreign, {403, 404}, "POLL-19", "SSF-AUTH-3")


async def _fill(tx: Transmitter, stream: OpenStream, count: int) -> None:
    """Let `count` SETs wait on a stream. Raises AskError."""
    if not tx.options.trigger.is_there:
        await stream.verify(secrets.token_urlsafe(16))
        return
    event = {"reason_admin": {"en": "conformance check"}}
    for number in range(count):
        # Of different people: events about one wait for each other where order is kept.
        subject = {"format": "email", "email": f"example.user{number}@example.com"}
        await tx.trigger(stream, INTEROP_EVENTS[0], event, subject=subject)
