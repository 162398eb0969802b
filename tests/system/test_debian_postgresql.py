"""The whole story on the PostgreSQL that Debian ships, which is older than the one from a wheel."""

from __future__ import annotations

from pathlib import Path

import pytest

from hub.demo.story import Moment, Story
from hub.demo.world import World


@pytest.mark.scenario
async def test_the_story_holds_on_debians_postgresql(
    debian_postgresql: str, tmp_path: Path
) -> None:
    world = World(
        tmp_path,
        environment={
            "SIGNALHUB_DATABASE_URL": debian_postgresql,
            "SIGNALHUB_SECRET_KEY": "a-key-for-one-test-run-0123456789abcdef",
        },
    )
    told: list[Moment] = []
    try:
        await world.start()
        await Story(world, told.append).play()
    finally:
        await world.stop()
    assert told[-1].what == "closes the containment"
