"""Whatever of the hub is killed, whenever: every logout happens, and no effect happens twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.kills import VICTIMS, settings_on_postgresql, soaking

pytestmark = [pytest.mark.scenario, pytest.mark.anyio, pytest.mark.long]

#: per database; `make soak` does many more
KILLS = 10
SEED = 20_260_228


@pytest.mark.parametrize(
    "database",
    [
        pytest.param("sqlite", marks=pytest.mark.xdist_group("kills-sqlite")),
        pytest.param("postgresql", marks=pytest.mark.xdist_group("kills-postgresql")),
    ],
)
async def test_incidents_complete_and_nothing_happens_twice(
    request: pytest.FixtureRequest, tmp_path: Path, database: str
) -> None:
    environment: dict[str, str] = {}
    if database == "postgresql":
        server: str = request.getfixturevalue("postgresql_server")
        environment = await settings_on_postgresql(server)
    async with soaking(tmp_path, environment=environment, seed=SEED, at_once=2) as soak:
        await soak.run(KILLS)
    assert not soak.faults, (soak.faults, soak.kills)
    assert not soak.troubles
    assert soak.completed == soak.played
    assert len(soak.kills) == KILLS
    assert {kill.victim for kill in soak.kills} == set(VICTIMS)
