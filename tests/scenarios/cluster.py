"""Two nodes of the hub on one database, behind one address."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from hub.demo.processes import Http, HubProcess

CHUNK_BYTES: Final = 65_536


class Balancer:
    """Passes each connection to the next node that takes it, as a load balancer would."""

    def __init__(self) -> None:
        self.ports: Sequence[int] = ()
        self._server: asyncio.Server | None = None
        self._turn = itertools.count()

    async def start(self) -> str:
        """Listen; return the address that people know."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        """Close the address."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            node = await self._connect()
            if node is not None:
                async with asyncio.TaskGroup() as group:
                    group.create_task(_pass_on(reader, node[1]))
                    group.create_task(_pass_on(node[0], writer))
        finally:
            writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        turn = next(self._turn)
        for place in range(len(self.ports)):
            port = self.ports[(turn + place) % len(self.ports)]
            with contextlib.suppress(OSError):
                return await asyncio.open_connection("127.0.0.1", port)
        return None


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy until one side ends; a connection of a killed node just ends."""
    with contextlib.suppress(OSError):
        while piece := await reader.read(CHUNK_BYTES):
            writer.write(piece)
            await writer.drain()
    writer.close()


class Cluster:
    """Nodes of one hub; to the world it is a hub like any other."""

    def __init__(
        self,
        folder: Path,
        balancer: Balancer,
        *,
        issuer: str,
        admin_token: str,
        environment: Mapping[str, str],
    ) -> None:
        self.issuer = issuer
        self.admin_token = admin_token
        self.nodes = [
            HubProcess(
                folder,
                admin_token=admin_token,
                environment={**environment, "SIGNALHUB_ISSUER": issuer},
                name=f"hub-{name}",
            )
            for name in "ab"
        ]
        self.log = self.nodes[0].log
        self.database_url = self.nodes[0].database_url
        balancer.ports = [node.port for node in self.nodes]

    async def start(self, http: Http) -> None:
        """Start all nodes at the same time."""
        for node in self.nodes:
            await node.migrate()
        await asyncio.gather(*(node.start(http) for node in self.nodes))

    async def stop(self) -> None:
        """End all nodes."""
        await asyncio.gather(*(node.stop() for node in self.nodes))
