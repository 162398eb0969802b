"""Peers as real processes on loopback ports, and a stand-in for the hub."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from tests.conformance.stand_in import StandIn, serving

END_WAIT_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A peer that runs: its process, the first line it printed, and a client for it."""

    process: subprocess.Popen[bytes]
    urls: dict[str, Any]
    http: httpx2.Client

    def post(self, path: str, body: object = None, **headers: str) -> httpx2.Response:
        """Post JSON to the peer."""
        return self.http.post(path, json=body, headers=headers)

    def ledger(self, **wanted: object) -> list[dict[str, Any]]:
        """Read the ledger."""
        params = {name: str(value) for name, value in wanted.items()}
        entries: list[dict[str, Any]] = self.http.get("/ledger", params=params).json()
        return entries

    def alive(self, user: str) -> list[str]:
        """List the devices of a user's live sessions."""
        sessions = self.http.get("/sessions", params={"user": user}).json()
        return sorted(session["device"] for session in sessions)


@contextmanager
def running(role: str, *flags: str) -> Iterator[Running]:
    """Run a peer process until the block ends."""
    command = [sys.executable, "-m", "conformance.peers", role, *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            urls = json.loads(process.stdout.readline())
            with httpx2.Client(base_url=urls["base_url"], trust_env=False, timeout=30) as http:
                yield Running(process=process, urls=urls, http=http)
        finally:
            process.terminate()
            process.wait(END_WAIT_S)


@pytest.fixture(scope="module")
def hub() -> Iterator[StandIn]:
    """Yield a stand-in for the hub."""
    with serving() as stand_in:
        yield stand_in
