"""The supervisor keeps its processes alive, ends them in order, and takes them along when it dies.

Real processes, of a program that has the supervisor and tells what happens (`supervised.py`).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ROLES = ("core", "delivery", "api")


class Watched:
    """The program, and what its processes say."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def next(self, event: str) -> dict[str, Any]:
        """Return what the next event of a kind says; nothing else may come before."""
        assert self.process.stdout is not None
        said: dict[str, Any] = json.loads(self.process.stdout.readline())
        assert said["event"] == event, said
        return said

    def rest(self) -> list[dict[str, Any]]:
        """Return everything until the last process that could say something is gone."""
        assert self.process.stdout is not None
        return [json.loads(line) for line in self.process.stdout]


@contextmanager
def supervised(folder: Path, *roles: str) -> Iterator[Watched]:
    command = [sys.executable, "-m", "tests.hub.supervised", str(folder), *roles]
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        try:
            yield Watched(process)
        finally:
            # What it started goes with it.
            process.kill()


def test_what_dies_is_started_again_and_the_others_are_left_alone(tmp_path: Path) -> None:
    with supervised(tmp_path, *ROLES) as watched:
        first = {said["role"]: said for said in (watched.next("began") for _ in ROLES)}
        for role in ROLES:
            os.kill(first[role]["pid"], signal.SIGKILL)
            again = watched.next("began")
            assert (again["role"], again["pid"] != first[role]["pid"]) == (role, True)


def test_processes_make_ids_of_their_own(tmp_path: Path) -> None:
    with supervised(tmp_path, *ROLES) as watched:
        assert len({watched.next("began")["id"] for _ in ROLES}) == len(ROLES)


def test_a_process_has_a_session_of_its_own(tmp_path: Path) -> None:
    with supervised(tmp_path, *ROLES) as watched:
        for _ in ROLES:
            said = watched.next("began")
            assert said["session"] == said["pid"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_writer_ends_last(tmp_path: Path, number: signal.Signals) -> None:
    with supervised(tmp_path, *ROLES) as watched:
        for _ in ROLES:
            watched.next("began")
        watched.process.send_signal(number)
        ended = [watched.next("ended")["role"] for _ in ROLES]
        watched.next("over")

        assert ended == ["api", "delivery", "core"]
        assert watched.process.wait() == 0


def test_a_process_that_fails_is_started_again_and_never_goes_on_as_supervisor(
    tmp_path: Path,
) -> None:
    with supervised(tmp_path, "core=raises", "api") as watched:
        began = [watched.next("began") for _ in range(4)]
        watched.process.send_signal(signal.SIGTERM)
        rest = watched.rest()

    assert [said["role"] for said in began].count("core") == 3
    assert [said["pid"] for said in rest if said["event"] == "over"] == [watched.process.pid]
    assert "a process that fails" in (tmp_path / "log").read_text()


def test_what_hangs_on_the_lifeline_learns_that_the_supervisor_was_killed(tmp_path: Path) -> None:
    with supervised(tmp_path, "core", "api") as watched:
        for _ in range(2):
            watched.next("began")
        watched.process.kill()

        assert {said["event"] for said in watched.rest()} == {"orphaned"}
