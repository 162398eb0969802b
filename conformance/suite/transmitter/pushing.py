"""Checks of push delivery (RFC 8935), seen at our own push receiver."""

from __future__ import annotations

import asyncio
import json
import secrets
from typing import Final

from conformance.suite.certificates import self_signed_context
from conformance.suite.checks import Checks, Verdict
from conformance.suite.mailbox import PostOffice, Push, Reply
from conformance.suite.transmitter.party import Transmitter
from conformance.suite.transmitter.streams import OpenStream, read_set
from conformance.suite.transmitter.verification import verified
from ssf.push import SECEVENT_MEDIA_TYPE

checks: Checks[Transmitter] = Checks()
check = checks.check

RETRY_AFTER_S: Final = 2
#: clocks of the two sides and the network may differ by this much
EARLY_S: Final = 0.3
UNAVAILABLE: Final = 500
TOO_MANY: Final = 429


@check(
    "PUSH-1", "PUSH-2", "PUSH-3", "PUSH-5", "CTC-9", "SSF-DEL-3", "CT-17", group="push"
)  # fmt: skip
async def push_request(tx: Transmitter, v: Verdict) -> None:
    """A push is a POST of one SET with the right headers."""
    stream = await tx.create()
    received = await verified(tx, v, stream, "CT-17")
    push = received.push
    assert push is not None  # noqa: S101 - a push stream
    v.must(push.method == "POST", "PUSH-1", told=f"POST: {push.method}")
    parts = push.body.count(b".")
    v.must(parts in {2, 4}, "PUSH-1", told="the body is one compact JWT and nothing else")
    media_type = push.headers.get("content-type", "").partition(";")[0].strip().lower()
    v.must(media_type == SECEVENT_MEDIA_TYPE, "PUSH-2", told=f"Content-Type: {media_type!r}")
    accept = push.headers.get("accept", "")
    v.must("application/json" in accept, "PUSH-3", told=f"Accept: application/json: {accept!r}")
    _judge_authorization(v, stream, push)


def _judge_authorization(v: Verdict, stream: OpenStream, push: Push) -> None:
    wanted = stream.box.authorization if stream.box else None
    ok = push.headers.get("authorization") == wanted
    v.must(ok, "PUSH-5", "CTC-9", "SSF-DEL-3", told="Authorization is exactly what was registered")


@check("CT-21", "PUSH-5", "SSF-DEL-3", group="push")
async def push_without_authorization(tx: Transmitter, v: Verdict) -> None:
    """A stream without authorization_header is pushed without Authorization."""
    stream = await tx.create(authorized=False)
    received = await verified(tx, v, stream, "CT-21")
    assert received.push is not None  # noqa: S101 - a push stream
    sent = received.push.headers.get("authorization")
    v.must(sent is None, "CT-21", "PUSH-5", "SSF-DEL-3", told=f"no Authorization: {sent is None}")


async def _after(
    tx: Transmitter, v: Verdict, reply: Reply, *requirement_ids: str
) -> tuple[OpenStream, Push, Push | None]:
    """Answer the first push with `reply`; return it and the next push of the same SET, if any."""
    stream = await tx.create()
    assert stream.box is not None  # noqa: S101 - a push stream
    stream.box.replies.append(reply)
    state = secrets.token_urlsafe(16)
    await stream.verify(state)
    first = await stream.box.wait(lambda one: read_set(one.body).state == state, _limit(tx))
    v.need(first, *requirement_ids, told="the first push arrives")
    assert first is not None  # noqa: S101 - needed above
    jti = read_set(first.body).claims.get("jti")
    quiet = reply.status not in {UNAVAILABLE, TOO_MANY}
    second = await stream.box.wait(
        lambda one: one is not first and read_set(one.body).claims.get("jti") == jti,
        tx.options.limits.quiet_s if quiet else _limit(tx),
    )
    return stream, first, second


def _limit(tx: Transmitter) -> float:
    return tx.options.limits.event_s


@check("PUSH-44", "PUSH-16", "SET-5", "PUSH-5", "CTC-9", "SSF-DEL-3", group="push")
async def push_again_after_500(tx: Transmitter, v: Verdict) -> None:
    """After 500 the same SET comes again, a little later."""
    stream, first, second = await _after(tx, v, Reply(status=UNAVAILABLE), "PUSH-44")
    told = "the SET comes again, with the same jti"
    if not v.should(second, "PUSH-44", "SET-5", told=told):
        return
    assert second is not None  # noqa: S101 - there is one
    waited_s = second.at_s - first.at_s
    v.should(waited_s > 0.05, "PUSH-16", told=f"it waits before it tries again: {waited_s:.2f} s")  # noqa: PLR2004
    claims = read_set(first.body).claims, read_set(second.body).claims
    v.must(claims[0] == claims[1], "SET-5", told="the claims are the same")
    _judge_authorization(v, stream, second)


@check("PUSH-44", "SET-5", group="push")
async def push_again_after_429(tx: Transmitter, v: Verdict) -> None:
    """After 429 the SET comes again, not before Retry-After."""
    reply = Reply(status=TOO_MANY, headers={"Retry-After": str(RETRY_AFTER_S)})
    _, first, second = await _after(tx, v, reply, "PUSH-44")
    if v.should(second, "PUSH-44", "SET-5", told="the SET comes again"):
        assert second is not None  # noqa: S101 - there is one
        waited_s = second.at_s - first.at_s
        patient = waited_s >= RETRY_AFTER_S - EARLY_S
        v.should(patient, "PUSH-44", told=f"Retry-After {RETRY_AFTER_S} is kept: {waited_s:.1f} s")


@check("PUSH-30", "PUSH-41", "PUSH-16", group="push")
async def push_not_again_after_400(tx: Transmitter, v: Verdict) -> None:
    """A SET that was refused as invalid_request is not pushed again at once."""
    body = json.dumps({"err": "invalid_request", "description": "conformance check"}).encode()
    headers = {"Content-Type": "application/json", "Content-Language": "en"}
    _, _, second = await _after(tx, v, Reply(status=400, headers=headers, body=body), "PUSH-41")
    told = "no push of the same SET follows"
    v.should(second is None, "PUSH-30", "PUSH-41", "PUSH-16", told=told)


@check("PUSH-45", group="push")
async def push_follows_no_redirect(tx: Transmitter, v: Verdict) -> None:
    """A redirect is not followed: it could lead anywhere."""
    elsewhere = tx.office.open(None)
    reply = Reply(status=307, headers={"Location": elsewhere.url})
    await _after(tx, v, reply, "PUSH-45")
    v.should(not elsewhere.pushes, "PUSH-45", told="nothing arrives at the other address")


@check("PUSH-6", "INT-2", group="push")
async def push_to_untrusted_certificate(tx: Transmitter, v: Verdict) -> None:
    """Nothing is pushed to a receiver whose certificate nobody vouches for."""
    place = tx.options.push
    if place.public_url is not None or place.certificate is None:
        v.stop("PUSH-6", "INT-2", why="needs a push receiver with TLS that is reached directly")
    tls = self_signed_context(place.host)
    office = PostOffice(place.host, 0, public_url=None, tls=tls)
    await office.start()
    try:
        box = office.open(None)
        body, stream = tx.wanted()
        body["delivery"] = {"method": tx.delivery.method, "endpoint_url": box.url}
        tx.adopt(stream, await tx.manage("POST", body))
        v.need(stream.stream_id, "PUSH-6", told="a stream with that address is made")
        await stream.verify(secrets.token_urlsafe(16))
        await asyncio.sleep(tx.options.limits.quiet_s)
        v.must(not box.pushes, "PUSH-6", "INT-2", told="nothing arrives there")
    finally:
        await office.stop()


@check("SSF-OP-41", "SSF-OP-40", group="push")
async def push_ends_with_the_stream(tx: Transmitter, v: Verdict) -> None:
    """After its deletion nothing is pushed over a stream any more."""
    stream = await tx.create()
    assert stream.box is not None  # noqa: S101 - a push stream
    stream.box.replies.extend([Reply(status=UNAVAILABLE)] * 2)
    await stream.verify(secrets.token_urlsafe(16))
    first = await stream.box.wait(lambda _: True, _limit(tx))
    v.need(first, "SSF-OP-41", told="the first push arrives")
    deleted = await stream.delete()
    v.need(deleted.status == 204, "SSF-OP-40", told=f"204: {deleted.told()}")  # noqa: PLR2004
    # One push may have been under way already.
    before = len(stream.box.pushes) + 1
    await asyncio.sleep(tx.options.limits.quiet_s)
    told = "no push begins after the deletion"
    v.should(len(stream.box.pushes) <= before, "SSF-OP-41", told=told)
