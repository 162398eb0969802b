"""Child processes of the demo and of the scenario tests, and plain JSON over HTTP to them."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import msgspec

from runtime.egress import EgressRules
from runtime.errors import Unavailable
from runtime.outbound import OutboundRequest
from runtime.streaming import StreamingOutbound

#: ten times what a start takes on an idle machine; tests share theirs
START_S: Final = 60.0
STOP_S: Final = 15.0
LOOK_AGAIN_S: Final = 0.02
#: longer than a vendor tries to deliver one SET while it is waited for
REQUEST_S: Final = 120.0
ANSWER_BYTES_MAX: Final = 16 * 1024 * 1024
#: below the ports that systems hand out by themselves, so that nobody takes a hub's port while
#: it is down
PORTS: Final = range(20_000, 32_000)
PORTS_TRIED_MAX: Final = 200
READY: Final = 200
UNAVAILABLE: Final = 503
SUPERVISOR: Final = "supervisor"
#: what a log of a healthy hub never has, whoever was killed beside it
TROUBLES: Final = ('"exception"', '"level":"error"', '"level":"critical"', "Traceback")


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

    def __init__(self, *, extra_ca: str | None = None) -> None:
        """extra_ca: file with an authority to trust beside the usual ones."""
        self._outbound = StreamingOutbound(EgressRules(dev_insecure=True, extra_ca=extra_ca))

    async def request(
        self, method: str, url: str, body: object = None, *, token: str | None = None
    ) -> Reply:
        """Send one request; raises Unavailable when nobody answers."""
        headers = {"content-type": "application/json"} if body is not None else {}
        if token:
            headers["authorization"] = f"Bearer {token}"
        content = msgspec.json.encode(body) if body is not None else b""
        return await self._send(method, url, headers, content)

    async def submit(self, url: str, fields: Mapping[str, str], *, cookie: str = "") -> Reply:
        """Send a page's form as a browser does; redirects are not followed.

        cookie: `name=value`. Raises Unavailable when nobody answers.
        """
        headers = {"content-type": "application/x-www-form-urlencoded"}
        if cookie:
            headers["cookie"] = cookie
        return await self._send("POST", url, headers, urlencode(fields).encode())

    async def _send(
        self, method: str, url: str, headers: Mapping[str, str], content: bytes
    ) -> Reply:
        answer = await self._outbound.send(
            OutboundRequest(
                method=method,
                url=url,
                headers=headers,
                body=content,
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
        """Send one request that must succeed; return its JSON.

        Raises StepFailed when it is refused, Unavailable when nobody answers or the answer is to
        come again later.
        """
        reply = await self.request(method, url, body, token=token)
        if reply.status == UNAVAILABLE:
            raise Unavailable(f"{method} {url} answered 503")
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
    """`signalhub serve` as a child, restartable on the same address and data.

    The settings that `environment` leaves out are those of a first start: an embedded database in
    `folder`. A database that `environment` names is migrated first, and the hub is told its issuer,
    as an operator would do.
    """

    def __init__(
        self,
        folder: Path,
        *,
        admin_token: str,
        environment: Mapping[str, str],
        name: str = "hub",
    ) -> None:
        self.port = _free_port()
        scheme = "https" if "SIGNALHUB_TLS_CERT" in environment else "http"
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        self.admin_token = admin_token
        self.log = folder / f"{name}.log"
        own = {}
        self._has_to_migrate = "SIGNALHUB_DATABASE_URL" in environment
        if self._has_to_migrate:
            own = {"SIGNALHUB_ISSUER": self.url, "SIGNALHUB_DEV_INSECURE": "true"}
        self._environment = {
            **{text: value for text, value in os.environ.items() if not _is_setting(text)},
            "SIGNALHUB_PORT": str(self.port),
            "SIGNALHUB_DATABASE_URL": f"sqlite:///{folder}/hub.db",
            "SIGNALHUB_DATA_DIR": str(folder / "data"),
            "SIGNALHUB_ADMIN_TOKEN": admin_token,
            **own,
            **environment,
        }
        self.issuer = self._environment.get("SIGNALHUB_ISSUER", self.url)
        self.database_url = self._environment["SIGNALHUB_DATABASE_URL"]
        self._process: asyncio.subprocess.Process | None = None
        self._log_start = 0

    async def migrate(self) -> None:
        """Bring the database to the present schema. Raises StepFailed."""
        migration = await self._run("migrate")
        if await migration.wait():
            raise StepFailed(f"signalhub migrate ended badly; see {self.log}")
        self._has_to_migrate = False

    async def start(self, http: Http) -> None:
        """Start and wait until it is ready. Raises StepFailed."""
        if self._has_to_migrate:
            await self.migrate()
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        self._process = await self._run("serve")
        await self.ready(http)

    async def _run(self, command: str) -> asyncio.subprocess.Process:
        with self.log.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "hub.cli",
                command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    async def ready(self, http: Http) -> None:
        """Wait until the hub answers that it is ready. Raises StepFailed when it ended."""

        async def is_ready() -> bool:
            if self._process is not None and self._process.returncode is not None:
                raise StepFailed(f"the hub ended with {self._process.returncode}; see {self.log}")
            return (await http.request("GET", f"{self.url}/readyz")).status == READY

        await until("the hub is ready", is_ready)

    def processes(self) -> dict[int, str]:
        """Return process id to role (supervisor, core, api, delivery) of what runs now."""
        if self._process is None:
            return {}
        found = {self._process.pid: SUPERVISOR, **self._children()}
        return {pid: role for pid, role in found.items() if is_running(pid)}

    def _children(self) -> dict[int, str]:
        """Return the last process of each role and index since this start, running or not."""
        latest: dict[tuple[str, int], int] = {}
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            for line in log:
                if b'"process.started"' in line and line.endswith(b"\n"):
                    event = msgspec.json.decode(line)
                    latest[event["role"], event["index"]] = event["pid"]
        return {pid: role for (role, _), pid in latest.items()}

    def troubles(self) -> list[str]:
        """Return the lines of the log, of all starts, that somebody should look at."""
        lines = self.log.read_text(errors="replace").splitlines()
        return [line for line in lines if any(sign in line for sign in TROUBLES)]

    async def kill(self, role: str | None = None) -> None:
        """Kill without warning: one process of a role, or the supervisor and all it started.

        With the supervisor alone its children end by themselves; this waits until they have.
        Raises StepFailed when a process of the role does not come up or children stay.
        """
        if role in {None, SUPERVISOR}:
            await self._kill_supervisor(children=role is None)
            return
        victims: list[int] = []

        async def is_there() -> bool:
            victims[:] = [pid for pid, each in self.processes().items() if each == role]
            return bool(victims)

        await until(f"a process of role {role} runs", is_there)
        kill(victims[0])

    async def _kill_supervisor(self, *, children: bool) -> None:
        if self._process is None:
            return
        kill(self._process.pid)
        await self._process.wait()
        # Nobody starts another one now, so what the log names is all there is.
        orphans = list(self._children())
        for pid in orphans if children else ():
            kill(pid)

        async def are_gone() -> bool:
            return not any(is_running(pid) for pid in orphans)

        await until("all processes of the hub are gone", are_gone)

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
    async def start(
        cls, role: str, *, environment: Mapping[str, str] | None = None, **options: object
    ) -> PeerProcess:
        """Start `role` (vendor, idp, app) with the given options. Raises StepFailed."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "conformance.peers",
            role,
            "--config",
            msgspec.json.encode(options).decode(),
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None  # noqa: S101 - PIPE was asked for
        line = b""
        try:
            async with asyncio.timeout(START_S):
                line = await process.stdout.readline()
        finally:
            # Also when the world's start was given up meanwhile.
            if not line:
                kill(process.pid)
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


def is_running(pid: int) -> bool:
    """Return whether a process runs; one that is dead and not yet collected does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    try:
        # The state follows the name, which is in brackets and may hold anything.
        return state.read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except OSError:
        # No /proc on this system, or it ended between the two looks.
        return not Path("/proc/self/stat").exists()


def _is_setting(name: str) -> bool:
    return name.startswith("SIGNALHUB_")


def _free_port() -> int:
    for _ in range(PORTS_TRIED_MAX):
        port = random.choice(PORTS)  # noqa: S311 - any port will do
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise StepFailed("no free port")
