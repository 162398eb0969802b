"""Checks of verification, over push and over poll, and of what a status does to delivery."""

from __future__ import annotations

import asyncio
import secrets
from typing import Final

from conformance.suite.checks import Checks, Verdict
from conformance.suite.transmitter.expect import status_is, status_should_be
from conformance.suite.transmitter.options import Delivery, Profile
from conformance.suite.transmitter.party import Transmitter
from conformance.suite.transmitter.secevents import VERIFICATION_RULES, judge_verification
from conformance.suite.transmitter.streams import OpenStream, Received

checks: Checks[Transmitter] = Checks()
check = checks.check

NO_CONTENT: Final = 204
TOO_MANY: Final = 429
#: what the OpenID suite allows between a request and its event
ARRIVES_S: Final = {Delivery.PUSH: 10.0, Delivery.POLL: 5.0}


async def verified(
    tx: Transmitter, v: Verdict, stream: OpenStream, *requirement_ids: str
) -> Received:
    """Ask for a verification event and return it. Raises StopCheck when it does not come."""
    state = secrets.token_urlsafe(16)
    answer = await stream.verify(state)
    v.need(answer.status == NO_CONTENT, *requirement_ids, told=f"204: {answer.told()}")
    received = await stream.wait(lambda one: one.state == state)
    limit_s = tx.options.limits.event_s
    v.need(received, *requirement_ids, told=f"the event with our state arrives in {limit_s:g} s")
    assert received is not None  # noqa: S101 - needed above
    return received


@check(
    "CT-17", "CT-18", "SSF-VER-1", "SSF-VER-2", "SSF-STAT-3", "INT-8", *VERIFICATION_RULES,
    group="each",
)  # fmt: skip
async def verification(tx: Transmitter, v: Verdict) -> None:
    """A verification event is answered 204, arrives soon and is a sound SET."""
    _need_endpoint(tx, v)
    row = "CT-17" if tx.delivery is Delivery.PUSH else "CT-18"
    stream = await tx.create()
    await tx.fetch_keys()
    state = secrets.token_urlsafe(16)
    began_s = asyncio.get_running_loop().time()
    answer = await stream.verify(state)
    ids = (row, "SSF-VER-1", "INT-8")
    v.need(answer.status == NO_CONTENT, *ids, told=f"204: {answer.told()}")
    v.must(not answer.body, "SSF-VER-1", told="204 has no body")
    received = await stream.wait(lambda one: one.event("/verification") is not None)
    took_s = asyncio.get_running_loop().time() - began_s
    v.need(received, row, "SSF-VER-2", "SSF-STAT-3", told=f"an event arrives; {took_s:.1f} s")
    soon = took_s <= ARRIVES_S[tx.delivery]
    v.should(soon, row, told=f"it takes at most {ARRIVES_S[tx.delivery]:g} s: {took_s:.1f} s")
    assert received is not None  # noqa: S101 - needed above
    judge_verification(tx, v, received, stream, state)


@check("SSF-VER-3", "SSF-VER-4", "CTS-12", group="each")
async def verification_without_state(tx: Transmitter, v: Verdict) -> None:
    """Without a state in the request there is none in the event."""
    _need_endpoint(tx, v)
    stream = await tx.create()
    answer = await stream.verify()
    v.need(answer.status == NO_CONTENT, "SSF-VER-3", told=f"204: {answer.told()}")
    received = await stream.wait(lambda one: one.event("/verification") is not None)
    v.need(received, "SSF-VER-3", told="the event arrives")
    assert received is not None  # noqa: S101 - needed above
    none = "state" not in (received.event("/verification") or {})
    v.must(none, "SSF-VER-3", "SSF-VER-4", "CTS-12", told=f"no state: {received.events}")


@check("SSF-VER-1", "SSF-OP-52", "SSF-OP-53", group="each")
async def verification_refusals(tx: Transmitter, v: Verdict) -> None:
    """A broken body is 400, an unknown stream 404, an invalid token 401."""
    _need_endpoint(tx, v)
    url = tx.endpoint("verification_endpoint") or ""
    stream = await tx.create()
    status_is(v, await tx.call("POST", url, raw=b";{ broken"), 400, "SSF-VER-1", "SSF-OP-52")
    missing = await tx.call("POST", url, {"stream_id": "no-such-stream"})
    status_is(v, missing, 404, "SSF-VER-1")
    status_is(v, await stream.verify(token="invalid:token"), 401, "SSF-VER-1")  # noqa: S106


@check("SSF-VER-7", "SSF-CFG-8", group="each")
async def verification_too_often(tx: Transmitter, v: Verdict) -> None:
    """Verification asked for faster than advertised may be 429, and says when to come again."""
    _need_endpoint(tx, v)
    stream = await tx.create()
    interval_s = stream.interval_s
    await stream.verify("first")
    again = await stream.verify("second")
    if not interval_s:
        told = f"no interval is advertised, so there is no 429: {again.told()}"
        v.should(again.status != TOO_MANY, "SSF-VER-7", told=told)
        v.skip("SSF-CFG-8", why="no min_verification_interval")
        return
    status_is(v, again, {TOO_MANY, NO_CONTENT}, "SSF-VER-7")
    enforced = again.status == TOO_MANY
    v.should(enforced, "SSF-CFG-8", told=f"the interval of {interval_s:g} s is enforced")
    if enforced:
        told = f"429 has Retry-After: {again.told()}"
        v.should("retry-after" in again.headers, "SSF-VER-7", told=told)
        await asyncio.sleep(interval_s + 0.1)
        later = await stream.verify("third")
        status_is(v, later, NO_CONTENT, "SSF-VER-7", "SSF-CFG-8")


@check("SSF-STAT-4", "SSF-VER-13", "SSF-STAT-3", group="managed")
async def paused_stream_is_silent(tx: Transmitter, v: Verdict) -> None:
    """Nothing arrives over a paused stream; what was held arrives when it is enabled again."""
    _need_endpoint(tx, v)
    if tx.endpoint("status_endpoint") is None:
        v.stop(*v.allowed, why="no status_endpoint")
    stream = await tx.create()
    paused = await stream.set_status("paused")
    v.need(paused.status == 200, "SSF-STAT-4", told=f"200: {paused.told()}")  # noqa: PLR2004
    state = secrets.token_urlsafe(16)
    asked = await stream.verify(state)
    status_should_be(v, asked, {NO_CONTENT, 400}, "SSF-VER-13")
    early = await stream.wait(lambda _: True, tx.options.limits.quiet_s)
    v.must(early is None, "SSF-STAT-4", "SSF-VER-13", told="nothing arrives while it is paused")
    enabled = await stream.set_status("enabled")
    status_is(v, enabled, 200, "SSF-STAT-3")
    if asked.status == NO_CONTENT:
        late = await stream.wait(lambda one: one.state == state)
        v.should(late, "SSF-STAT-4", "SSF-VER-13", told="what was held arrives afterwards")


@check("SSF-STAT-6", "SSF-VER-13", group="managed")
async def disabled_stream_keeps_nothing(tx: Transmitter, v: Verdict) -> None:
    """Nothing arrives over a disabled stream, and nothing of that time afterwards."""
    _need_endpoint(tx, v)
    if tx.endpoint("status_endpoint") is None:
        v.stop(*v.allowed, why="no status_endpoint")
    stream = await tx.create()
    disabled = await stream.set_status("disabled")
    v.need(disabled.status == 200, "SSF-STAT-6", told=f"200: {disabled.told()}")  # noqa: PLR2004
    asked = await stream.verify("of the time it was disabled")
    status_should_be(v, asked, {NO_CONTENT, 400}, "SSF-VER-13")
    early = await stream.wait(lambda _: True, tx.options.limits.quiet_s)
    v.must(early is None, "SSF-STAT-6", told="nothing arrives while it is disabled")
    enabled = await stream.set_status("enabled")
    if enabled.status != 200:  # noqa: PLR2004
        v.skip("SSF-STAT-6", why="a disabled stream cannot be enabled again here")
        return
    late = await stream.wait(lambda _: True, tx.options.limits.quiet_s)
    v.must(late is None, "SSF-STAT-6", told="nothing was held")


def _need_endpoint(tx: Transmitter, v: Verdict) -> None:
    if tx.endpoint("verification_endpoint") is None:
        if tx.options.profile is Profile.CAEP_INTEROP:
            v.need(False, *v.allowed, told="verification_endpoint is there")  # noqa: FBT003
        v.stop(*v.allowed, why="no verification_endpoint")
