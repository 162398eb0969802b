"""The real hub as a process, configured the way an operator would: settings, then its admin API."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import asyncpg
import httpx2
import msgspec
import uvloop

from benchmarks.history import fill, migrate
from benchmarks.loadgen import generate_load
from benchmarks.serving import READY_LIMIT_S, ROOT, stop
from benchmarks.tokens import TokenPlan, device_of, email_of
from runtime.clock import SystemClock

ADMIN_TOKEN: Final = "benchmark-admin-token-0123456789abcdef"  # noqa: S105 - lives for one run
ANNOUNCEMENT: Final = "Signalhub serves "
ANSWER_LIMIT_S: Final = 10.0
LOOK_AGAIN_S: Final = 0.05
REGISTERING_CONNECTIONS: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class HubProcess:
    """A running hub, and ways to call its API as admin and to look into its database.

    database_url: as in its settings. log_file: what its processes say.
    """

    pid: int
    url: str
    database_url: str
    log_file: Path
    api: httpx2.Client

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Return what a query of the hub's database gives."""
        scheme, _, path = self.database_url.partition(":///")
        if scheme == "sqlite":
            connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)
            try:
                return connection.execute(query).fetchall()
            finally:
                connection.close()
        return asyncio.run(_rows_of_postgresql(self.database_url, query))

    def create(self, kind: str, body: Mapping[str, object]) -> dict[str, Any]:
        """POST an admin object and return it. Raises RuntimeError with the hub's reason."""
        return self.call("POST", f"/admin/v1/{kind}", body)

    def call(self, method: str, path: str, body: Mapping[str, object] | None) -> dict[str, Any]:
        """Call the API with JSON and return its answer. Raises RuntimeError on a refusal."""
        answer = self.api.request(method, path, json=body)
        if not answer.is_success:
            raise RuntimeError(f"{method} {path}: {answer.status_code} {answer.text}")
        decoded: dict[str, Any] = answer.json()
        return decoded


async def _rows_of_postgresql(url: str, query: str) -> list[tuple[Any, ...]]:
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(query)]
    finally:
        await connection.close()


@contextmanager
def running_hub(
    folder: Path,
    *,
    workers: int = 1,
    history: int = 0,
    environment: Mapping[str, str] | None = None,
) -> Iterator[HubProcess]:
    """Run `signalhub serve` with everything in `folder` and yield it when it is ready.

    history: how many old events its database holds, and a hundredth as many old streams.

    All settings but these are the defaults (the limit per client is out of the way): durable
    commits, logs at `info` (into a file).
    Raises TimeoutError with the log's end when it does not become ready.
    """
    log_file = folder / "hub.log"
    database = folder / "hub.db"
    if history:
        fill(database, events=history, streams=history // 100)
    settings = {
        name: value for name, value in os.environ.items() if not name.startswith("SIGNALHUB_")
    } | {
        "SIGNALHUB_DATABASE_URL": f"sqlite:///{database}",
        "SIGNALHUB_DATA_DIR": str(folder / "data"),
        "SIGNALHUB_ADMIN_TOKEN": ADMIN_TOKEN,
        "SIGNALHUB_PORT": "0",
        "SIGNALHUB_WORKERS": str(workers),
        # Benchmarks register thousands of sessions as one client, faster than it may by default.
        "SIGNALHUB_CLIENT_REQUESTS_PER_S": "1000000",
    }
    if environment:
        settings |= environment
        migrate(environment)
    with (
        log_file.open("wb") as log,
        subprocess.Popen(
            [sys.executable, "-m", "hub.cli", "serve"],
            cwd=ROOT,
            env=settings,
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process,
    ):
        try:
            url = _announced_url(process, log_file)
            headers = {"authorization": f"Bearer {ADMIN_TOKEN}"}
            with httpx2.Client(base_url=url, headers=headers, timeout=ANSWER_LIMIT_S) as api:
                _wait_until_ready(api, log_file)
                yield HubProcess(
                    pid=process.pid,
                    url=url,
                    database_url=settings["SIGNALHUB_DATABASE_URL"],
                    log_file=log_file,
                    api=api,
                )
        finally:
            stop(process)


def register_sessions(url: str, token: str, plan: TokenPlan) -> None:
    """Register one session per subject of `plan`, which makes its user and device known.

    Raises RuntimeError when the hub does not take them all.
    """
    started_at = SystemClock().now().isoformat(timespec="seconds")
    requests = []
    for number in range(plan.subject_count):
        body = msgspec.json.encode(
            {
                "iss": "https://idp.example",
                "user": {"format": "email", "email": email_of(plan, number)},
                "device": device_of(plan, number),
                "started_at": started_at,
            }
        )
        head = (
            f"PUT /v1/sessions/sid-{number} HTTP/1.1\r\nHost: {url.removeprefix('http://')}\r\n"
            f"Authorization: Bearer {token}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        requests.append(head.encode() + body)
    report = uvloop.run(generate_load(url, requests, connections=REGISTERING_CONNECTIONS))
    if set(report.statuses) - {200, 201, 204}:
        raise RuntimeError(f"the hub did not take the sessions: {report.statuses}")


def _announced_url(process: subprocess.Popen[str], log_file: Path) -> str:
    deadline = time.monotonic() + READY_LIMIT_S
    while time.monotonic() < deadline and process.poll() is None:
        for line in log_file.read_text(errors="replace").splitlines():
            if line.startswith(ANNOUNCEMENT):
                return line.removeprefix(ANNOUNCEMENT).strip()
        time.sleep(LOOK_AGAIN_S)
    raise TimeoutError(f"the hub did not start: {_end_of(log_file)}")


def _wait_until_ready(api: httpx2.Client, log_file: Path) -> None:
    deadline = time.monotonic() + READY_LIMIT_S
    while time.monotonic() < deadline:
        try:
            if api.get("/readyz").is_success:
                return
        except httpx2.TransportError:
            pass
        time.sleep(LOOK_AGAIN_S)
    raise TimeoutError(f"the hub did not become ready: {_end_of(log_file)}")


def _end_of(log_file: Path) -> str:
    return "\n".join(log_file.read_text(errors="replace").splitlines()[-20:])
