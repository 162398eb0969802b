"""The migrated schema is the declared one, and every step goes both ways."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

import migrations
from hub.migrate import SchemaMismatch, check_schema, downgrade, migrate, newest_revision
from migrations.tables import metadata
from runtime.database import Database
from tests.migration.filling import fill, read_all

VERSIONS = Path(migrations.__file__).parent / "versions"
SCRIPTS = ScriptDirectory(str(VERSIONS.parent))
REVISIONS = sorted(SCRIPTS.walk_revisions(), key=lambda script: script.revision)
#: what a revision may import: nothing of ours, which changes after it was written
ALLOWED_IMPORTS = {"alembic", "sqlalchemy"} | sys.stdlib_module_names

Shape = dict[str, dict[str, Any]]


async def shape_of(database: Database) -> Shape:
    """Return tables with their columns, keys, constraints and indexes, as the database has them."""
    async with database.snapshot() as connection:
        return await connection.run_sync(_inspect)


async def tables_of(database: Database) -> list[str]:
    """Return the names of the tables that the database has."""
    async with database.snapshot() as connection:
        return await connection.run_sync(lambda sync: sa.inspect(sync).get_table_names())


def _inspect(connection: sa.Connection) -> Shape:
    inspector = sa.inspect(connection)
    return {
        table: {
            "columns": [
                (column["name"], str(column["type"]), column["nullable"], column["default"])
                for column in inspector.get_columns(table)
            ],
            "primary key": inspector.get_pk_constraint(table),
            "unique": sorted(inspector.get_unique_constraints(table), key=_name),
            "checks": sorted(inspector.get_check_constraints(table), key=_name),
            "foreign keys": sorted(inspector.get_foreign_keys(table), key=_name),
            "indexes": sorted(map(_plain, inspector.get_indexes(table)), key=_name),
        }
        for table in inspector.get_table_names()
        if table != "alembic_version"
    }


def _plain(index: Any) -> dict[str, Any]:
    """Return an index with the text of its condition, which compares, not its expression."""
    options = {name: str(value) for name, value in index.get("dialect_options", {}).items()}
    return {**index, "dialect_options": options}


def _name(entry: Any) -> str:
    return str(entry["name"])


async def declared_shape(database: Database) -> Shape:
    """Create the declared tables in an empty database and return its shape."""
    async with database.transaction() as connection:
        await connection.run_sync(metadata.create_all)
    shape = await shape_of(database)
    async with database.transaction() as connection:
        await connection.run_sync(metadata.drop_all)
    return shape


async def test_from_empty_to_head_equals_the_declared_tables(empty: Database) -> None:
    declared = await declared_shape(empty)

    await migrate(empty)

    assert await shape_of(empty) == declared
    async with empty.snapshot() as connection:
        assert await connection.run_sync(_differences) == []


def _differences(connection: sa.Connection) -> list[Any]:
    context = MigrationContext.configure(
        connection, opts={"compare_type": True, "compare_server_default": True}
    )
    return list(compare_metadata(context, metadata))


async def test_head_to_base_and_back_leaves_nothing_behind(empty: Database) -> None:
    head = await migrate(empty)
    migrated = await shape_of(empty)

    assert await downgrade(empty, to="base") == "none"
    assert await shape_of(empty) == {}
    assert await migrate(empty) == head
    assert await shape_of(empty) == migrated


async def test_each_step_goes_down_and_up_again_on_filled_tables(empty: Database) -> None:
    await migrate(empty)
    await fill(empty)
    for script in reversed(REVISIONS[1:]):
        before = await read_all(empty)
        assert isinstance(script.down_revision, str)
        await downgrade(empty, to=script.down_revision)
        kept = await tables_of(empty)
        await migrate(empty, to=script.revision)

        after = await read_all(empty)
        # What the step made itself is new, and empty unless it says that it fills it; all that
        # was there before it is as it was.
        filled = set(getattr(script.module, "FILLS", ()))
        assert all(after[table] for table in filled)
        assert {table: count for table, count in after.items() if table not in filled} == {
            table: before[table] if table in kept else 0 for table in after if table not in filled
        }
    await downgrade(empty, to="base")
    await migrate(empty)

    assert set((await read_all(empty)).values()) == {0}


async def test_migrating_again_changes_nothing(empty: Database) -> None:
    first = await migrate(empty)
    await fill(empty)
    before = await read_all(empty)

    assert await migrate(empty) == first
    assert await read_all(empty) == before


async def test_a_migration_that_fails_leaves_nothing_half_done(empty: Database) -> None:
    async with empty.transaction() as connection:
        # The last table that the first revision makes is there already.
        await connection.execute(sa.text("CREATE TABLE webhooks (x integer)"))

    with pytest.raises(sa.exc.DBAPIError):
        await migrate(empty)
    assert (await shape_of(empty)).keys() == {"webhooks"}


async def test_a_database_of_another_release_is_told_apart(empty: Database) -> None:
    with pytest.raises(SchemaMismatch, match=r"at revision none.*run 'signalhub migrate'"):
        await check_schema(empty)
    await migrate(empty)

    await check_schema(empty)


def test_there_is_one_head_and_no_branch() -> None:
    assert len(SCRIPTS.get_heads()) == 1
    assert len(SCRIPTS.get_bases()) == 1
    assert newest_revision() == SCRIPTS.get_current_head()


def test_revision_ids_count_up_and_name_their_files() -> None:
    for number, script in enumerate(REVISIONS, start=1):
        assert script.revision == f"{number:04}"
        assert script.down_revision == (f"{number - 1:04}" if number > 1 else None)
        assert re.fullmatch(rf"{number:04}_[a-z0-9_]+\.py", Path(script.path).name)


@pytest.mark.parametrize("script", REVISIONS, ids=lambda script: script.revision)
def test_a_revision_says_why_and_its_phase(script: Any) -> None:
    assert re.search(r"Phase: (expand|backfill|contract)\.", script.module.__doc__)


@pytest.mark.parametrize("script", REVISIONS, ids=lambda script: script.revision)
def test_a_revision_imports_no_application_code(script: Any) -> None:
    imported = set()
    for node in ast.walk(ast.parse(Path(script.path).read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").partition(".")[0])

    assert imported <= ALLOWED_IMPORTS


async def test_locks_and_statements_have_time_limits_on_postgresql(empty: Database) -> None:
    if empty.dialect == "sqlite":
        return
    async with empty.transaction() as connection:
        await connection.run_sync(_migrate_inside)
        for name in ("lock_timeout", "statement_timeout"):
            assert await connection.scalar(sa.text(f"SHOW {name}")) not in {"0", "30s"}


def _migrate_inside(connection: sa.Connection) -> None:
    from alembic import command  # noqa: PLC0415

    from hub.migrate import _config  # noqa: PLC0415

    command.upgrade(_config(connection), "head")
