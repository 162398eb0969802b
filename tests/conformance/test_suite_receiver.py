"""Negative control: the suite finds every rule that a receiver breaks, and only then fails."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import pytest
from aiohttp import web

from conformance.suite.checks import Outcome, Result
from conformance.suite.receiver.command import _introduction
from conformance.suite.receiver.party import Options
from conformance.suite.receiver.run import CHECKS, run_receiver
from conformance.suite.receiver.server import StageServer
from conformance.suite.report import Report
from tests.conformance.small_receiver import AUTHORIZATION, SmallReceiver

DIRECT: Final = Options(push_url="-", audience="rx", step_s=4.0, check_s=60.0)
CLIENT: Final = replace(DIRECT, push_url=None, hold_s=0.2, step_s=2.0)
#: what is broken, the check that has to see it, the requirement it has to name, and how badly
FAIL, WARN = Outcome.FAIL, Outcome.WARN
DIRECT_FAULTS: Final = (
    ("answers_200", "good_sets", "PUSH-7", FAIL),
    ("answers_text", "good_sets", "PUSH-7", FAIL),
    ("needs_accept", "good_sets", "CR-12", FAIL),
    ("repeat_is_409", "good_sets", "PUSH-10", FAIL),
    ("no_extra_claims", "lenient_where_it_must_be", "SET-17", FAIL),
    ("no_milliseconds", "every_event_type", "CR-20", FAIL),
    ("no_opaque", "every_event_type", "CRC-10", FAIL),
    ("picky", "every_event_type", "CR-22", FAIL),
    ("no_stateless_verification", "verification_events", "CR-5", FAIL),
    ("takes_any_state", "verification_events", "PUSH-36", WARN),
    ("anyone", "caller_is_checked", "PUSH-21", FAIL),
    ("no_challenge", "caller_is_checked", "PUSH-21", FAIL),
    ("takes_any_type", "ordinary_http_problems", "PUSH-14", FAIL),
    ("no_language", "bad_sets", "PUSH-12", FAIL),
    ("plain_errors", "bad_sets", "PUSH-12", FAIL),
    ("errors_are_500", "bad_sets", "PUSH-12", FAIL),
    ("one_code", "bad_sets", "PUSH-32", FAIL),
    ("one_code", "bad_sets", "PUSH-33", FAIL),
    ("takes_anything", "bad_sets", "SET-33", FAIL),
    ("takes_other_typ", "bad_sets", "SET-31", FAIL),
    ("takes_other_iss", "bad_sets", "SET-53", FAIL),
    ("takes_other_aud", "bad_sets", "SET-57", FAIL),
    ("takes_exp", "bad_sets", "SET-43", FAIL),
    ("takes_bad_signature", "bad_sets", "SET-55", FAIL),
    ("takes_no_subject", "bad_sets", "SET-59", FAIL),
    ("never_refetches", "rotation", "SET-37", FAIL),
    ("takes_unknown_key", "unknown_keys", "SET-54", FAIL),
    ("always_refetches", "unknown_keys", "SET-37", WARN),
    ("outage_is_400", "keys_unavailable", "SET-54", FAIL),
)
CLIENT_FAULTS: Final = (
    ("lists", "happy_path", "CR-1", FAIL),
    ("never_deletes", "create_and_delete", "CR-2", FAIL),
    ("no_state", "stream_verification", "CR-4", FAIL),
    ("never_acks", "stream_verification", "CR-4", FAIL),
    ("no_stateless_verification", "unsolicited_verification", "CR-5", FAIL),
    ("no_milliseconds", "supported_events", "CR-20", FAIL),
    ("other_events", "caep_interop", "CR-7", FAIL),
    ("acks_anything", "polled_bad_sets", "POLL-12", FAIL),
    ("no_language", "polled_bad_sets,strictness", "POLL-18", FAIL),
    ("sends_aud", "create_and_delete,strictness", "CRC-4", FAIL),
    ("creates_twice", "create_and_delete,strictness", "CRC-5", FAIL),
    ("echoes", "happy_path,strictness", "CRC-6", FAIL),
    ("disables", "status_update,strictness", "CRC-7", FAIL),
    ("drops_query", "unsolicited_verification,strictness", "CRC-14", FAIL),
    ("bearer_lower", "create_and_delete", "CR-2", FAIL),
)


async def run(fault: str, options: Options, *, delivery: str = "poll") -> Report:
    """Run the suite against the small receiver with one fault."""
    receivers: list[SmallReceiver] = []

    async def ready(server: StageServer) -> Options:
        faults = [fault] if fault else []
        receiver = SmallReceiver(*faults, told=_introduction(server), tls=None)
        receivers.append(await receiver.__aenter__())
        if options.push_url is not None:
            return replace(options, push_url=receiver.url, authorization=AUTHORIZATION)
        return replace(options, step_command=await stepping(receiver, delivery))

    servers: list[web.AppRunner] = []

    async def stepping(receiver: SmallReceiver, how: str) -> str:
        """Return a command that makes the receiver's steps, over a port of its own."""

        async def serve(request: web.Request) -> web.Response:
            await receiver.step(request.match_info["step"], delivery=how)
            return web.Response()

        application = web.Application()
        application.router.add_post("/{step}", serve)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        servers.append(runner)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        code = (
            "import sys, urllib.request as u; "
            f"u.urlopen(u.Request('http://127.0.0.1:{port}/' + sys.argv[-1], method='POST'))"
        )
        return f'{sys.executable} -S -c "{code}"'

    try:
        results: Sequence[Result] = await run_receiver(options, ready=ready, tell=lambda _: None)
    finally:
        for receiver in receivers:
            await receiver.__aexit__()
        for runner in servers:
            await runner.cleanup()
    return Report(role="receiver", target="", strict=False, results=tuple(results))


def bad(report: Report) -> dict[str, tuple[Outcome, str]]:
    return {
        name: told
        for name, told in report.by_requirement.items()
        if told[0] in {Outcome.FAIL, Outcome.WARN}
    }


async def test_a_sound_push_endpoint_passes_all_of_it() -> None:
    report = await run("", DIRECT)
    assert not bad(report)
    assert not report.failed


@pytest.mark.parametrize("delivery", ["push", "poll"])
@pytest.mark.parametrize("interop", [False, True])
async def test_a_sound_stream_client_passes_all_of_it(delivery: str, interop: bool) -> None:  # noqa: FBT001 - a parameter of pytest
    report = await run("", replace(CLIENT, interop=interop), delivery=delivery)
    assert not bad(report)
    assert not report.failed


@pytest.mark.parametrize(("fault", "check", "requirement_id", "outcome"), DIRECT_FAULTS)
async def test_a_broken_rule_of_a_push_endpoint_is_found_and_named(
    fault: str, check: str, requirement_id: str, outcome: Outcome
) -> None:
    report = await run(fault, replace(DIRECT, only=frozenset({check, "good_sets"})))
    assert report.by_requirement[requirement_id][0] is outcome
    assert report.failed is (outcome is Outcome.FAIL)


@pytest.mark.parametrize(("fault", "checks", "requirement_id", "outcome"), CLIENT_FAULTS)
async def test_a_broken_rule_of_a_stream_client_is_found_and_named(
    fault: str, checks: str, requirement_id: str, outcome: Outcome
) -> None:
    report = await run(fault, replace(CLIENT, only=frozenset(checks.split(","))))
    assert report.by_requirement[requirement_id][0] is outcome
    assert report.failed


def test_every_check_is_found_out_by_a_fault() -> None:
    assert len({one.name for one in CHECKS}) == len(CHECKS)
    faults = (*DIRECT_FAULTS, *CLIENT_FAULTS)
    found_out = {name for _, names, *_ in faults for name in names.split(",")}
    assert {one.name for one in CHECKS} == found_out


async def test_a_dead_push_endpoint_is_a_failure_and_no_hang() -> None:
    async def ready(_: StageServer) -> Options:
        await asyncio.sleep(0)
        return replace(DIRECT, push_url="http://127.0.0.1:9/events")

    results = await run_receiver(DIRECT, ready=ready, tell=lambda _: None)
    report = Report(role="receiver", target="", strict=False, results=tuple(results))
    assert report.failed
