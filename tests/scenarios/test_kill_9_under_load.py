"""While SETs stream in, processes are killed: nothing acknowledged is lost, nothing acts twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.load_soak import measure

pytestmark = [pytest.mark.scenario, pytest.mark.anyio, pytest.mark.long]

#: `make soak` does many more, on both databases
KILLS = 3
SEED = 20_260_304


async def test_every_acknowledged_set_reaches_every_receiver_once_and_in_order(
    tmp_path: Path,
) -> None:
    result = await measure("sqlite", kills=KILLS, seed=SEED, folder=tmp_path, command="test")
    assert not result.findings
    assert result.kills == KILLS
    assert result.sets_acknowledged == result.sets_sent > 0
    assert result.consequences_wanted > 0
    assert set(result.received.values()) == {result.consequences_wanted}
