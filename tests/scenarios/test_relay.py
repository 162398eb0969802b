"""Two hubs pointed at each other: an event goes round once, and a crash loses and doubles nothing.

Each hub is a provider of the other, and has a push stream to it. Judged by what the hubs stored,
by their receipts, and by what reached an app at each hub.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from benchmarks.kills import settings_on_postgresql
from hub.demo.processes import Http, HubProcess, PeerProcess, until
from ssf.events.caep import DeviceComplianceChange

pytestmark = [pytest.mark.scenario, pytest.mark.anyio]

EVENT_TYPE = DeviceComplianceChange.type_uri
LISTED_MAX = 100
EVENTS = 24
EMAIL = "rosa@mediaxmedia.example"
DEVICE = "rosa-laptop"


@dataclass
class Side:
    """One of the two hubs. leaf, leaf_token: poll stream of an app, and what polls it."""

    hub: HubProcess
    http: Http
    client_id: str = ""
    token: str = ""
    leaf: str = ""
    leaf_token: str = ""
    leaf_stream: str = ""
    polled: list[str] = field(default_factory=list)

    async def admin(self, method: str, path: str, body: object = None) -> Any:
        url = f"{self.hub.issuer}/admin/v1{path}"
        return await self.http.ask(method, url, body, token=self.hub.admin_token)

    async def add_client(self, name: str) -> tuple[str, str]:
        scopes = ["ssf.read", "ssf.manage"]
        made = await self.admin("POST", "/clients", {"name": name, "scopes": scopes})
        return made["id"], made["token"]

    async def add_stream(self, token: str, delivery: dict[str, str]) -> Any:
        wanted = {"events_requested": [EVENT_TYPE], "delivery": delivery}
        return await self.http.ask("POST", f"{self.hub.issuer}/ssf/streams", wanted, token=token)

    async def counted(self) -> tuple[int, int, int]:
        """Return how many signals and deliveries there are, and how many are not settled."""
        signals = await self.every("/signals")
        deliveries = await self.every("/deliveries")
        open_signals = sum(one["state"] == "received" for one in signals)
        open_deliveries = sum(
            one["state"] == "pending" and one["stream_id"] != self.leaf_stream for one in deliveries
        )
        return len(signals), len(deliveries), open_signals + open_deliveries

    async def every(self, path: str) -> list[dict[str, Any]]:
        """Return all items of a list, page by page."""
        items: list[dict[str, Any]] = []
        cursor = ""
        for _ in range(LISTED_MAX):
            page = await self.admin("GET", f"{path}?limit={LISTED_MAX}{cursor}")
            items += page["items"]
            if not page["next_cursor"]:
                return items
            cursor = f"&cursor={page['next_cursor']}"
        raise AssertionError(f"{path} does not end")

    async def poll(self) -> None:
        """Let the app take all that waits for it."""
        body: dict[str, Any] = {"returnImmediately": True}
        for _ in range(LISTED_MAX):
            answer = await self.http.ask("POST", self.leaf, body, token=self.leaf_token)
            if not answer["sets"]:
                return
            self.polled += answer["sets"]
            body = {"returnImmediately": True, "ack": list(answer["sets"])}


@dataclass
class Pair:
    """Two hubs and the vendor of the first."""

    first: Side
    second: Side
    vendor: PeerProcess
    http: Http

    async def emit(self, number: int, **order: object) -> None:
        status = "not-compliant" if number % 2 == 0 else "compliant"
        await self.http.ask(
            "POST",
            f"{self.vendor.url}/control/emit",
            {
                "shape": "device-compliance-change",
                "user": EMAIL,
                "device": DEVICE,
                "status": status,
                "jti": f"vendor-{number}",
                "txn": f"cause-{number}",
                **order,
            },
        )

    async def until_quiet(self, *, signals: int) -> None:
        """Wait until both hubs have nothing left to do, and had nothing a moment ago."""
        last: list[Any] = []

        async def is_quiet() -> bool:
            now = [await side.counted() for side in (self.first, self.second, self.first)]
            same = now == last
            last[:] = now
            return same and now[0][0] >= signals and not any(open_ for _, _, open_ in now)

        await until("both hubs are quiet", is_quiet)


@pytest.fixture(params=["sqlite", "postgresql"])
async def pair(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Pair]:
    http = Http()
    sides = []
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        environment: dict[str, str] = {}
        if request.param == "postgresql":
            server: str = request.getfixturevalue("postgresql_server")
            environment = await settings_on_postgresql(server)
        hub = HubProcess(folder, admin_token=secrets.token_hex(16), environment=environment)
        sides.append(Side(hub=hub, http=http))
    first, second = sides
    vendor = await PeerProcess.start("vendor", name="mdm", ledger=str(tmp_path / "mdm.jsonl"))
    try:
        await asyncio.gather(*(side.hub.start(http) for side in sides))
        for side in sides:
            await _settle_in(side)
        await _introduce_vendor(first, vendor)
        await _point(first, second)
        await _point(second, first)
        yield Pair(first=first, second=second, vendor=vendor, http=http)
    finally:
        await asyncio.gather(*(side.hub.stop() for side in sides), vendor.stop())
        await http.close()
    assert not [line for side in sides for line in side.hub.troubles()]


async def _settle_in(side: Side) -> None:
    """Make a person, an app with a poll stream, and a client for the other hub."""
    identifiers = [{"format": "email", "email": EMAIL}]
    user = await side.admin("POST", "/users", {"label": "Rosa", "identifiers": identifiers})
    device = {"identifiers": [{"format": "opaque", "id": DEVICE}], "owner": user["id"]}
    await side.admin("POST", "/devices", device)
    _, side.leaf_token = await side.add_client("leaf")
    stream = await side.add_stream(side.leaf_token, {"method": "urn:ietf:rfc:8936"})
    side.leaf, side.leaf_stream = stream["delivery"]["endpoint_url"], stream["stream_id"]
    side.client_id, side.token = await side.add_client("the other hub")


async def _introduce_vendor(side: Side, vendor: PeerProcess) -> None:
    body = {
        "name": "mdm",
        "issuer": vendor.urls["issuer"],
        "jwks_uri": vendor.urls["jwks_uri"],
        "audiences": [side.hub.issuer],
    }
    provider = await side.admin("POST", "/providers", body)
    options = {"push_url": provider["events_url"], "audience": side.hub.issuer}
    await side.http.ask("POST", f"{vendor.url}/control/configure", options)


async def _point(sender: Side, receiver: Side) -> None:
    """Make the sender a provider of the receiver, with a push stream to it."""
    secret = f"Bearer {secrets.token_urlsafe(16)}"
    body = {
        "name": "the other hub",
        "issuer": sender.hub.issuer,
        "jwks_uri": f"{sender.hub.issuer}/jwks.json",
        "audiences": [sender.client_id],
        "authorization_header": secret,
    }
    provider = await receiver.admin("POST", "/providers", body)
    delivery = {
        "method": "urn:ietf:rfc:8935",
        "endpoint_url": provider["events_url"],
        "authorization_header": secret,
    }
    stream = await sender.add_stream(sender.token, delivery)
    assert stream["aud"] == sender.client_id


async def _relay(side: Side, **changes: object) -> None:
    body = {"name": "everything", "mode": "enforce", "event_types": [EVENT_TYPE]}
    await side.admin("POST", "/relays", body | changes)


@pytest.mark.requirement("SSF-SEC-6", "SET-15", "PUSH-15")
async def test_what_one_hub_hears_goes_to_the_other_and_not_back(pair: Pair) -> None:
    for side in (pair.first, pair.second):
        await _relay(side)
    await pair.emit(0)
    await pair.until_quiet(signals=1)
    for side in (pair.first, pair.second):
        await side.poll()
    (came,) = await pair.first.every("/signals")
    (passed_on,) = await pair.second.every("/signals")
    assert came["iss"] == pair.vendor.urls["issuer"]
    assert passed_on["iss"] == pair.first.hub.issuer
    assert passed_on["event_type"] == came["event_type"]
    assert passed_on["txn"] != came["txn"]
    assert (len(pair.first.polled), len(pair.second.polled)) == (1, 1)


@pytest.mark.requirement("SSF-SEC-6")
async def test_a_loop_that_nobody_sees_by_its_addresses_stops_after_one_round(pair: Pair) -> None:
    """`to_provider` switches off what would keep an event from going back."""
    for side in (pair.first, pair.second):
        await _relay(side, to_provider=True)
    await pair.emit(0)
    await pair.until_quiet(signals=2)
    for side in (pair.first, pair.second):
        await side.poll()
    states = {one["iss"]: one["state"] for one in await pair.first.every("/signals")}
    assert states == {
        pair.vendor.urls["issuer"]: "assessed",
        pair.second.hub.issuer: "ignored",
    }
    (passed_on,) = await pair.second.every("/signals")
    assert passed_on["state"] == "assessed"
    assert (len(pair.first.polled), len(pair.second.polled)) == (1, 1)
    assert len(await pair.first.every("/relayed")) == 1
    assert len(await pair.second.every("/relayed")) == 1


async def test_a_crash_in_the_middle_loses_and_doubles_nothing(pair: Pair) -> None:
    for side in (pair.first, pair.second):
        await _relay(side, to_provider=True)

    await asyncio.gather(_emit_all(pair), _crash(pair))
    await pair.until_quiet(signals=2 * EVENTS)
    for side in (pair.first, pair.second):
        await side.poll()
    first, second = await pair.first.every("/signals"), await pair.second.every("/signals")
    by_state = Counter((one["iss"], one["state"]) for one in first)
    assert by_state == {
        (pair.vendor.urls["issuer"], "assessed"): EVENTS,
        (pair.second.hub.issuer, "ignored"): EVENTS,
    }
    assert Counter(one["state"] for one in second) == {"assessed": EVENTS}
    assert len({one["txn"] for one in second}) == EVENTS
    # Order per subject held all the way: newest first here.
    statuses = [one["payload"]["current_status"] for one in second]
    assert statuses == ["compliant", "not-compliant"] * (EVENTS // 2)
    for side in (pair.first, pair.second):
        assert (len(side.polled), len(set(side.polled))) == (EVENTS, EVENTS)


async def _emit_all(pair: Pair) -> None:
    for number in range(EVENTS):
        await pair.emit(number, wait_s=120.0)


async def _crash(pair: Pair) -> None:
    """Kill one hub after the other while events go round."""
    for victim, enough in ((pair.first, EVENTS // 4), (pair.second, EVENTS // 2)):

        async def has_enough(enough: int = enough) -> bool:
            return len(await pair.first.every("/signals")) >= enough

        await until("some of it arrived", has_enough)
        await victim.hub.kill()
        await victim.hub.start(pair.http)
