"""Checks of what the configuration endpoint refuses, and in which order it looks."""

from __future__ import annotations

from typing import Final

from conformance.suite.checks import Checks, Verdict
from conformance.suite.transmitter.expect import status_is, status_should_be
from conformance.suite.transmitter.options import Profile
from conformance.suite.transmitter.party import Transmitter

checks: Checks[Transmitter] = Checks()
check = checks.check

BROKEN: Final = b";{ broken"
BAD_TOKEN: Final = "invalid:5f0a1c1e-7d44-4b7e-9d3c-0b8f6f1d2a3b"  # noqa: S105 - opens nothing


@check("CT-3", "SSF-OP-3", "SSF-OP-53", group="each")
async def create_with_broken_input(tx: Transmitter, v: Verdict) -> None:
    """Creating with a broken body is 400."""
    status_is(v, await tx.manage("POST", raw=BROKEN), 400, "CT-3", "SSF-OP-3")


@check("CT-4", "SSF-OP-3", "SSF-OP-53", "INT-28", group="each")
async def create_with_invalid_token(tx: Transmitter, v: Verdict) -> None:
    """Creating with an invalid token is 401."""
    body, _ = tx.wanted()
    answer = await tx.manage("POST", body, token=BAD_TOKEN)
    status_is(v, answer, 401, "CT-4", "SSF-OP-3", "INT-28")


@check("CT-6", "SSF-OP-53", group="each")
async def read_with_invalid_token(tx: Transmitter, v: Verdict) -> None:
    """Reading with an invalid token is 401, with and without an id."""
    for query in ("", "stream_id=stale"):
        status_is(v, await tx.manage("GET", query=query, token=BAD_TOKEN), 401, "CT-6")


@check("CT-9", "SSF-OP-53", group="managed")
async def update_with_invalid_token(tx: Transmitter, v: Verdict) -> None:
    """Updating with an invalid token is 401."""
    body, _ = tx.wanted()
    status_is(v, await tx.manage("PATCH", body, token=BAD_TOKEN), {401, 400}, "CT-9")


@check("CT-10", "SSF-OP-53", group="managed")
async def update_with_invalid_body(tx: Transmitter, v: Verdict) -> None:
    """Updating with a broken body is 400, although there is no stream."""
    status_is(v, await tx.manage("PATCH", raw=BROKEN), 400, "CT-10")


@check("CT-11", "SSF-OP-20", "SSF-OP-53", group="managed")
async def update_unknown_stream(tx: Transmitter, v: Verdict) -> None:
    """Updating a deleted stream is 404."""
    stream = await tx.create()
    await stream.delete()
    body, _ = tx.wanted()
    answer = await tx.manage("PATCH", {**body, "stream_id": stream.stream_id})
    status_is(v, answer, 404, "CT-11", "SSF-OP-20")


@check("CT-12", "SSF-OP-53", group="managed")
async def replace_with_invalid_body(tx: Transmitter, v: Verdict) -> None:
    """Replacing with a broken body is 400."""
    status_is(v, await tx.manage("PUT", raw=BROKEN), 400, "CT-12")


@check("CT-13", "SSF-OP-53", group="managed")
async def replace_with_invalid_token(tx: Transmitter, v: Verdict) -> None:
    """Replacing with an invalid token is 401."""
    body, _ = tx.wanted()
    status_is(v, await tx.manage("PUT", body, token=BAD_TOKEN), 401, "CT-13")


@check("CT-14", "SSF-OP-30", "SSF-OP-53", group="managed")
async def replace_unknown_stream(tx: Transmitter, v: Verdict) -> None:
    """Replacing a deleted stream is 404."""
    stream = await tx.create()
    await stream.delete()
    body, _ = tx.wanted()
    answer = await tx.manage("PUT", {**body, "stream_id": stream.stream_id})
    status_is(v, answer, 404, "CT-14", "SSF-OP-30")


@check("SSF-OP-52", "SSF-OP-54", group="each")
async def order_of_checks(tx: Transmitter, v: Verdict) -> None:
    """Method, token, body, stream, meaning: the first thing that is wrong decides."""
    wrong_method = await tx.manage("TRACE", token=BAD_TOKEN)
    status_should_be(v, wrong_method, {405, 401, 400, 501}, "SSF-OP-52")
    if wrong_method.status == 405:  # noqa: PLR2004
        allow = "allow" in wrong_method.headers
        v.should(allow, "SSF-OP-52", told=f"405 names what is allowed: {wrong_method.told()}")
    status_is(v, await tx.manage("POST", raw=BROKEN, token=BAD_TOKEN), 401, "SSF-OP-52")
    if tx.options.profile is Profile.SSF:
        unknown = {"stream_id": "no-such-stream", "iss": "https://else.example"}
        status_is(v, await tx.manage("PATCH", raw=BROKEN), 400, "SSF-OP-52")
        status_is(v, await tx.manage("PATCH", unknown), 404, "SSF-OP-52")
        status_is(v, await tx.manage("PUT", unknown), 404, "SSF-OP-52")
    url = tx.endpoint("configuration_endpoint") or ""
    form = await tx.asker.ask(
        "POST",
        url,
        token=tx.token,
        body=b'{"events_requested":[]}',
        headers={"content-type": "text/plain"},
    )
    status_should_be(v, form, {400, 415}, "SSF-OP-54")
