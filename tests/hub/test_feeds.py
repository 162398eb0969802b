"""Feeds from the command line and over HTTP, and what a served hub then says of an address."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any
from urllib.request import Request, urlopen

import pytest

from hub.demo.day import FEED
from risk.networks.service import FOLDER, Networks
from runtime.clock import SystemClock
from tests.hub.commands import LIMIT_S, Shell, served
from tests.hub.conftest import ONE_ENGINE, Hub
from tests.risk.networks import feeds

TOR = {
    "name": "tor",
    "file": "tor.txt",
    "format": "prefixes",
    "categories": ["ANONYMIZER_TOR"],
}

#: RFC 5737, RFC 3849; AS numbers: RFC 5398
DOCUMENTATION = [
    ip_network(each)
    for each in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")
]


@ONE_ENGINE
async def test_feeds_belong_to_the_hub_and_to_no_tenant_else(hub: Hub) -> None:
    await hub.add_tenant("green")
    green_token = await hub.token("admin.read", "admin.write", tenant="green")
    async with hub.client(green_token, tenant="green") as green:
        assert (await green.get("/admin/v1/feeds")).status_code == 404
        assert (await green.post("/admin/v1/feeds", json=TOR)).status_code == 404
        assert (await green.post("/admin/v1/feeds:compile", json={})).status_code == 404
    async with hub.client(await hub.token("risk.read")) as reader:
        assert (await reader.get("/admin/v1/feeds")).status_code == 403


async def test_feeds_are_made_changed_and_deleted(hub: Hub) -> None:
    async with hub.client(await hub.token("admin.read", "admin.write")) as admin:
        made = (await admin.post("/admin/v1/feeds", json=TOR)).json()
        path = f"/admin/v1/feeds/{made['id']}"
        assert (made["outcome"], made["prefixes"]) == (None, 0)
        assert (await admin.post("/admin/v1/feeds", json=TOR)).status_code == 409
        changed = await admin.patch(path, json={"position": 5, "categories": ["A_VPN"]})
        assert (changed.json()["position"], changed.json()["categories"]) == (5, ["A_VPN"])
        replaced = await admin.put(path, json={**TOR, "stale": "drop"})
        assert (replaced.json()["stale"], replaced.json()["position"]) == ("drop", 100)
        outside = await admin.patch(path, json={"file": "../../etc/passwd"})
        assert outside.status_code == 400
        assert outside.json()["errors"][0]["pointer"] == "/file"
        # A process without a data folder has nothing to compile.
        assert (await admin.post("/admin/v1/feeds:compile", json={})).status_code == 409
        for number in range(15):
            body = {**TOR, "name": f"more-{number}"}
            assert (await admin.post("/admin/v1/feeds", json=body)).status_code == 201
        assert (await admin.post("/admin/v1/feeds", json={**TOR, "name": "x"})).status_code == 409
        assert (await admin.delete(path)).status_code == 204
        assert (await admin.get(path)).status_code == 404


@pytest.mark.usefixtures("used_folder")
def test_a_file_is_imported_and_a_broken_one_is_refused(shell: Shell) -> None:
    made = shell.good("feed", "add", *_words())
    file = feeds.write_text(shell.folder / "download", feeds.TOR)
    report = shell.good("feed", "import", made["id"], str(file))
    assert (report["prefixes"], report["feeds"][0]["outcome"]) == (2, "accepted")
    file.write_text("<html>Too many requests</html>\n")
    refused = shell.run("feed", "import", made["id"], str(file))
    assert refused.code == 2
    assert "unreadable" in refused.err
    shown = shell.good("feed", "show", made["id"])
    assert (shown["outcome"], shown["prefixes"]) == ("refused", 2)
    missing = shell.run("feed", "import", made["id"], str(shell.folder / "nowhere"))
    assert missing.code == 2
    assert "No such file" in missing.err


def test_the_file_that_is_shipped_is_of_documentation_networks_and_does_what_its_guide_says(
    shell: Shell,
) -> None:
    words = ["name=examples", "file=networks.csv", "format=csv"]
    made = shell.good("feed", "add", *words)
    report = shell.good("feed", "import", made["id"], str(FEED))
    lines = FEED.read_text().splitlines()[1:]
    assert report["feeds"][0]["outcome"] == "accepted"
    assert report["prefixes"] >= len(lines)
    for line in lines:
        network, asn = ip_network(line.split(",")[0]), int(line.split(",")[3])
        assert any(_is_within(network, kept) for kept in DOCUMENTATION), line
        assert 64496 <= asn <= 64511, line
    licence = FEED.with_name(f"{FEED.name}.license").read_text()
    assert "SPDX-License-Identifier: CC0-1.0" in licence

    networks = Networks(shell.folder / "signalhub-data" / FOLDER, SystemClock())
    asyncio.run(networks.refresh())
    record = networks.lookup("203.0.113.200")
    assert (record.asn, record.city, record.known) == (64504, "Berlin", True)
    assert {"VPN", "ALL_PROXIES_VPNS"} <= record.categories
    assert "HOSTING" in networks.lookup("203.0.113.230").categories
    assert networks.lookup("198.18.0.1").known is False


def _is_within(network: IPv4Network | IPv6Network, kept: IPv4Network | IPv6Network) -> bool:
    if isinstance(network, IPv4Network):
        return isinstance(kept, IPv4Network) and network.subnet_of(kept)
    return isinstance(kept, IPv6Network) and network.subnet_of(kept)


@pytest.mark.scenario
def test_row_44_a_served_hub_takes_a_new_file_up_by_itself(shell: Shell) -> None:
    """The operator's download job only writes the file; nobody restarts or calls anything."""
    with served(shell) as hub:
        folder = shell.folder / "signalhub-data" / "networks" / "feeds"
        folder.mkdir(parents=True, exist_ok=True)
        feeds.write_text(folder / "tor.txt", feeds.TOR)
        shell.good("feed", "add", *_words())
        # Written by another process: it is told at once, and looks at the file.
        found = _until_known(hub.issuer, hub.token, "203.0.113.8")
        assert "ANONYMIZER_TOR" in found["network"]["categories"]
        assert found["sources"][0]["source"] == "tor"
        assert found["zones"] == []
        shell.good("zone", "activate", "zon_default_enhanced")
        blocked = _until(hub.issuer, hub.token, "203.0.113.8", lambda it: it["blocked_by"])
        assert blocked["blocked_by"] == "zon_default_enhanced"
        assert blocked["path"][0] == "client: 203.0.113.8"
        why = blocked["zones"][0]["why"]
        assert why == ["include ipServiceCategories: it is ALL_ANONYMIZERS"]


def _words() -> list[str]:
    return ["name=tor", "file=tor.txt", "format=prefixes", "categories=ANONYMIZER_TOR"]


def _until_known(issuer: str, token: str, ip: str) -> Any:
    return _until(issuer, token, ip, lambda it: it["network"]["known"])


def _until(issuer: str, token: str, ip: str, holds: Callable[[Any], object]) -> Any:
    limit = time.monotonic() + LIMIT_S
    while True:
        request = Request(f"{issuer}/v1/ip/{ip}", headers={"authorization": f"Bearer {token}"})  # noqa: S310 - loopback
        with urlopen(request, timeout=LIMIT_S) as answer:  # noqa: S310 - loopback
            found = json.load(answer)
        if holds(found):
            return found
        assert time.monotonic() < limit, found
