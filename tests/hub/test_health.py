"""What operators ask: alive, ready, how it fares."""

from __future__ import annotations

from pathlib import Path

from tests.hub.conftest import ONE_ENGINE, Hub

pytestmark = ONE_ENGINE


async def test_health_is_public_and_says_nothing_else(hub: Hub) -> None:
    async with hub.client() as client:
        answer = await client.get("/healthz")

    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    assert answer.headers["cache-control"] == "no-store"


async def test_readiness_tells_its_reasons_only_to_admins(hub: Hub) -> None:
    async with hub.client() as client:
        assert (await client.get("/readyz")).json() == {"status": "ready"}
    async with hub.client(await hub.token("ssf.read")) as client:
        assert (await client.get("/readyz")).json() == {"status": "ready"}
    async with hub.client(await hub.token("admin.read")) as client:
        assert (await client.get("/readyz")).json() == {
            "status": "ready",
            "checks": {"database": True, "core": True},
        }


async def test_without_its_database_the_hub_is_alive_and_not_ready(hub: Hub) -> None:
    token = await hub.token("admin.read")
    async with hub.client() as probe, hub.client(token) as client:
        # The second time the token is known from memory.
        for _ in range(2):
            assert (await client.get("/readyz")).status_code == 200
        await lose_database(hub)

        assert (await probe.get("/healthz")).status_code == 200
        ready = await client.get("/readyz")
        read = await client.get("/admin/v1/users")

    assert ready.status_code == 503
    assert ready.json()["checks"] == {"database": False, "core": True}
    assert read.status_code == 503
    assert int(read.headers["retry-after"]) > 0
    assert "sqlite" not in read.text


async def test_metrics_need_an_admins_token(hub: Hub) -> None:
    async with hub.client() as client:
        assert (await client.get("/metrics")).status_code == 401
    async with hub.client(await hub.token("risk.read")) as client:
        assert (await client.get("/metrics")).status_code == 403
    async with hub.client(await hub.token("admin.read")) as client:
        answer = await client.get("/metrics")

    assert answer.headers["content-type"].startswith("text/plain")
    for name in ("hub_receivers_sets_total", "hub_runtime_commit_seconds"):
        assert f"# HELP {name}" in answer.text


async def lose_database(hub: Hub) -> None:
    """Take the file from under the hub: what opens it from now on finds a folder."""
    await hub.database.close()
    _replace_by_folder(Path(hub.node.config.database_url.removeprefix("sqlite:///")))


def _replace_by_folder(file: Path) -> None:
    for each in file.parent.glob(f"{file.name}*"):
        each.unlink()
    file.mkdir()
