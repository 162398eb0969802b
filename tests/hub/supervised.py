"""A supervisor of processes that only say what happens to them: one JSON line per event.

Run as `python supervised.py METRICS_DIR ROLE…`; a role may be followed by `=` and how it ends.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from hub.node import ProcessConfig
from hub.supervisor import Supervisor
from runtime.ids import new_ulid
from runtime.logs import configure_logs

ENDINGS: dict[str, str] = {}


def say(**event: Any) -> None:
    os.write(1, json.dumps({"pid": os.getpid(), **event}).encode() + b"\n")


def run(config: ProcessConfig, lifeline: int) -> None:
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    say(event="began", role=config.role, id=new_ulid()[10:], session=os.getsid(0))
    ending = ENDINGS.get(config.role)
    if ending == "raises":
        raise ValueError("a process that fails")
    threading.Thread(target=_watch, args=(lifeline, config.role), daemon=True).start()
    stop.wait()
    say(event="ended", role=config.role)


def _watch(lifeline: int, role: str) -> None:
    os.read(lifeline, 1)
    try:
        say(event="orphaned", role=role)
    finally:
        # Also when nobody listens any more.
        os._exit(0)


def main() -> None:
    configure_logs("info", process="supervisor")
    folder, *roles = sys.argv[1:]
    for role in roles:
        name, _, ending = role.partition("=")
        ENDINGS[name] = ending
    configs = [
        ProcessConfig(
            role=role,
            index=0,
            node="n",
            issuer="https://hub.example",
            database_url="sqlite:///none.db",
            core_socket=None,
            secret_key="k" * 32,
            dev_insecure=True,
            egress_allow=(),
            extra_ca=None,
            log_level="info",
        )
        for role in ENDINGS
    ]
    Supervisor(configs, run=run, listening=None, metrics_dir=Path(folder)).run()
    say(event="over")


if __name__ == "__main__":
    main()
