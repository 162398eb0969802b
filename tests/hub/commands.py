"""The command line and a served hub, as real processes in a folder of their own."""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

ROOT = Path(__file__).parents[2]
LIMIT_S = 60.0
KEY = "a secret key that is long enough, for tests only"


@dataclass
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


class Forker:
    """A process that has imported the hub and forks for each command (`tests.hub.forking`)."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.hub.forking"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    def run(self, arguments: Sequence[str], folder: Path, variables: Mapping[str, str]) -> Done:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = {"arguments": arguments, "folder": str(folder), "variables": dict(variables)}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return Done(**json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        self._process.communicate(timeout=LIMIT_S)


@dataclass
class Shell:
    """Runs `signalhub` in one folder with one set of settings."""

    folder: Path
    forker: Forker
    variables: Mapping[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith("SIGNALHUB_")
        }
        plain = {"TERM": "dumb", "COLUMNS": "200", "NO_COLOR": "1", "PYTHONPATH": str(ROOT)}
        return {**inherited, **plain, **self.variables}

    def run(self, *arguments: str) -> Done:
        """Run one command to its end."""
        return self.forker.run(arguments, self.folder, self.environment())

    def run_afresh(self, *arguments: str) -> Done:
        """Run one command as an operator does: a new interpreter."""
        done = subprocess.run(
            [sys.executable, "-m", "hub.cli", *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=self.folder,
            env=self.environment(),
            timeout=LIMIT_S,
        )
        return Done(code=done.returncode, out=done.stdout, err=done.stderr)

    def good(self, *arguments: str) -> Any:
        """Run one command that succeeds; return its JSON."""
        done = self.run(*arguments)
        assert done.code == 0, done.err
        return done.document


@dataclass
class Served:
    """A hub that is being served."""

    issuer: str
    token: str
    shell: Shell


@contextmanager
def served(shell: Shell, *arguments: str) -> Iterator[Served]:
    """Serve a hub on a free port of loopback until the block is left.

    token: "" where there was an admin before.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "hub.cli", "serve", "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=shell.folder,
        env=shell.environment(),
    )
    try:
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if "API description" in line:
                break
        issuer = re.search(r"Signalhub serves (\S+)", said)
        token = re.search(r"admin token \(shown once\): (\S+)", said)
        assert issuer, said
        yield Served(issuer=issuer[1], token=token[1] if token else "", shell=shell)
    finally:
        process.terminate()
        process.communicate(timeout=LIMIT_S)


@contextmanager
def new_database(server: str) -> Iterator[str]:
    """Yield the URL of a database without tables on a PostgreSQL server."""
    url = sa.make_url(server)
    name = f"c_{secrets.token_hex(8)}"
    asyncio.run(_administer(url, f'CREATE DATABASE "{name}"'))
    yield url.set(database=name).render_as_string(hide_password=False)
    asyncio.run(_administer(url, f'DROP DATABASE "{name}" WITH (FORCE)'))


async def _administer(server: sa.URL, statement: str) -> None:
    engine = create_async_engine(
        server.set(drivername="postgresql+asyncpg"), isolation_level="AUTOCOMMIT"
    )
    async with engine.connect() as connection:
        await connection.execute(sa.text(statement))
    await engine.dispose()
