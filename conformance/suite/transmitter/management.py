"""Checks of the configuration endpoint: create, read, update, replace, delete."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from conformance.suite.checks import Checks, Verdict
from conformance.suite.http import Answer
from conformance.suite.transmitter.expect import need_object, status_is, status_should_be
from conformance.suite.transmitter.options import Delivery, Profile
from conformance.suite.transmitter.party import INTEROP_EVENTS, Transmitter
from conformance.suite.transmitter.streams import OpenStream
from ssf.events.registry import STANDARD_EVENT_TYPES

checks: Checks[Transmitter] = Checks()
check = checks.check

OK: Final = 200
CREATED: Final = 201
NO_CONTENT: Final = 204
REQUIRED_MEMBERS: Final = ("stream_id", "iss", "aud", "events_delivered", "delivery")
BROKEN: Final = b";{ broken"
UNKNOWN_EVENT: Final = "https://events.example/never-heard-of"


@check("CTC-5", "SSF-OP-11", "SSF-OP-40", group="each")
async def clean_up(tx: Transmitter, v: Verdict) -> None:
    """The list of streams is an array, and one of it can be deleted."""
    stream = await tx.create()
    listed = await tx.manage("GET")
    v.need(listed.status == OK, "CTC-5", "SSF-OP-11", told=f"200: {listed.told()}")
    ok = isinstance(listed.json, list)
    v.need(ok, "CTC-5", "SSF-OP-11", told=f"an array: {listed.told()}")
    known = [one.get("stream_id") for one in listed.json or [] if isinstance(one, dict)]
    v.must(stream.stream_id in known, "SSF-OP-11", told="our new stream is in it")
    status_is(v, await stream.delete(), NO_CONTENT, "CTC-5", "SSF-OP-40")
    left = await tx.manage("GET")
    ok = left.status == OK and isinstance(left.json, list)
    v.must(ok, "SSF-OP-11", told=f"200 with an array after the deletion too: {left.told()}")


@check(
    "CT-2",
    "CTC-6",
    "CTC-7",
    "CTC-8",
    "SSF-OP-1",
    "SSF-OP-5",
    "SSF-CFG-1",
    "SSF-CFG-2",
    "SSF-CFG-3",
    "SSF-CFG-4",
    "SSF-CFG-6",
    "SSF-CFG-7",
    "SSF-DEL-1",
    "SSF-DEL-2",
    "SSF-DEL-7",
    "SET-11",
    "INT-6",
    "INT-11",
    group="each",
)
async def create(tx: Transmitter, v: Verdict) -> None:
    """A create request as the OpenID suite sends it makes a whole stream."""
    body, stream = tx.wanted()
    answer = await tx.manage("POST", body)
    tx.adopt(stream, answer)
    need_object(v, answer, CREATED, "CT-2", "CTC-6", "CTC-7", "SSF-OP-1", "INT-6", "INT-11")
    made = answer.object
    missing = [name for name in REQUIRED_MEMBERS if name not in made]
    v.need(not missing, "CT-2", "SSF-CFG-7", told=f"all required members; missing: {missing}")
    _judge_configuration(tx, v, made)
    _judge_delivery(tx, v, stream)
    header = body["delivery"].get("authorization_header")
    hidden = header is None or header.encode() not in answer.body
    v.should(hidden, "SSF-DEL-7", told="the authorization header is not repeated")
    if tx.endpoint("status_endpoint"):
        status = (await _status(tx, stream)).object.get("status")
        v.should(status == "enabled", "SSF-OP-5", told=f"a new stream is enabled: {status}")


def _judge_configuration(tx: Transmitter, v: Verdict, made: Mapping[str, Any]) -> None:
    v.must(isinstance(made["stream_id"], str), "SSF-CFG-1", told="stream_id is a string")
    iss = str(made["iss"])
    v.must(iss == tx.issuer, "CTC-8", "SSF-CFG-2", "SET-11", told=f"iss is {tx.issuer}: {iss}")
    aud = made["aud"]
    ok = bool(aud) and isinstance(aud, str | list)
    v.must(ok, "SSF-CFG-3", told=f"aud is a string or an array: {aud!r}")
    supported, delivered = made.get("events_supported"), made["events_delivered"]
    v.should(supported, "CT-2", "SSF-CFG-4", told="events_supported is there")
    unknown = set(map(str, supported or [])) - STANDARD_EVENT_TYPES
    v.should(not unknown, "CT-2", told=f"only known event types; unknown: {sorted(unknown)}")
    if tx.options.profile is Profile.CAEP_INTEROP:
        ok = bool(set(map(str, supported or [])) & set(INTEROP_EVENTS))
        v.must(ok, "CT-2", told="at least one interop event is supported")
    ok = isinstance(delivered, list) and set(map(str, delivered)) <= set(INTEROP_EVENTS)
    v.must(ok, "SSF-CFG-6", told=f"events_delivered is a part of what was requested: {delivered!r}")


def _judge_delivery(tx: Transmitter, v: Verdict, stream: OpenStream) -> None:
    delivery = stream.configuration["delivery"]
    ok = isinstance(delivery, dict) and delivery.get("method") == tx.delivery.method
    v.need(ok, "SSF-DEL-1", "CT-2", told=f"delivery.method is {tx.delivery.method}: {delivery!r}")
    url = delivery.get("endpoint_url")
    if stream.box is not None:
        v.must(url == stream.box.url, "SSF-DEL-2", told=f"the push URL is ours: {url}")
    else:
        ok = isinstance(url, str) and url.startswith("https://")
        v.must(ok, "SSF-DEL-2", told=f"the transmitter names a poll URL: {url!r}")


@check("CT-2", "CTC-6", "CTC-8", "SSF-OP-10", "SSF-AUTH-2", group="each")
async def read(tx: Transmitter, v: Verdict) -> None:
    """One stream is read as one object."""
    stream = await tx.create()
    answer = await tx.manage("GET", query=stream.query)
    need_object(v, answer, OK, "CT-2", "CTC-6", "SSF-OP-10")
    same = answer.object.get("stream_id") == stream.stream_id
    v.must(same, "SSF-OP-10", told="it is the stream that was asked for")
    v.must(answer.object.get("iss") == tx.issuer, "CTC-8", told="iss is the metadata's issuer")
    if tx.options.stranger_token is None:
        v.skip("SSF-AUTH-2", why="needs --stranger-token")
        return
    foreign = await tx.manage("GET", query=stream.query, token=tx.options.stranger_token)
    status_is(v, foreign, 404, "SSF-AUTH-2")
    gone = await tx.manage("DELETE", query=stream.query, token=tx.options.stranger_token)
    status_is(v, gone, 404, "SSF-AUTH-2")


@check("CT-5", "SSF-OP-2", group="each")
async def create_twice(tx: Transmitter, v: Verdict) -> None:
    """A second stream is made, or refused with 409; never the first one again."""
    first = await tx.create()
    body, stream = tx.wanted()
    answer = await tx.manage("POST", body)
    tx.adopt(stream, answer)
    status_is(v, answer, {CREATED, 409}, "CT-5", "SSF-OP-2")
    if answer.status == CREATED:
        other = stream.stream_id != first.stream_id
        v.must(other, "SSF-OP-2", told="the second stream has an id of its own")


@check("SSF-DEL-4", "SSF-CFG-5", "SSF-CFG-6", "SSF-CFG-13", group="once")
async def create_with_little(tx: Transmitter, v: Verdict) -> None:
    """Without delivery it is poll; unknown event types and members do no harm."""
    if not _offers(tx, Delivery.POLL):
        v.stop(*v.allowed, why="poll is not offered")
    body = {"events_requested": [*INTEROP_EVENTS, UNKNOWN_EVENT], "x_member": 1}
    answer = await tx.manage("POST", body)
    stream = tx.adopt(OpenStream(tx), answer)
    v.need(answer.status == CREATED, "SSF-DEL-4", "SSF-CFG-5", told=f"201: {answer.told()}")
    delivery = stream.configuration.get("delivery")
    delivery = delivery if isinstance(delivery, dict) else {}
    ok = delivery.get("method") == Delivery.POLL.method and bool(delivery.get("endpoint_url"))
    v.must(ok, "SSF-DEL-4", told=f"delivery is poll with a URL: {delivery}")
    delivered = stream.configuration.get("events_delivered") or []
    v.must(UNKNOWN_EVENT not in delivered, "SSF-CFG-6", told="an unknown type is not delivered")
    v.should("x_member" not in answer.object, "SSF-CFG-13", told="unknown members are not echoed")


@check("SSF-OP-4", "SSF-OP-3", "SSF-DEL-5", "SSF-DEL-8", "SSF-DEL-6", "SSF-OP-53", group="once")
async def create_refusals(tx: Transmitter, v: Verdict) -> None:
    """What cannot be a stream is refused with 400."""
    push = {"method": Delivery.PUSH.method}
    where = {**push, "endpoint_url": "https://receiver.example/ssf"}
    for body, requirement_id, text in (
        ([], "SSF-OP-4", "an array"),
        ({"events_requested": "all"}, "SSF-OP-4", "events_requested is no array"),
        ({"delivery": push}, "SSF-OP-4", "push without endpoint_url"),
        ({"delivery": {"method": "urn:example:pigeon"}}, "SSF-DEL-5", "an unknown method"),
        ({"delivery": {**push, "endpoint_url": "ftp://x.example/"}}, "SSF-DEL-6", "an ftp URL"),
        (
            {"delivery": {**push, "endpoint_url": "https://u:p@x.example/"}},
            "SSF-DEL-6",
            "a URL with userinfo",
        ),
        (
            {"delivery": {**where, "authorization_header": "Bearer x\r\nX-Injected: 1"}},
            "SSF-DEL-8",
            "a header with a line break",
        ),
        ({"iss": "https://somebody.else.example"}, "SSF-OP-4", "a foreign iss"),
    ):
        answer = await tx.manage("POST", body)
        tx.adopt(OpenStream(tx), answer)
        told = f"{text} is refused with 400: {answer.told()}"
        v.should(answer.status == 400, requirement_id, told=told)  # noqa: PLR2004
        v.must(answer.status < 500, "SSF-OP-3", told=told)  # noqa: PLR2004
        parses = not answer.media_type.endswith("json") or answer.json is not None
        v.must(parses, "SSF-OP-53", told=f"a JSON body parses: {answer.told()}")


@check("CT-2", "SSF-OP-20", "SSF-OP-21", "SSF-OP-24", "CTC-6", "CTC-8", group="managed")
async def update(tx: Transmitter, v: Verdict) -> None:
    """PATCH changes what it names, keeps the rest, and refuses what is not ours to set."""
    stream = await tx.create()
    same = {"stream_id": stream.stream_id}
    answer = await tx.manage("PATCH", {**same, "description": "patched"})
    need_object(v, answer, OK, "CT-2", "SSF-OP-20", "SSF-OP-24", "CTC-6")
    before, after = stream.configuration, answer.object
    v.must(after.get("description") == "patched", "SSF-OP-20", told="the description is new")
    for name in ("events_requested", "events_delivered", "delivery", "aud", "iss", "stream_id"):
        kept = after.get(name) == before.get(name)
        v.must(kept, "SSF-OP-20", told=f"{name} stays: {before.get(name)!r}, {after.get(name)!r}")
    v.must(after.get("iss") == tx.issuer, "CTC-8", told="iss is the metadata's issuer")
    echoed = {name: after.get(name) for name in ("iss", "aud", "events_delivered")}
    answer = await tx.manage("PATCH", {**same, **echoed, "events_requested": INTEROP_EVENTS[:1]})
    status_is(v, answer, OK, "SSF-OP-21")
    delivered = answer.object.get("events_delivered")
    ok = isinstance(delivered, list) and set(delivered) <= set(INTEROP_EVENTS[:1])
    v.must(ok, "SSF-OP-20", told=f"fewer requested, fewer delivered: {delivered!r}")
    for wrong in ({"iss": "https://else.example"}, {"aud": "somebody-else"}):
        refused = await tx.manage("PATCH", {**same, **wrong})
        status_is(v, refused, 400, "SSF-OP-21")


@check("CT-2", "SSF-OP-30", "SSF-OP-21", "SSF-OP-24", "CTC-6", "CTC-8", group="managed")
async def replace(tx: Transmitter, v: Verdict) -> None:
    """PUT replaces: what it leaves out is gone."""
    stream = await tx.create()
    body, other = tx.wanted()
    whole = {**body, "stream_id": stream.stream_id, "description": "replaced"}
    answer = await tx.manage("PUT", whole)
    need_object(v, answer, OK, "CT-2", "SSF-OP-30", "SSF-OP-24", "CTC-6")
    v.must(answer.object.get("description") == "replaced", "SSF-OP-30", told="description is new")
    v.must(answer.object.get("iss") == tx.issuer, "CTC-8", told="iss is the metadata's issuer")
    stream.box = other.box
    if not _offers(tx, Delivery.POLL):
        return
    answer = await tx.manage("PUT", {"stream_id": stream.stream_id})
    need_object(v, answer, OK, "SSF-OP-30")
    after = answer.object
    v.must("description" not in after, "SSF-OP-30", told=f"no description is left: {after}")
    v.must(not after.get("events_requested"), "SSF-OP-30", told="nothing is requested any more")
    v.must(after.get("events_delivered") == [], "SSF-OP-30", told="nothing is delivered any more")
    delivery = after.get("delivery")
    ok = isinstance(delivery, dict) and delivery.get("method") == Delivery.POLL.method
    v.must(ok, "SSF-OP-30", told=f"without delivery it is poll: {delivery!r}")
    for name in ("stream_id", "iss", "aud"):
        v.must(after.get(name) == stream.configuration.get(name), "SSF-OP-30", told=f"{name} stays")
    wrong = await tx.manage("PUT", {**whole, "iss": "https://else.example"})
    status_is(v, wrong, 400, "SSF-OP-21")


@check("CT-15", "CT-7", "SSF-OP-40", "SSF-OP-10", "CT-8", group="each")
async def delete(tx: Transmitter, v: Verdict) -> None:
    """A deleted stream is gone: 204 once, then 404."""
    stream = await tx.create()
    answer = await stream.delete()
    status_is(v, answer, NO_CONTENT, "CT-7", "SSF-OP-40")
    v.must(not answer.body, "SSF-OP-40", told="204 has no body")
    gone = await tx.manage("GET", query=stream.query)
    status_is(v, gone, 404, "CT-7", "SSF-OP-10")
    bad = await tx.manage("DELETE", query=stream.query, token="invalid:token")  # noqa: S106
    status_is(v, bad, 401, "CT-15")
    status_is(v, await tx.manage("DELETE", query=stream.query), 404, "CT-15", "SSF-OP-40")
    status_should_be(v, await tx.manage("DELETE"), 400, "SSF-OP-40")
    again = await tx.create()
    v.must(again.stream_id != stream.stream_id, "CT-8", told="the next stream has another id")


def _offers(tx: Transmitter, delivery: Delivery) -> bool:
    methods = tx.metadata.get("delivery_methods_supported")
    return not isinstance(methods, list) or delivery.method in methods


async def _status(tx: Transmitter, stream: OpenStream) -> Answer:
    url = tx.endpoint("status_endpoint") or ""
    return await tx.call("GET", f"{url}{'&' if '?' in url else '?'}{stream.query}")
