"""What the hot queries cost: every row is found through an index, whatever the tenant holds."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from risk.entities import store as entities_store
from risk.findings import store as findings_store
from risk.levels import store as levels_store
from tests.risk.kit import TENANT, World

IDS = ["usr_1", "usr_2"]


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        pytest.param(
            entities_store._LINKS_AROUND, "ix_links_user_id (tenant_id=? AND user_id=?)", id="links"
        ),
        pytest.param(
            findings_store._ACTIVE["sqlite"],
            "ix_detections_active (tenant_id=? AND entity_id=?)",
            id="active detections",
        ),
        pytest.param(
            findings_store._SUSPECTS["sqlite"],
            "ix_detections_active (tenant_id=? AND entity_id=?)",
            id="suspects",
        ),
        pytest.param(
            levels_store._READ_PEOPLE, "entities_1 (tenant_id=? AND entity_id=?)", id="people"
        ),
    ],
)
async def test_a_hot_query_looks_rows_up(world: World, statement: Any, expected: str) -> None:
    if world.database.dialect != "sqlite":
        # PostgreSQL plans by what it has counted, and an empty table it reads whole.
        return
    bound = statement.params(tenant_id=TENANT, ids=IDS, device_ids=["dev_1"])
    text = bound.compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True})
    async with world.database.snapshot() as connection:
        rows = await connection.execute(sa.text(f"EXPLAIN QUERY PLAN {text}"))
        plan = [row[3] for row in rows]
    assert any(expected in line for line in plan), plan
    assert not any(line.startswith("SCAN ") for line in plan if "SUBQUERY" not in line), plan
