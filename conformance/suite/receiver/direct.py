"""Checks of a push endpoint: what it accepts, what it refuses, and how it says so."""

from __future__ import annotations

from typing import Final

from conformance.peers.shapes import VendorKey
from conformance.suite.checks import Checks, Verdict
from conformance.suite.http import JSON_MEDIA_TYPE, Answer
from conformance.suite.receiver.party import Receiver, accepted
from conformance.suite.receiver.sets import BAD_SETS, PAYLOADS, STREAM_TYPES, BadSET

checks: Checks[Receiver] = Checks()
check = checks.check

BAD_REQUEST: Final = 400
UNAVAILABLE: Final = 503
FLOOD: Final = 20
FLOOD_FETCHES_MAX: Final = 5
#: below what our own HTTP client would rather stream
HUGE_BYTES: Final = 1_000_000
#: the rows that `judge_refusal` speaks of through the table of bad SETs
BAD_SET_RULES: Final = (
    "PUSH-12", "PUSH-30", "PUSH-31", "PUSH-32", "PUSH-33", "SET-12", "SET-31", "SET-33", "SET-43",
    "SET-51", "SET-52", "SET-53", "SET-55", "SET-56", "SET-57", "SET-58", "SET-59",
)  # fmt: skip


@check("PUSH-7", "PUSH-10", "CR-10", "CR-12", "CRC-9", "SET-61", group="direct")
async def good_sets(rx: Receiver, v: Verdict) -> None:
    """A sound SET is answered 202 with an empty body, also when it comes again."""
    _, raw = rx.signer.good()
    first = await rx.push_until_decided(raw)
    v.need(first.status < BAD_REQUEST, "PUSH-7", "CR-12", told=f"accepted: {first.told()}")
    accepted(v, first, "PUSH-7", "CR-10", "CR-12", what="a sound SET without Accept")
    accepted(v, await rx.push(raw), "PUSH-10", "SET-61", what="the same SET again")
    claims = rx.signer.claims()
    second = await rx.push(rx.signer.sign(claims, key=rx.signer.es256))
    accepted(v, second, "CRC-9", what="a SET signed with ES256, key by kid")


@check("SET-17", "SET-31", "SET-63", "SET-59", "PUSH-2", group="direct")
async def lenient_where_it_must_be(rx: Receiver, v: Verdict) -> None:
    """Extra members, unknown types and formats, and an array of audiences do no harm."""
    signer = rx.signer
    extra = signer.claims(x_claim={"a": 1}, aud=["https://other.example", signer.audience], toe=1)
    accepted(v, await rx.push(signer.sign(extra)), "SET-17", what="unknown claims, aud as array")
    typed = signer.sign(signer.claims(), header={"typ": "application/SecEvent+JWT"})
    told = await rx.push(typed)
    v.should(told.status == 202, "SET-31", told=f"typ as a media type: {told.told()}")  # noqa: PLR2004
    new = signer.claims("https://events.example/never-heard-of", {"a": 1})
    told = await rx.push(signer.sign(new))
    v.should(told.status == 202, "SET-63", told=f"an unknown type: {told.told()}")  # noqa: PLR2004
    formatted = signer.claims(sub_id={"format": "x-new-format", "thing": "1"})
    told = await rx.push(signer.sign(formatted))
    v.should(told.status == 202, "SET-59", told=f"an unknown format: {told.told()}")  # noqa: PLR2004
    media_type = "application/secevent+jwt; charset=utf-8"
    told = await rx.push(signer.sign(signer.claims()), media_type=media_type)
    v.should(told.status == 202, "PUSH-2", told=f"a media type parameter: {told.told()}")  # noqa: PLR2004


@check("CR-6", "CR-10", "CR-20", "CR-21", "CR-22", "CRC-10", group="direct")
async def every_event_type(rx: Receiver, v: Verdict) -> None:
    """Every CAEP and RISC type is accepted, with milliseconds and an opaque subject."""
    for event_type in PAYLOADS:
        _, raw = rx.signer.good(event_type)
        answer = await rx.push(raw)
        accepted(v, answer, "CR-6", "CR-10", "CR-20", "CR-22", "CRC-10", what=event_type)
    for event_type in STREAM_TYPES:
        claims = rx.signer.claims(event_type, {})
        accepted(v, await rx.push(rx.signer.sign(claims)), "CR-21", what=f"{event_type}, empty")


@check("CR-5", "SSF-VER-10", "PUSH-36", group="direct")
async def verification_events(rx: Receiver, v: Verdict) -> None:
    """A verification event without state is accepted; one with a state nobody asked for is not."""
    _, raw = rx.signer.verification("stream-of-the-suite", None)
    accepted(v, await rx.push(raw), "CR-5", "SSF-VER-10", what="a verification event without state")
    _, raw = rx.signer.verification("stream-of-the-suite", "nobody asked for this")
    answer = await rx.push(raw)
    known = answer.status == BAD_REQUEST and answer.object.get("err") == "invalid_state"
    v.should(known, "SSF-VER-10", "PUSH-36", told=f"400 invalid_state: {answer.told()}")


@check("PUSH-21", "PUSH-18", "SET-50", group="direct")
async def caller_is_checked(rx: Receiver, v: Verdict) -> None:
    """Without the right Authorization nothing is accepted."""
    if rx.options.authorization is None:
        v.stop("PUSH-21", "PUSH-18", "SET-50", why="needs --authorization")
    for value, what in (("", "no Authorization"), ("Bearer wrong", "a wrong one")):
        _, raw = rx.signer.good()
        answer = await rx.push(raw, authorization=value)
        plain = answer.status in {401, 403}
        coded = answer.status == BAD_REQUEST and answer.object.get("err") in {
            "authentication_failed",
            "access_denied",
        }
        v.must(plain or coded, "PUSH-21", "SET-50", told=f"{what} is refused: {answer.told()}")
        if answer.status == 401:  # noqa: PLR2004
            told = f"401 has WWW-Authenticate: {answer.told()}"
            v.must("www-authenticate" in answer.headers, "PUSH-21", told=told)
    answer = await rx.push(b"no SET", authorization="Bearer wrong")
    told = f"the caller is checked before the SET: {answer.told()}"
    v.should(answer.object.get("err") != "invalid_request", "PUSH-18", told=told)


@check("PUSH-14", "SET-50", group="direct")
async def ordinary_http_problems(rx: Receiver, v: Verdict) -> None:
    """Wrong method, wrong media type, too large: the ordinary codes, never an acceptance."""
    _, raw = rx.signer.good()
    for answer, expected, what in (
        (await rx.push(raw, media_type="application/json"), {415, 400}, "a wrong media type"),
        (await rx.push(b"", method="GET"), {405, 404}, "GET"),
        (await rx.push(b"a" * HUGE_BYTES), {413, 400}, "a megabyte"),
    ):
        told = f"{what}: {sorted(expected)}: {answer.told()}"
        v.should(answer.status in expected, "PUSH-14", "SET-50", told=told)
        v.must(400 <= answer.status < 500, "PUSH-14", told=told)  # noqa: PLR2004


@check(*BAD_SET_RULES, group="direct")
async def bad_sets(rx: Receiver, v: Verdict) -> None:
    """Every kind of unsound SET is refused with 400 and a code that fits."""
    for bad in BAD_SETS:
        answer = await rx.push_until_decided(bad.build(rx.signer))
        judge_refusal(v, bad, answer)


def judge_refusal(v: Verdict, bad: BadSET, answer: Answer) -> None:
    """Judge the answer to an unsound SET: status, form, and code."""
    refused = answer.status == BAD_REQUEST
    v.must(refused, *bad.ids, "PUSH-12", told=f"{bad.name} is 400: {answer.told()}")
    if not refused:
        return
    err, text = answer.object.get("err"), answer.object.get("description")
    ok = answer.media_type == JSON_MEDIA_TYPE and isinstance(err, str)
    v.must(ok, "PUSH-12", told=f"{bad.name}: JSON with err: {answer.told()}")
    v.should(isinstance(text, str), "PUSH-12", told=f"{bad.name}: description: {answer.told()}")
    v.must("content-language" in answer.headers, "PUSH-12", told=f"{bad.name}: Content-Language")
    v.must(err in bad.codes, *bad.ids, told=f"{bad.name}: err is one of {sorted(bad.codes)}: {err}")


@check("SET-37", "SET-54", "SET-36", group="keys")
async def rotation(rx: Receiver, v: Verdict) -> None:
    """A key that is published now is found, although the receiver knew the old ones."""
    fresh = VendorKey.generate("suite-next")
    rx.server.published = [*rx.server.published, fresh.public_jwk]
    answer = await rx.push_until_decided(rx.signer.sign(rx.signer.claims(), key=fresh))
    accepted(v, answer, "SET-37", "SET-36", "SET-54", what="a SET signed with the new key")
    _, raw = rx.signer.good()
    accepted(v, await rx.push(raw), "SET-36", what="a SET signed with the old key, still published")


@check("SET-54", "SET-37", "PUSH-31", group="keys")
async def unknown_keys(rx: Receiver, v: Verdict) -> None:
    """A key that is not published is never accepted, and a flood of them is no flood of fetches."""
    before = rx.server.jwks_fetches
    foreign = VendorKey.generate("suite-unpublished")
    answer = await rx.push_until_decided(rx.signer.sign(rx.signer.claims(), key=foreign))
    code = answer.object.get("err")
    ok = answer.status == BAD_REQUEST and code == "invalid_key"
    v.must(answer.status >= BAD_REQUEST, "SET-54", told=f"never accepted: {answer.told()}")
    v.should(ok or answer.status == UNAVAILABLE, "SET-54", "PUSH-31", told=f"{answer.told()}")
    for number in range(FLOOD):
        raw = rx.signer.sign(rx.signer.claims(), header={"kid": f"unknown-{number}"})
        refused = await rx.push(raw)
        told = f"an unknown kid is never accepted: {refused.told()}"
        v.must(refused.status >= BAD_REQUEST, "SET-54", told=told)
    fetched = rx.server.jwks_fetches - before
    few = fetched <= FLOOD_FETCHES_MAX
    v.should(few, "SET-37", told=f"{FLOOD} unknown keys: {fetched} fetches of the JWK Set")


@check("SET-54", group="keys")
async def keys_unavailable(rx: Receiver, v: Verdict) -> None:
    """While the JWK Set cannot be had, a SET with an unknown key is undecided: 503."""
    fresh = VendorKey.generate("suite-while-down")
    rx.server.jwks_status = 500
    try:
        raw = rx.signer.sign(rx.signer.claims(), key=fresh)
        answer = await rx.push(raw)
        v.must(answer.status >= BAD_REQUEST, "SET-54", told=f"not accepted: {answer.told()}")
        undecided = answer.status == UNAVAILABLE
        v.should(undecided, "SET-54", told=f"503, to be tried again: {answer.told()}")
        if undecided:
            told = f"503 has Retry-After: {answer.told()}"
            v.should("retry-after" in answer.headers, "SET-54", told=told)
        _, known = rx.signer.good()
        told = "a SET with a known key is accepted all the same"
        v.should((await rx.push(known)).status == 202, "SET-54", told=told)  # noqa: PLR2004
    finally:
        rx.server.jwks_status = 200
    rx.server.published = [*rx.server.published, fresh.public_jwk]
    later = await rx.push_until_decided(raw)
    accepted(v, later, "SET-54", what="the same SET once the key can be had")
