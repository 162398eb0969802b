"""A vendor's transmitter as upstream, with real processes: from the command line to containment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from hub.demo.incident import Incident
from hub.demo.processes import HubProcess, PeerProcess, StepFailed, until
from hub.demo.world import World
from runtime.clock import SystemClock, epoch_s
from tests.hub.commands import Forker, Shell
from tests.scenarios.kit import assert_flawless, enrolled, signals

pytestmark = [pytest.mark.scenario, pytest.mark.anyio]

CAEP = "https://schemas.openid.net/secevent/caep/event-type/"
EVENTS = [CAEP + "device-compliance-change", CAEP + "session-revoked"]
SETS = 60


@dataclass
class Upstream:
    """A vendor that the hub deals with by itself, and how we look at both sides."""

    world: World
    vendor: PeerProcess
    shell: Shell
    document: dict[str, Any] = field(default_factory=dict)
    reported_at: int = field(default_factory=lambda: int(epoch_s(SystemClock().now())) - 60)

    async def cli(self, *arguments: str) -> dict[str, Any]:
        """Run `signalhub upstream …` against the running hub."""
        hub = self.world.hub
        assert isinstance(hub, HubProcess)
        address = ("--url", hub.issuer, "--token", hub.admin_token)
        shown: dict[str, Any] = await asyncio.to_thread(
            self.shell.good, "upstream", *arguments, *address
        )
        return shown

    async def add(self, name: str, **members: str) -> None:
        urls = self.vendor.urls
        fields = {
            "name": name,
            "issuer": urls["issuer"],
            "jwks_uri": urls["jwks_uri"],
            "audiences": self.world.hub.issuer,
            "events_requested": ",".join(EVENTS),
            "auth": "client_secret_basic",
            "client_id": urls["client_id"],
            "secret": urls["client_secret"],
            **members,
        }
        self.document = await self.cli("add", *(f"{key}={text}" for key, text in fields.items()))

    async def show(self) -> dict[str, Any]:
        path = f"/admin/v1/upstreams/{self.document['id']}"
        shown: dict[str, Any] = await self.world.admin("GET", path)
        return shown

    async def order(self, action: str, *fields: str) -> dict[str, Any]:
        """Order something on the command line and wait until it is settled."""
        await self.cli(action, self.document["id"], *fields)
        return await self.settled()

    async def settled(self) -> dict[str, Any]:
        found: dict[str, Any] = {}

        async def is_settled() -> bool:
            found.update(await self.show())
            return found["order"]["state"] in {"done", "failed"}

        await until("the order is settled", is_settled)
        if found["order"]["state"] != "done":
            raise StepFailed(found["order"]["detail"])
        return found

    async def until_verified(self) -> None:
        async def is_verified() -> bool:
            return bool((await self.show())["last_verified_at"])

        await until("the verification has come", is_verified)

    async def emit(self, incident: Incident, shape: str, **members: object) -> str:
        # Of two reports in one second the bad one counts, and the hub is faster than that.
        self.reported_at += 1
        order = {
            "shape": shape,
            "user": incident.user,
            "over_stream": True,
            "wait": False,
            "event_timestamp": self.reported_at,
        }
        answer = await self.world.http.ask(
            "POST", f"{self.vendor.url}/control/emit", {**order, **members}
        )
        return str(answer["jti"])

    async def ledger(self, what: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = await self.world.http.ask(
            "GET", f"{self.vendor.url}/ledger?what={what}"
        )
        return found


@pytest.fixture
async def upstream(world: World, forker: Forker, tmp_path: Path) -> AsyncIterator[Upstream]:
    vendor = await PeerProcess.start(
        "vendor", name="edr", audience=world.hub.issuer, long_poll_s=2, redeliver_after_s=0.5
    )
    variables = {"SIGNALHUB_DEV_INSECURE": "true"}
    made = Upstream(world, vendor, Shell(folder=tmp_path, forker=forker, variables=variables))
    try:
        yield made
    finally:
        if made.document:
            await world.admin("DELETE", f"/admin/v1/upstreams/{made.document['id']}")
        await vendor.stop()


@pytest.mark.requirement(
    "CR-1", "CR-3", "CR-4", "CR-14", "CR-15", "CRC-3", "POLL-1", "SSF-VER-10", "SSF-AUTH-4"
)
async def test_from_the_command_line_to_containment_over_a_polled_stream(
    world: World, upstream: Upstream
) -> None:
    await upstream.add("polled upstream")
    found = await upstream.order("discover")
    assert found["metadata"]["configuration_endpoint"]
    made = await upstream.order("create-stream")
    assert made["stream"]["events_delivered"] == EVENTS
    assert made["endpoint_url"].endswith(f"/events?stream_id={made['stream_id']}")
    await upstream.order("verify")
    await upstream.until_verified()
    assert (await upstream.show())["health"] == "ok"
    await upstream.order("read-stream")
    await upstream.order("update-stream")
    await upstream.order("replace-stream")
    assert (await upstream.order("set-status", "status=paused"))["status"] == "paused"
    assert (await upstream.order("set-status", "status=enabled"))["status"] == "enabled"
    # A token that is worthless is renewed without anybody's help.
    await world.http.ask("POST", f"{upstream.vendor.url}/control/revoke-tokens")

    incident = await enrolled(world, "seen-by-an-upstream")
    await incident.sign_in()
    await upstream.emit(incident, "device-compliance-change", device=incident.person.devices[0])
    await incident.contained()
    await upstream.emit(
        incident, "device-compliance-change", device=incident.person.devices[0], status="compliant"
    )
    await incident.restored()
    await incident.sign_in_again()
    await assert_flawless(world, incident)

    await upstream.order("delete-stream")
    assert [entry["what"] for entry in await upstream.ledger("stream.deleted")] == [
        "stream.deleted"
    ]
    assert await upstream.ledger("management.refused") == [] or all(
        entry["status"] == 401 for entry in await upstream.ledger("management.refused")
    )


@pytest.mark.requirement("CR-13", "CR-10", "CR-12", "INT-12", "SSF-VER-10")
async def test_a_pushed_stream_is_made_and_verified(world: World, upstream: Upstream) -> None:
    await upstream.add("pushed upstream", delivery="push")
    made = await upstream.order("create-stream")
    assert made["stream"]["endpoint_url"] == made["events_url"]
    await upstream.order("verify")
    await upstream.until_verified()
    incident = await enrolled(world, "pushed-by-an-upstream")
    jti = await upstream.emit(incident, "session-revoked")

    async def is_stored() -> bool:
        return len(await signals(world, jti)) == 1

    await until("the SET is stored", is_stored)
    await upstream.order("delete-stream")


@pytest.mark.requirement("CRC-8", "SSF-CFG-3")
async def test_an_upstream_with_the_habits_of_keycloak(world: World, upstream: Upstream) -> None:
    """It makes up an audience per stream, and says only once where to poll.

    The hub polled although the order to create the stream had failed, which used the SETs up: each
    was refused. And every change of the stream was an order that failed.
    """
    await world.http.ask(
        "POST",
        f"{upstream.vendor.url}/control/configure",
        {"audience_per_stream": True, "tells_endpoint_once": True},
    )
    await upstream.add("habits of Keycloak")
    with pytest.raises(StepFailed, match="none of the provider's audiences"):
        await upstream.order("create-stream")
    incident = await enrolled(world, "told-by-keycloak")
    await incident.sign_in()
    jti = await upstream.emit(incident, "session-revoked")

    async def is_held_back() -> bool:
        shown = await upstream.show()
        return shown["health"] == "failing" and "audiences" in (shown["last_error"] or "")

    await until("the stream is held back", is_held_back)
    assert await upstream.ledger("poll.answered") == []
    assert await upstream.ledger("set.refused") == []

    shown = await upstream.show()
    await world.admin(
        "PATCH",
        f"/admin/v1/providers/{shown['provider_id']}",
        {"audiences": shown["stream"]["aud"]},
    )
    await upstream.order("read-stream")

    async def is_stored() -> bool:
        return len(await signals(world, jti)) == 1

    await until("what waited is stored", is_stored)
    for action in ("update-stream", "replace-stream"):
        changed = await upstream.order(action)
        assert changed["endpoint_url"] == shown["endpoint_url"]
    await upstream.order("delete-stream")


@pytest.mark.requirement("SSF-UPD-6")
async def test_a_stream_that_the_vendor_stops_is_told_of(world: World, upstream: Upstream) -> None:
    await upstream.add("stopping upstream")
    await upstream.order("create-stream")
    await world.http.ask(
        "POST", f"{upstream.vendor.url}/control/stream-status", {"status": "disabled"}
    )

    async def was_read_back() -> bool:
        asked = await upstream.ledger("poll.answered")
        return bool(asked) and (await upstream.show())["status"] == "enabled"

    # The vendor says disabled on the stream, and its status endpoint says enabled.
    await until("the status is read back", was_read_back)


@pytest.mark.requirement("POLL-14", "POLL-15", "CRC-11", "SET-61")
async def test_killed_in_between_nothing_is_lost_or_doubled(
    world: World, upstream: Upstream
) -> None:
    await upstream.add("upstream under kills")
    await upstream.order("create-stream")
    incident = await enrolled(world, "polled-under-kills")
    sent = []
    hub = world.hub
    assert isinstance(hub, HubProcess)
    for number in range(SETS):
        sent.append(await upstream.emit(incident, "session-revoked", txn=f"kill-{number}"))
        if number == SETS // 4:
            await hub.kill("delivery")
        if number == SETS // 2:
            await hub.kill("core")
        if number == 3 * SETS // 4:
            await hub.kill()
            await hub.start(world.http)

    async def are_acked() -> bool:
        acked = {entry["request_id"] for entry in await upstream.ledger("set.delivered")}
        return acked >= set(sent)

    await until("the vendor has every SET acknowledged", are_acked)
    assert await upstream.ledger("set.refused") == []
    stored = [len(await signals(world, jti)) for jti in sent]
    assert stored == [1] * SETS


@pytest.mark.requirement("INT-22", "INT-32", "CRC-3", "SSF-META-23", "SSF-VER-10")
async def test_the_hub_can_be_its_own_upstream(world: World, upstream: Upstream) -> None:
    """Our receiver against our transmitter: metadata, tokens, scopes, stream, verification."""
    issuer = world.hub.issuer
    app = await world.admin("POST", "/admin/v1/apps", {"name": "own upstream"})
    client = await world.admin(
        "POST",
        "/admin/v1/clients",
        {"name": "own upstream", "scopes": ["ssf.read", "ssf.manage"], "app_id": app["id"]},
    )
    await upstream.add(
        "own upstream",
        issuer=issuer,
        jwks_uri=f"{issuer}/jwks.json",
        audiences=client["id"],
        client_id=client["id"],
        secret=client["token"],
    )
    made = await upstream.order("create-stream")
    assert made["stream"]["events_delivered"]
    await upstream.order("verify")
    await upstream.until_verified()
    assert (await upstream.show())["health"] == "ok"
    assert (await upstream.order("read-status"))["status"] == "enabled"
    await upstream.order("replace-stream")
    await upstream.order("delete-stream")
