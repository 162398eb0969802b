"""While SETs stream in, processes are killed: nothing acknowledged is lost, nothing acts twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.kills import VICTIMS, settings_on_postgresql
from benchmarks.load_soak import RECEIVERS, load_soaking, result_of
from benchmarks.machine import machine_facts

pytestmark = [pytest.mark.scenario, pytest.mark.anyio, pytest.mark.long]

#: per database; `make soak` does many more
KILLS = 20
#: the next one often falls while the hub still comes up from the one before
KILL_EVERY_S = 1.5
SEED = 20_260_304


@pytest.mark.parametrize(
    "database",
    [
        pytest.param("sqlite", marks=pytest.mark.xdist_group("load-sqlite")),
        pytest.param("postgresql", marks=pytest.mark.xdist_group("load-postgresql")),
    ],
)
async def test_every_acknowledged_set_reaches_every_receiver_once_and_in_order(
    request: pytest.FixtureRequest, tmp_path: Path, database: str
) -> None:
    """A vendor sends 200 SETs a second; five push and five poll receivers hear of every tenth.

    Meanwhile kill -9 falls 20 times at random moments: four times each on core, delivery, api, the
    supervisor alone, and everything at once. The vendor sends what was not acknowledged again.
    Then the ledgers that vendor and receivers kept themselves are compared:

    - every SET is acknowledged in the end, and each that was acknowledged is in the hub's inbox,
      assessed;
    - each receiver got what every one of them leads to, under one `jti` (which may come again: an
      answer that a kill swallowed was none), and refused nothing;
    - each receiver got what is about one subject in the order it was sent in;
    - nothing is in the dead letters, and no process logged an error.
    """
    environment: dict[str, str] = {}
    if database == "postgresql":
        server: str = request.getfixturevalue("postgresql_server")
        environment = await settings_on_postgresql(server)
    async with load_soaking(tmp_path, environment=environment, seed=SEED) as soak:
        await soak.run(KILLS, kill_every_s=KILL_EVERY_S)
        machine = machine_facts(tmp_path)
        result = await result_of(
            soak, database=database, seed=SEED, machine=machine, command="test"
        )
    assert not result.findings, result
    assert result.kills == KILLS
    assert set(result.kills_by_victim.values()) == {KILLS // len(VICTIMS)}
    assert result.sets_acknowledged == result.sets_sent > 0
    assert result.consequences_wanted > 0
    assert result.received == dict.fromkeys(RECEIVERS, result.consequences_wanted)
