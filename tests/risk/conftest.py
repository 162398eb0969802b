"""A tenant to assess signals in, on both databases."""

from __future__ import annotations

import pytest

from runtime.database import Database
from tests.risk.kit import World


@pytest.fixture
async def world(database: Database) -> World:
    """Yield an empty tenant whose policy enforces the standard rules."""
    made = World(database=database)
    await made.enforce()
    return made
