"""Receivers that are down, slow, wrong or mad: each costs itself only, and nothing gets lost.

One hub, one stream per fault and one healthy stream. Four events about two subjects go over all
streams. What each fault makes of them is one row of CASES.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from benchmarks.load_judge import Cause, judge_receiver
from hub.demo.processes import Http, HubProcess, until
from hub.relay.model import own_txn
from runtime.clock import CLOCK_FILE_VARIABLE, SystemClock, epoch_s
from runtime.egress import EgressRules
from runtime.outbound import OutboundRequest
from runtime.streaming import StreamingOutbound
from tests.receivers import vendor

pytestmark = [pytest.mark.scenario, pytest.mark.anyio, pytest.mark.long]

RISK_LEVEL_CHANGE: Final = "https://schemas.openid.net/secevent/caep/event-type/risk-level-change"
EVENTS: Final = (Cause(1, 1), Cause(2, 1), Cause(1, 2), Cause(2, 2))
#: the hub tells of a cause under a `txn` of its own
PUBLISHED: Final = {own_txn("default", vendor.ISSUER, cause.txn): cause for cause in EVENTS}
HEALTHY: Final = "healthy"
TRAP: Final = "trap"
DOWN: Final = "down"
STEP_S: Final = 300.0
STEPS_OF_ILLNESS: Final = 6
#: for a back-off of an hour at most, and five attempts of which the last waits 15 minutes
STEPS_MAX: Final = 60
RETRY_AFTER_S: Final = 7_200
HUGE_DETAIL: Final = "x" * 10_000

DELIVERED: Final = "delivered"
DEAD: Final = "dead"
HELD: Final = "held"


@dataclass(frozen=True, kw_only=True)
class Case:
    """A fault, and what becomes of the SETs. err: the reason the hub must have noted.

    ends: delivered (the answer is no fault), dead (each SET is set aside), held (kept until the
    receiver is well again).
    """

    answer: dict[str, Any]
    ends: str
    err: str | None = None


def _status(status: int, ends: str, **more: Any) -> Case:
    return Case(answer={"how": "status", "status": status, **more}, ends=ends)


def _error(err: str, ends: str) -> Case:
    body = msgspec.json.encode({"err": err, "description": "no"}).decode()
    return Case(answer={"how": "status", "status": 400, "body": body}, ends=ends, err=err)


def _how(how: str, ends: str, **more: Any) -> Case:
    return Case(answer={"how": how, **more}, ends=ends)


CASES: Final[dict[str, Case]] = {
    "200": _status(200, DELIVERED),
    "202-with-a-body": _status(202, DELIVERED, body="thanks"),
    "204": _status(204, DELIVERED),
    "slow-20-ms": _how("slow", DELIVERED, delay_s=0.02),
    "slow-2-s": _how("slow", DELIVERED, delay_s=2.0),
    "invalid-request": _error("invalid_request", DEAD),
    "invalid-state": _error("invalid_state", DEAD),
    "own-code": _error("too_rainy_today", DEAD),
    "400-empty": _status(400, DEAD),
    "400-html": _status(400, DEAD, body="<html>" + HUGE_DETAIL),
    "404": _status(404, DEAD),
    "410": _status(410, DEAD),
    "413": _status(413, DEAD),
    "422": _status(422, DEAD),
    "invalid-key": _error("invalid_key", HELD),
    "invalid-issuer": _error("invalid_issuer", HELD),
    "invalid-audience": _error("invalid_audience", HELD),
    "authentication-failed": _error("authentication_failed", HELD),
    "access-denied": _error("access_denied", HELD),
    "401": _status(401, HELD, headers={"www-authenticate": "Bearer"}),
    "403": _status(403, HELD),
    "408": _status(408, HELD),
    "429": _status(429, HELD, headers={"retry-after": str(RETRY_AFTER_S)}),
    "500": _status(500, HELD, body=HUGE_DETAIL),
    "503": _status(503, HELD, headers={"retry-after": "nonsense"}),
    "redirect": _status(307, HELD),
    "garbage": _how("garbage", HELD),
    "huge": _how("huge", HELD),
    "cut": _how("cut", HELD),
    "half-closed": _how("half_closed", HELD),
    "never": _how("never", HELD),
    DOWN: _how("down", HELD),
}


class Receiver:
    """The process `bad_receiver`; may be started where nothing has listened so far."""

    def __init__(self, http: Http, process: asyncio.subprocess.Process, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._http = http
        self._process = process

    @classmethod
    async def start(cls, http: Http, port: int = 0) -> Receiver:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.scenarios.bad_receiver", "--port", str(port)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        return cls(http, process, int(await process.stdout.readline()))

    async def order(self, name: str, answer: dict[str, Any]) -> None:
        await self._http.ask("PUT", f"{self.url}/control/{name}", answer)

    async def ledger(self) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = await self._http.ask("GET", f"{self.url}/ledger")
        return entries

    async def stop(self) -> None:
        self._process.terminate()
        await self._process.wait()


@dataclass
class Stage:
    """A hub, its receivers, its vendor and its clock."""

    http: Http
    hub: HubProcess
    receiver: Receiver
    clock: Path
    down_url: str
    streams: dict[str, str] = field(default_factory=dict)
    moved_s: float = 0.0
    push_url: str = ""

    async def admin(self, method: str, path: str, body: object = None) -> Any:
        url = f"{self.hub.url}/admin/v1/{path}"
        return await self.http.ask(method, url, body, token=self.hub.admin_token)

    async def introduce(self) -> None:
        """Make two users, a provider, and one app with one stream per receiver."""
        for subject in (1, 2):
            identifiers = [{"format": "email", "email": _email(subject)}]
            await self.admin("POST", "users", {"identifiers": identifiers})
        provider = await self.admin(
            "POST",
            "providers",
            {
                "name": "vendor",
                "issuer": vendor.ISSUER,
                "audiences": [vendor.AUDIENCE],
                "jwks": vendor.jwks(_KEY),
            },
        )
        self.push_url = provider["events_url"]
        for name in (HEALTHY, *CASES):
            await self._add_stream(name)
        await self.receiver.order(TRAP, {"how": "status", "status": 202})
        for name, case in CASES.items():
            if name == "redirect":
                headers = {"location": f"{self.receiver.url}/r/{TRAP}"}
                await self.receiver.order(name, {**case.answer, "headers": headers})
            elif name != DOWN:
                await self.receiver.order(name, case.answer)

    async def _add_stream(self, name: str) -> None:
        app = await self.admin("POST", "apps", {"name": name, "logout": [{"method": "ssf"}]})
        client = await self.admin(
            "POST",
            "clients",
            {"name": name, "scopes": ["ssf.read", "ssf.manage"], "app_id": app["id"]},
        )
        base = self.down_url if name == DOWN else self.receiver.url
        stream = await self.http.ask(
            "POST",
            f"{self.hub.url}/ssf/streams",
            {
                "events_requested": [RISK_LEVEL_CHANGE],
                "delivery": {
                    "method": "urn:ietf:rfc:8935",
                    "endpoint_url": f"{base}/r/{name}",
                    "authorization_header": f"Bearer of-{name}",
                },
            },
            token=client["token"],
        )
        self.streams[name] = stream["stream_id"]

    async def publish(self, cause: Cause) -> None:
        """Let the vendor change a subject's level, which the hub tells all streams."""
        now_s = epoch_s(SystemClock().now())
        levels = ("LOW", "MEDIUM") if cause.number % 2 else ("MEDIUM", "LOW")
        event = {
            "principal": "USER",
            "previous_level": levels[0],
            "current_level": levels[1],
            "event_timestamp": now_s - 1_000 + cause.number,
        }
        raw = vendor.sign(
            vendor.claims(
                iat=now_s,
                jti=cause.txn,
                txn=cause.txn,
                sub_id={"format": "email", "email": _email(cause.subject)},
                events={RISK_LEVEL_CHANGE: event},
            ),
            _KEY,
        )
        assert await _push(self.push_url, raw) == 202

    async def receipts(self, name: str) -> dict[Cause, dict[str, Any]]:
        listed = await self.admin("GET", f"deliveries?stream={self.streams[name]}&limit=100")
        return {PUBLISHED[item["txn"]]: item for item in listed["items"]}

    async def states(self, name: str) -> list[str]:
        """Return the state of the four SETs, in the order of EVENTS; fewer if not all exist."""
        receipts = await self.receipts(name)
        return [receipts[cause]["state"] for cause in EVENTS if cause in receipts]

    def move_clock(self, seconds: float = STEP_S) -> None:
        self.moved_s += seconds
        self.clock.write_text(str(self.moved_s))

    async def until_moving_on(self, what: str, holds: Callable[[], Awaitable[bool]]) -> None:
        """Let time pass in steps until something holds."""
        for _ in range(STEPS_MAX):
            if await holds():
                return
            self.move_clock()
            await asyncio.sleep(0.1)  # the hub reads the clock from a file, now and then
        await until(what, holds)


_KEY: Final = vendor.ec_key("vendor-1")


def _email(subject: int) -> str:
    return f"subject-{subject}@bad-receivers.example"


async def _push(url: str, raw: bytes) -> int:
    outbound = StreamingOutbound(EgressRules(dev_insecure=True))
    try:
        headers = {"content-type": "application/secevent+jwt"}
        answer = await outbound.send(
            OutboundRequest(method="POST", url=url, headers=headers, body=raw)
        )
    finally:
        await outbound.close()
    return answer.status


@asynccontextmanager
async def staged(folder: Path) -> AsyncIterator[Stage]:
    clock = folder / "clock"
    clock.write_text("0")
    http = Http()
    hub = HubProcess(
        folder,
        admin_token=secrets.token_urlsafe(32),
        environment={CLOCK_FILE_VARIABLE: str(clock)},
    )
    # A port that nothing listens on until somebody does.
    idle = HubProcess(folder, admin_token="", environment={}).port
    receiver = await Receiver.start(http)
    try:
        await hub.start(http)
        yield Stage(
            http=http,
            hub=hub,
            receiver=receiver,
            clock=clock,
            down_url=f"http://127.0.0.1:{idle}",
        )
    finally:
        await hub.stop()
        await receiver.stop()
        await http.close()


@pytest.mark.requirement(
    "PUSH-8",
    "PUSH-16",
    "PUSH-30",
    "PUSH-31",
    "PUSH-32",
    "PUSH-33",
    "PUSH-34",
    "PUSH-35",
    "PUSH-36",
    "PUSH-37",
    "PUSH-40",
    "PUSH-41",
    "PUSH-42",
    "PUSH-43",
    "PUSH-44",
    "PUSH-45",
    "PUSH-46",
)
async def test_row_26_every_fault_costs_itself_only_and_nothing_is_lost(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        await stage.introduce()
        for pair in (EVENTS[:2], EVENTS[2:]):
            for cause in pair:
                await stage.publish(cause)
            await until("the healthy stream has them", _heard(stage, HEALTHY, pair))
        await _assert_the_healthy_one_did_not_wait(stage)
        for name, case in CASES.items():
            await until(f"{name} is {case.ends}", _is_as_expected(stage, name, case))

        await _half_an_hour_passes(stage)
        back = await Receiver.start(stage.http, int(stage.down_url.rpartition(":")[2]))
        try:
            await _everybody_is_well(stage)
            ledger = [*await stage.receiver.ledger(), *await back.ledger()]
            await _assert_all_is_accounted_for(stage, ledger)
        finally:
            await back.stop()


def _heard(stage: Stage, name: str, causes: tuple[Cause, ...]) -> Callable[[], Awaitable[bool]]:
    async def have_all() -> bool:
        txns = {entry["txn"] for entry in await stage.receiver.ledger() if entry["name"] == name}
        return set(causes) <= {PUBLISHED[txn] for txn in txns}

    return have_all


def _is_as_expected(stage: Stage, name: str, case: Case) -> Callable[[], Awaitable[bool]]:
    """Hold when every SET has the state the case says, and the reason where there is one."""

    async def is_so() -> bool:
        receipts = await stage.receipts(name)
        if len(receipts) < len(EVENTS):
            return False
        tried = [item for item in receipts.values() if item["attempts"]]
        if not tried or (case.err and any(item["err"] != case.err for item in tried)):
            return False
        state = "pending" if case.ends == HELD else case.ends
        return all(item["state"] == state for item in receipts.values())

    return is_so


async def _assert_the_healthy_one_did_not_wait(stage: Stage) -> None:
    """When the healthy stream had its last SET, no faulty one had got rid of its trouble."""
    for name, case in CASES.items():
        if case.ends == HELD:
            assert DELIVERED not in await stage.states(name), name
    ledger = await stage.receiver.ledger()
    assert TRAP not in {entry["name"] for entry in ledger}


async def _half_an_hour_passes(stage: Stage) -> None:
    """Receivers stay ill for 30 minutes: they are tried again, and nothing is given up for it.

    Half-way the hub is killed, with all its processes, and started again.
    """
    before = {name: await _attempts(stage, name) for name in (DOWN, "500", "never")}
    asked_to_wait = await _attempts(stage, "429")
    for step in range(STEPS_OF_ILLNESS):
        if step == STEPS_OF_ILLNESS // 2:
            await stage.hub.kill()
            await stage.hub.start(stage.http)
        attempts = await _attempts(stage, DOWN)

        async def is_tried_again(attempts: int = attempts) -> bool:
            return await _attempts(stage, DOWN) > attempts

        stage.move_clock()
        await until("the one that is down is tried again", is_tried_again)
    for name in (DOWN, "500"):
        assert await _attempts(stage, name) > before[name], name
        assert set(await stage.states(name)) == {"pending"}
    assert await _attempts(stage, "429") == asked_to_wait, "Retry-After asks for two hours"
    tried = [item for item in (await stage.receipts("429")).values() if item["attempts"]]
    assert tried
    for item in tried:
        waits = datetime.fromisoformat(item["due_at"]) - datetime.fromisoformat(item["queued_at"])
        assert waits >= timedelta(seconds=RETRY_AFTER_S)


async def _attempts(stage: Stage, name: str) -> int:
    return sum(item["attempts"] for item in (await stage.receipts(name)).values())


async def _everybody_is_well(stage: Stage) -> None:
    """Heal everybody; what was held is delivered, what the receiver refused stays set aside."""
    for name, case in CASES.items():
        if case.ends != DELIVERED and name != DOWN:
            await stage.receiver.order(name, {"how": "status", "status": 202})

    async def is_settled() -> bool:
        states = [await stage.states(name) for name in CASES]
        return not any("pending" in each for each in states)

    await stage.until_moving_on("everything is settled", is_settled)


async def _assert_all_is_accounted_for(stage: Stage, ledger: list[dict[str, Any]]) -> None:
    """Fail at anything lost, doubled or out of order.

    At-least-once allows that a SET comes again that was under way when the hub was killed. What had
    been settled before comes once: clocks jump and the machine may be slow, so leases run out; but
    nobody else comes, so what was sent under them is settled.
    """
    for name, case in {HEALTHY: _status(202, DELIVERED), **CASES}.items():
        states = await stage.states(name)
        taken = _taken(entry for entry in ledger if entry["name"] == name)
        delivered = [cause for cause, state in zip(EVENTS, states, strict=True) if state != DEAD]
        verdict = judge_receiver(name, taken, delivered, PUBLISHED)
        assert not any(verdict.counts.values()), (name, verdict)
        assert case.ends == HELD or not verdict.redelivered, (name, verdict)
        assert verdict.received == len(delivered), name
        if case.ends == DEAD:
            assert set(states) == {DEAD}, name
        elif name not in MAY_GIVE_UP:
            assert set(states) == {DELIVERED}, name
        authorizations = {entry["authorization"] for entry in ledger if entry["name"] == name}
        assert authorizations <= {f"Bearer of-{name}"}, name
    dead = await stage.admin("GET", "dead-letters?limit=100")
    assert all(item["detail"] for item in dead["items"])
    assert max(len(item["detail"]) for item in dead["items"]) <= 500
    assert TRAP not in {entry["name"] for entry in ledger}


#: the receiver spoke about the SET itself, so it is given up after five attempts (PUSH-31, PUSH-35)
MAY_GIVE_UP: Final = {"invalid-key", "access-denied"}


def _taken(entries: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return what a receiver took, as ledgers of load tests have it: known is what comes again."""
    taken: list[dict[str, Any]] = []
    seen: set[str] = set()
    for entry in entries:
        if entry["status"] not in {200, 202, 204}:
            continue
        jti = entry["jti"]
        taken.append(
            {
                "what": "set.received",
                "txn": entry["txn"],
                "request_id": jti,
                "known": jti in seen,
            }
        )
        seen.add(jti)
    return taken
