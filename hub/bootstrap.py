"""What has to exist before the first request: folder, secret key, schema, tenant, keys, admin.

Everything made up on the way is listed, so that `signalhub serve` can print it once.
"""

from __future__ import annotations

import os
import secrets
import socket
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from hub import store
from hub.auth import ADMIN_CLIENT, SCOPES, TOKEN_PREFIX, token_hash
from hub.migrate import check_schema, migrate, open_database
from hub.node import ProcessConfig
from hub.settings import SECRET_KEY_CHARACTERS_MIN, Settings, SettingsError
from hub.store import Client
from hub.tenancy import DEFAULT_TENANT
from runtime import ids
from runtime.audit import AuditNote
from runtime.clock import system_clock
from runtime.crowd import Crowd
from runtime.database import Database, serialize
from runtime.feed import bump
from runtime.keyring import make_keys
from runtime.secrets import SecretBox

SECRET_KEY_FILE: Final = "secret.key"  # noqa: S105 - a file name


@dataclass(slots=True, kw_only=True)
class MadeUp:
    """What this start made up, in words for the operator."""

    lines: list[str] = field(default_factory=list)
    admin_token: str | None = None

    def say(self, name: str, value: str) -> None:
        """Note one thing that was made up."""
        self.lines.append(f"{name}: {value}")


def secret_key(settings: Settings, made_up: MadeUp) -> str:
    """Return the key that seals secrets; made and kept in the data folder when unset."""
    if settings.secret_key is not None:
        return settings.secret_key.get_secret_value()
    file = settings.data_dir / SECRET_KEY_FILE
    try:
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not file.exists():
            _write_once(file, secrets.token_urlsafe(48))
            made_up.say("secret key", f"kept in {file}; back it up, sealed secrets need it")
        key = file.read_text().strip()
    except OSError as error:
        raise SettingsError(
            f"SIGNALHUB_DATA_DIR: {settings.data_dir} is not usable ({error.strerror}); "
            "set it to a folder this user may write, or set SIGNALHUB_SECRET_KEY"
        ) from error
    if len(key) < SECRET_KEY_CHARACTERS_MIN:
        raise SettingsError(
            f"{file} holds no key of at least {SECRET_KEY_CHARACTERS_MIN} characters: put the one "
            "from your backup there; sealed secrets do not open with another"
        )
    return key


def _write_once(file: Path, text: str) -> None:
    """Write a private file that is either whole or absent; one that appeared meanwhile stays."""
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}-")
    try:
        with os.fdopen(descriptor, "w") as handle:
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
        with suppress(FileExistsError):
            os.link(name, file)
    finally:
        Path(name).unlink()


async def prepare(
    settings: Settings, key: str, made_up: MadeUp, *, serves: str | None = None
) -> str:
    """Make the database ready: schema, tenant `default`, signing keys, a first admin.

    serves: the issuer that this hub begins to serve, which is remembered. Returns the hub's issuer:
    the one of the settings, else the one it was served as last.
    """
    async with open_database(settings.database_url) as database:
        if settings.embedded:
            await migrate(database)
        else:
            await check_schema(database)
        clock = system_clock(dev_insecure=settings.dev_insecure)
        async with database.transaction() as connection:
            if await store.ensure_tenant(
                connection, DEFAULT_TENANT, name="Default", now=clock.now()
            ):
                await bump(connection, "*", "tenants")
            issuer = await _issuer(connection, settings, serves)
        kids = await make_keys(database, SecretBox(key), clock, DEFAULT_TENANT)
        if kids:
            made_up.say("signing keys", ", ".join(kids))
        await _ensure_admin(settings, database, made_up)
    return issuer


async def _issuer(connection: AsyncConnection, settings: Settings, serves: str | None) -> str:
    tenant = await store.get_tenant(connection, DEFAULT_TENANT)
    remembered = tenant.served_issuer if tenant else None
    if serves is not None and serves != remembered:
        await store.change_tenant(connection, DEFAULT_TENANT, {"served_issuer": serves})
        remembered = serves
    return settings.issuer or remembered or settings.issuer_at(settings.port)


async def _ensure_admin(settings: Settings, database: Database, made_up: MadeUp) -> None:
    given = settings.admin_token.get_secret_value() if settings.admin_token else None
    now = system_clock(dev_insecure=settings.dev_insecure).now()
    async with database.transaction() as connection:
        # Of two nodes that start at once one makes the admin, and the other one sees it.
        await serialize(connection, "audit", DEFAULT_TENANT)
        clients = await store.list_clients(connection, DEFAULT_TENANT)
        admins = [client for client in clients if "admin.write" in client.scopes]
        if given is None and admins:
            return
        token = given or ids.new_token(TOKEN_PREFIX)
        if any(client.token_hash == token_hash(token) for client in clients):
            return
        bootstrap = [client for client in clients if client.name == ADMIN_CLIENT]
        for client in bootstrap:
            await store.delete_client(connection, DEFAULT_TENANT, client.client_id)
        client = Client(
            tenant_id=DEFAULT_TENANT,
            client_id=ids.new_id("cli"),
            name=ADMIN_CLIENT,
            token_hash=token_hash(token),
            scopes=tuple(sorted(SCOPES)),
            app_id=None,
            created_at=now,
        )
        await store.add_client(connection, client)
        await store.add_audit(connection, _note_of(client), now=now)
        await bump(connection, DEFAULT_TENANT, "clients")
    if given is None:
        made_up.admin_token = token
        made_up.say("admin token (shown once)", token)


def _note_of(client: Client) -> AuditNote:
    return AuditNote(
        tenant_id=client.tenant_id,
        actor="bootstrap",
        action="client.create",
        ref=client.client_id,
        detail={"name": client.name, "scopes": list(client.scopes)},
    )


def listen(settings: Settings) -> socket.socket:
    """Return a listening socket at the configured address. Raises SettingsError."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host, settings.port))
        listening.listen(2048)
    except OSError as error:
        listening.close()
        raise SettingsError(
            f"SIGNALHUB_HOST/SIGNALHUB_PORT: cannot listen on {settings.host}:{settings.port} "
            f"({error.strerror}); stop what listens there or choose another port"
        ) from error
    return listening


def check_certificate(settings: Settings) -> None:
    """Find out now, not at the first connection. Raises SettingsError."""
    if settings.tls is None:
        return
    try:
        settings.tls.context()
    except OSError as error:
        raise SettingsError(
            f"SIGNALHUB_TLS_CERT/SIGNALHUB_TLS_KEY: not usable ({error.strerror or error}); both "
            "are PEM files, and the key belongs to the first certificate"
        ) from error


def process_configs(
    settings: Settings, *, key: str, issuer: str, run_dir: Path, listen_fd: int | None
) -> list[ProcessConfig]:
    """Return the processes that this command runs (contracts §1)."""
    if settings.role != "all" and settings.embedded:
        raise SettingsError(
            "SIGNALHUB_ROLE: api and worker need PostgreSQL; SQLite runs everything in one hub"
        )
    counts = {"core": 1, "delivery": settings.delivery_workers, "api": settings.workers}
    if settings.role == "api":
        counts = {"api": settings.workers}
    elif settings.role == "worker":
        counts.pop("api")
    socket_path = str(run_dir / "core.sock") if settings.embedded else None
    crowd = Crowd()
    return [
        ProcessConfig(
            role=role,
            index=index,
            node=settings.node or f"{socket.gethostname()}:{settings.port}",
            issuer=issuer,
            database_url=settings.database_url,
            core_socket=socket_path,
            secret_key=key,
            dev_insecure=settings.dev_insecure,
            egress_allow=settings.egress_allow,
            extra_ca=str(settings.extra_ca) if settings.extra_ca else None,
            subject_removal_grace_s=settings.subject_removal_grace_s,
            stream_sets_max=settings.stream_sets_max,
            stream_age_max_s=settings.stream_age_max_s,
            delivery_retention_s=settings.delivery_retention_s,
            inactivity_timeout_s=settings.inactivity_timeout_s,
            log_level=settings.log_level,
            listen_fd=listen_fd if role == "api" else None,
            tls=settings.tls if role == "api" else None,
            client_requests_per_s=settings.client_requests_per_s,
            trusted_proxies=settings.trusted_proxies,
            client_cert_header=settings.client_cert_header,
            data_dir=str(settings.data_dir),
            scorer=settings.scorer,
            evaluate_deadline_ms=settings.evaluate_deadline_ms,
            crowd=crowd,
        )
        for role, count in counts.items()
        for index in range(count)
    ]
