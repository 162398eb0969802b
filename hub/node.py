"""What every process of the hub stands on: database, writer, wake-ups, keys, clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from hub.tls import CertificateFiles
from risk.networks.service import FOLDER, Networks
from runtime.changes import ChangeFeed
from runtime.clock import Clock, system_clock
from runtime.crowd import Crowd
from runtime.database import Database
from runtime.egress import EgressRules
from runtime.feed import ConfigFeed
from runtime.ipc import CoreClient, CoreServer
from runtime.keyring import Keyring
from runtime.notify import Notifier
from runtime.pgnotify import PostgreSQLBridge
from runtime.secrets import SecretBox
from runtime.writer import LocalWriter, Operation, Writer, index_operations

CORE_WAIT_S: Final = 10.0
#: a test's or a command's process does everything
NETWORKS_ROLES: Final = frozenset({"api", "all", "cli"})


class ProcessConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What the supervisor tells a process that it forks; it lies in no file.

    crowd: what the processes of a node share.
    """

    role: str
    index: int
    node: str
    issuer: str
    database_url: str
    core_socket: str | None
    secret_key: str
    dev_insecure: bool
    egress_allow: tuple[str, ...]
    extra_ca: str | None
    log_level: str
    subject_removal_grace_s: float = 24 * 3600.0
    stream_sets_max: int = 1_000_000
    stream_age_max_s: float = 14 * 24 * 3600.0
    delivery_retention_s: float = 30 * 24 * 3600.0
    inactivity_timeout_s: int | None = None
    listen_fd: int | None = None
    tls: CertificateFiles | None = None
    client_requests_per_s: float = 1_000.0
    trusted_proxies: tuple[str, ...] = ()
    client_cert_header: str | None = None
    data_dir: str | None = None
    scorer: str = "rules"
    evaluate_deadline_ms: float = 20.0
    crowd: Crowd = msgspec.field(default_factory=Crowd)

    @property
    def name(self) -> str:
        """Name of the process, stable over restarts: leases are held under it."""
        return f"{self.node}/{self.role}-{self.index}"

    @property
    def with_certificates(self) -> bool:
        """Whether clients can prove themselves by a certificate."""
        own = self.tls is not None and self.tls.client_authority is not None
        return own or self.client_cert_header is not None

    @property
    def networks_dir(self) -> Path | None:
        """Where feeds and the table of addresses lie; None for a process that has no files."""
        return Path(self.data_dir) / FOLDER if self.data_dir else None

    def egress_rules(self) -> EgressRules:
        """Return who may be called from here."""
        return EgressRules(
            dev_insecure=self.dev_insecure, allow=self.egress_allow, extra_ca=self.extra_ca
        )


#: starts a loop of the process; it is cancelled when the node closes
Spawn = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """The resources of one process. stopping: set when it has begun to end."""

    config: ProcessConfig
    clock: Clock
    database: Database
    notifier: Notifier
    feed: ConfigFeed
    changes: ChangeFeed
    box: SecretBox
    keyring: Keyring
    writer: Writer
    spawn: Spawn
    stopping: asyncio.Event
    networks: Networks


@asynccontextmanager
async def open_node(
    config: ProcessConfig, operations: tuple[Operation[Any, Any], ...] = ()
) -> AsyncIterator[Node]:
    """Open the resources of a process; its loops run until the block is left.

    operations: what this process executes itself; the processes that only send leave it empty.
    """
    database = Database.connect(config.database_url, owns_writes=config.role == "core")
    notifier = Notifier()
    feed = ConfigFeed(database, notifier)
    changes = ChangeFeed(database, notifier)
    box = SecretBox(config.secret_key)
    try:
        async with asyncio.TaskGroup() as group:
            tasks: list[asyncio.Task[None]] = []

            def spawn(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
                task = group.create_task(work)
                tasks.append(task)
                return task

            await feed.refresh()
            spawn(feed.run())
            spawn(changes.run())
            spawn(changes.renew())
            clock = system_clock(dev_insecure=config.dev_insecure)
            networks = await _open_networks(config, clock, notifier, spawn)
            writer = await _open_writer(config, database, notifier, operations, spawn)
            yield Node(
                config=config,
                clock=clock,
                database=database,
                notifier=notifier,
                feed=feed,
                changes=changes,
                box=box,
                keyring=Keyring(database, feed, box),
                writer=writer,
                spawn=spawn,
                stopping=asyncio.Event(),
                networks=networks,
            )
            for task in reversed(tasks):
                task.cancel()
    finally:
        await database.close()


async def reach_core(node: Node, stop: asyncio.Event) -> None:
    """Wait until core takes hot writes, a while at most; not at all when the process is to end."""
    if not isinstance(node.writer, CoreClient):
        return
    reached = asyncio.create_task(node.writer.connected(CORE_WAIT_S))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((reached, stopping), return_when=asyncio.FIRST_COMPLETED)
    finally:
        reached.cancel()
        stopping.cancel()


async def _open_networks(
    config: ProcessConfig, clock: Clock, notifier: Notifier, spawn: Spawn
) -> Networks:
    """Return what is known of addresses; only processes that decide about requests hold it."""
    networks = Networks(config.networks_dir if config.role in NETWORKS_ROLES else None, clock)
    await networks.refresh()
    spawn(networks.follow(notifier))
    return networks


async def _open_writer(
    config: ProcessConfig,
    database: Database,
    notifier: Notifier,
    operations: tuple[Operation[Any, Any], ...],
    spawn: Spawn,
) -> Writer:
    """Return where hot writes go: on SQLite the core process, else this process itself."""
    if database.dialect == "postgresql":
        spawn(PostgreSQLBridge(config.database_url, notifier).run())
    if config.core_socket is not None and config.role != "core":
        client = CoreClient(Path(config.core_socket), notifier)
        spawn(client.run())
        return client
    writer = LocalWriter(database, notifier, crowd=config.crowd)
    spawn(writer.run())
    if config.core_socket is not None:
        server = CoreServer(writer, notifier, index_operations(operations))
        await server.serve(Path(config.core_socket))
    return writer
