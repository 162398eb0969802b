"""The first start: what is made up, once, and kept."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

import runtime.store
from hub import store
from hub.auth import SCOPES, token_hash
from hub.bootstrap import MadeUp, listen, prepare, process_configs, secret_key
from hub.migrate import SchemaMismatch, migrate
from hub.settings import Settings, SettingsError
from runtime.database import Database, serialize
from runtime.keyring import PURPOSES
from tests.hub.commands import LIMIT_S, new_database
from tests.hub.test_audit import assert_chained
from tests.postgresql import until_it_waits

KEY = "k" * 40
TOKEN = "an admin token that somebody chose"


def settings_for(folder: Path, **changes: Any) -> Settings:
    values: dict[str, Any] = {
        "database_url": f"sqlite:///{folder}/hub.db",
        "data_dir": folder / "data",
        "dev_insecure": True,
    }
    return Settings(**(values | changes))


async def test_the_first_start_makes_what_it_says_and_the_second_nothing(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    first, second = MadeUp(), MadeUp()
    key = secret_key(settings, first)
    await prepare(settings, key, first)
    assert secret_key(settings, second) == key
    await prepare(settings, key, second)

    said = "\n".join(first.lines)
    assert [line.partition(":")[0] for line in first.lines] == [
        "secret key",
        "signing keys",
        "admin token (shown once)",
    ]
    assert first.admin_token
    assert first.admin_token in said
    assert key not in said
    assert second.lines == []
    database = Database.connect(settings.database_url)
    async with database.snapshot() as connection:
        (tenant,) = await store.system_list_tenants(connection)
        keys = await runtime.store.list_keys(connection, "default")
        (admin,) = await store.list_clients(connection, "default")
        audit = await store.list_audit(connection, "default", before=None, limit=10)
    await database.close()
    assert (tenant.tenant_id, tenant.status) == ("default", "active")
    assert {key.purpose for key in keys} == set(PURPOSES)
    assert all(key.kid in said for key in keys)
    assert admin.token_hash == token_hash(first.admin_token)
    assert set(admin.scopes) == SCOPES
    assert_chained(audit[::-1])
    assert [(entry.actor, entry.action, entry.ref) for entry in audit] == [
        ("bootstrap", "client.create", admin.client_id)
    ]


def test_the_secret_key_is_for_this_user_only(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    key = secret_key(settings, MadeUp())
    file = settings.data_dir / "secret.key"

    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(settings.data_dir.stat().st_mode) == 0o700
    assert file.read_text() == key
    assert len(key) >= 32
    assert [each.name for each in settings.data_dir.iterdir()] == ["secret.key"]


def test_a_given_secret_key_is_not_written(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, secret_key=SecretStr(KEY))

    assert secret_key(settings, MadeUp()) == KEY
    assert not settings.data_dir.exists()


@pytest.mark.parametrize("content", ["", "short\n"])
def test_a_secret_key_file_without_a_key_is_not_used(tmp_path: Path, content: str) -> None:
    settings = settings_for(tmp_path)
    settings.data_dir.mkdir()
    (settings.data_dir / "secret.key").write_text(content)

    with pytest.raises(SettingsError, match="holds no key"):
        secret_key(settings, MadeUp())


def test_a_data_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file, not a folder")

    with pytest.raises(SettingsError, match="SIGNALHUB_DATA_DIR"):
        secret_key(settings_for(tmp_path), MadeUp())


async def test_the_admin_token_may_be_given_and_changed(tmp_path: Path) -> None:
    made_up = MadeUp()
    for token in (TOKEN, TOKEN, "another " + TOKEN):
        settings = settings_for(tmp_path, admin_token=SecretStr(token))
        await prepare(settings, KEY, made_up)
    await prepare(settings_for(tmp_path), KEY, made_up)

    assert made_up.admin_token is None
    assert TOKEN not in str(made_up.lines)
    database = Database.connect(settings_for(tmp_path).database_url)
    async with database.snapshot() as connection:
        (admin,) = await store.list_clients(connection, "default")
    await database.close()
    assert admin.token_hash == token_hash("another " + TOKEN)


@pytest.fixture
def new_postgresql(postgresql_server: str) -> Iterator[str]:
    """Yield the URL of a database without tables."""
    with new_database(postgresql_server) as url:
        yield url


async def test_of_two_nodes_that_start_at_once_one_makes_the_admin(
    new_postgresql: str, tmp_path: Path
) -> None:
    """Regression: the other one ended, because there was an admin already."""
    given = {"admin_token": SecretStr(TOKEN), "secret_key": SecretStr(KEY)}
    settings = settings_for(tmp_path, database_url=new_postgresql, **given)
    database = Database.connect(new_postgresql)
    await migrate(database)
    await prepare(settings, KEY, MadeUp())
    async with database.transaction() as connection:
        (admin,) = await store.list_clients(connection, "default")
        await store.delete_client(connection, "default", admin.client_id)
    async with asyncio.timeout(LIMIT_S):
        async with database.transaction() as connection:
            # As the other node does.
            await serialize(connection, "audit", "default")
            await store.add_client(connection, admin)
            starting = asyncio.create_task(prepare(settings, KEY, MadeUp()))
            await until_it_waits(database, starting)
        await starting
    async with database.snapshot() as connection:
        assert await store.list_clients(connection, "default") == [admin]
    await database.close()


async def test_postgresql_is_not_migrated_by_a_start(
    postgresql_server: str, tmp_path: Path
) -> None:
    settings = settings_for(tmp_path, database_url=postgresql_server, secret_key=SecretStr(KEY))

    with pytest.raises(SchemaMismatch, match="run 'signalhub migrate'"):
        await prepare(settings, KEY, MadeUp())


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:hush-hush@127.0.0.1:1/x",
        "mysql://u:hush-hush@127.0.0.1/x",
        "hush-hush",
        "sqlite:////nowhere/at/all/hush-hush.db",
    ],
)
async def test_a_database_out_of_reach_is_told_without_its_password(
    tmp_path: Path, url: str
) -> None:
    settings = settings_for(tmp_path, database_url=url, secret_key=SecretStr(KEY))

    with pytest.raises(SettingsError, match="SIGNALHUB_DATABASE_URL") as caught:
        await prepare(settings, KEY, MadeUp())
    assert "hush" not in str(caught.value)


def test_a_port_in_use_is_told(tmp_path: Path) -> None:
    taken = listen(settings_for(tmp_path, port=0))
    port = taken.getsockname()[1]

    with pytest.raises(SettingsError, match="cannot listen on 127"):
        listen(settings_for(tmp_path, port=port))
    taken.close()


def configs(settings: Settings) -> list[tuple[str, int]]:
    made = process_configs(
        settings, key=KEY, issuer="https://hub.example", run_dir=Path("/run/x"), listen_fd=7
    )
    assert {config.listen_fd for config in made if config.role == "api"} <= {7}
    assert {config.listen_fd for config in made if config.role != "api"} <= {None}
    return [(config.role, config.index) for config in made]


def test_one_command_runs_all_kinds_of_process(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, workers=2, delivery_workers=2)

    assert configs(settings) == [
        ("core", 0),
        ("delivery", 0),
        ("delivery", 1),
        ("api", 0),
        ("api", 1),
    ]


def test_roles_split_on_postgresql_only(tmp_path: Path) -> None:
    shared = {"database_url": "postgresql://x/y", "secret_key": SecretStr(KEY)}

    assert configs(settings_for(tmp_path, role="api", **shared)) == [("api", 0)]
    assert configs(settings_for(tmp_path, role="worker", **shared)) == [
        ("core", 0),
        ("delivery", 0),
    ]
    for role in ("api", "worker"):
        with pytest.raises(SettingsError, match="need PostgreSQL"):
            configs(settings_for(tmp_path, role=role))
