"""Logs: one JSON object per line, and stand-ins for subjects."""

from __future__ import annotations

import json
import subprocess
import sys

from runtime.logs import subject_ref

PROGRAM = """
import structlog
from runtime.logs import configure_logs
configure_logs("info", process="core")
log = structlog.get_logger()
log.debug("thing.hidden")
log.info("thing.done", count=2)
try:
    raise ValueError("a\\nb")
except ValueError:
    log.exception("thing.failed")
"""


def test_each_line_is_one_json_object_with_its_process_and_level() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=60
    )
    lines = [json.loads(line) for line in ended.stderr.splitlines()]
    assert [(line["event"], line["level"], line["process"]) for line in lines] == [
        ("thing.done", "info", "core"),
        ("thing.failed", "error", "core"),
    ]
    assert lines[0]["count"] == 2
    assert "ValueError" in lines[1]["exception"]


def test_a_subject_is_the_same_within_a_process_and_not_readable() -> None:
    ref = subject_ref("alice@example.com")
    assert ref == subject_ref("alice@example.com") != subject_ref("bob@example.com")
    assert "alice" not in ref


def test_a_subject_cannot_be_recognised_by_hashing_guesses() -> None:
    """Two processes have two keys."""
    ended = subprocess.run(
        [sys.executable, "-c", "from runtime.logs import *; print(subject_ref('alice'))"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert ended.stdout.strip() != subject_ref("alice")
