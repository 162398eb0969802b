"""Child processes of the demo and of the scenario tests, and plain JSON over HTTP to them."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from runtime.errors import Unavailable
from runtime.outbound import EgressRules, OutboundRequest, StreamingOutbound

START_S: Final = 30.0
STOP_S: Final = 15.0
LOOK_AGAIN_S: Final = 0.02
REQUEST_S: Final = 40.0
ANSWER_BYTES_MAX: Final = 16 * 1024 * 1024


class StepFailed(Exception):  # noqa: N818 - what the reader of the timeline is told
    """Something that had to become true did not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An HTTP answer with its JSON, None when it has none."""

    status: int
    json: Any
    headers: Mapping[str, str]


class Http:
    """JSON over HTTP to processes on loopback."""

    def __init__(self) -> None:
        self._outbound = StreamingOutbound(EgressRules(dev_insecure=True))

    async def request(
        self, method: str, url: str, body: object = None, *, token: str | None = None
    ) -> Reply:
        """Send one request; raises Unavailable when nobody answers."""
        headers = {"content-type": "application/json"} if body is not None else {}
        if token:
            headers["authorization"] = f"Bearer {token}"
        answer = await self._outbound.send(
            OutboundRequest(
                method=method,
                url=url,
                headers=headers,
                body=msgspec.json.encode(body) if body is not None else b"",
                timeout_s=REQUEST_S,
                body_bytes_max=ANSWER_BYTES_MAX,
            )
        )
        is_json = "json" in answer.headers.get("content-type", "") and answer.body
        return Reply(
            status=answer.status,
            json=msgspec.json.decode(answer.body) if is_json else None,
            headers=answer.headers,
        )

    async def ask(
        self, method: str, url: str, body: object = None, *, token: str | None = None
    ) -> Any:
        """Send one request that must succeed; return its JSON. Raises StepFailed."""
        reply = await self.request(method, url, body, token=token)
        if reply.status >= 400:  # noqa: PLR2004 - HTTP's own boundary
            raise StepFailed(f"{method} {url} answered {reply.status}: {reply.json}")
        return reply.json

    async def close(self) -> None:
        """Close all connections."""
        await self._outbound.close()


async def until(
    what: str, condition: Callable[[], Awaitable[bool]], *, limit_s: float = START_S
) -> None:
    """Wait until `condition` holds. Raises StepFailed naming `what` after the limit."""
    try:
        async with asyncio.timeout(limit_s):
            while not await _holds(condition):  # noqa: ASYNC110 - see below
                # Other processes change what is asked for, so there is no event to wait on.
                await asyncio.sleep(LOOK_AGAIN_S)
    except TimeoutError:
        raise StepFailed(f"not within {limit_s:g} s: {what}") from None


async def _holds(condition: Callable[[], Awaitable[bool]]) -> bool:
    try:
        return await condition()
    except Unavailable:
        return False


class HubProcess:
    """`signalhub serve` as a child, restartable on the same address and data."""

    def __init__(self, folder: Path, *, admin_token: str, environment: Mapping[str, str]) -> None:
        self.port = _free_port()
        self.issuer = f"http://127.0.0.1:{self.port}"
        self.admin_token = admin_token
        self.log = folder / "hub.log"
        self._environment = {
            **{name: text for name, text in os.environ.items() if not _is_setting(name)},
            "SIGNALHUB_PORT": str(self.port),
            "SIGNALHUB_DATABASE_URL": f"sqlite:///{folder}/hub.db",
            "SIGNALHUB_DATA_DIR": str(folder / "data"),
            "SIGNALHUB_ADMIN_TOKEN": admin_token,
            **environment,
        }
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, http: Http) -> None:
        """Start and wait until it is ready."""
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "hub.cli",
                "serve",
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        await self.ready(http)

    async def ready(self, http: Http) -> None:
        """Wait until the hub answers that it is ready. Raises StepFailed when it ended."""

        async def is_ready() -> bool:
            if self._process is not None and self._process.returncode is not None:
                raise StepFailed(f"the hub ended with {self._process.returncode}; see {self.log}")
            return (await http.request("GET", f"{self.issuer}/readyz")).status == 200  # noqa: PLR2004

        await until("the hub is ready", is_ready)

    def processes(self) -> dict[int, str]:
        """Return process id to role (supervisor, core, api, delivery) of what runs now."""
        if self._process is None:
            return {}
        found = {self._process.pid: "supervisor"}
        for line in self.log.read_bytes().splitlines():
            if b'"process.started"' in line:
                event = msgspec.json.decode(line)
                if _is_alive(event["pid"]):
                    found[event["pid"]] = event["role"]
        return found

    async def kill(self) -> None:
        """Kill the supervisor and everything it started, without warning."""
        for pid in self.processes():
            kill(pid)
        if self._process is not None:
            await self._process.wait()

    async def stop(self) -> None:
        """Ask it to end, and insist after a while."""
        if self._process is None or self._process.returncode is not None:
            return
        self._process.terminate()
        try:
            async with asyncio.timeout(STOP_S):
                await self._process.wait()
        except TimeoutError:
            await self.kill()


class PeerProcess:
    """A simulated peer as a child; `urls` is what it printed on its first line."""

    def __init__(self, urls: dict[str, Any], process: asyncio.subprocess.Process) -> None:
        self.urls = urls
        self.url: str = urls["base_url"]
        self._process = process

    @classmethod
    async def start(cls, role: str, **options: object) -> PeerProcess:
        """Start `role` (vendor, idp, app) with the given options."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "conformance.peers",
            role,
            "--config",
            msgspec.json.encode(options).decode(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None  # noqa: S101 - PIPE was asked for
        async with asyncio.timeout(START_S):
            line = await process.stdout.readline()
        if not line:
            raise StepFailed(f"the {role} did not start")
        return cls(msgspec.json.decode(line), process)

    async def stop(self) -> None:
        """End it."""
        if self._process.returncode is None:
            self._process.terminate()
            await self._process.wait()


def kill(pid: int) -> None:
    """Kill -9; a process that is gone already is fine."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _is_setting(name: str) -> bool:
    return name.startswith("SIGNALHUB_")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
