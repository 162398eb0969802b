"""A database with a past: old signals, events, deliveries, and streams that ask for other events.

The rows are made in the database by numbering copies of one, a million in some seconds. They are a
day old, so that no retention takes them away while something is measured.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from benchmarks.serving import ROOT
from migrations.tables import metadata
from runtime.clock import SystemClock, epoch_s
from runtime.database import UTCDateTime

CAEP: Final = "https://schemas.openid.net/secevent/caep/event-type"
ASKED_FOR: Final = f"{CAEP}/session-presented"
AGE: Final = timedelta(days=1)
#: ids of the past begin so: they sort before every present one
PAST: Final = "00"


def fill(database: Path, *, events: int, streams: int) -> None:
    """Make a database at `database` with so many old signals, events, deliveries and streams."""
    migrate({"SIGNALHUB_DATABASE_URL": f"sqlite:///{database}"})
    engine = sa.create_engine(f"sqlite:///{database}")
    with engine.begin() as connection:
        for name, values in _templates().items():
            connection.execute(sa.insert(metadata.tables[name]).values(_row(name, values)))
    engine.dispose()
    past = sqlite3.connect(database)
    # Nobody needs it when the machine fails; without these it takes minutes.
    for pragma in ("journal_mode=OFF", "synchronous=OFF", "cache_size=-2000000"):
        past.execute(f"PRAGMA {pragma}")
    with past:
        _number(past, "streams", streams, stream_id="str", client_id="cli")
        _number(past, "stream_interests", streams, stream_id="str")
        _number(past, "signals", events, signal_id="sig", jti="jti", txn="txn")
        _number(past, "events", events, event_id="evt", txn="txn")
        _number(past, "deliveries", events, jti="jti", event_id="evt")
    past.execute("ANALYZE")
    past.execute("PRAGMA journal_mode=WAL")
    past.close()


def migrate(settings: Mapping[str, str]) -> None:
    """Bring the database that the settings name to the newest schema."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SIGNALHUB_")}
    subprocess.run(
        [sys.executable, "-m", "hub.cli", "migrate"],
        cwd=ROOT,
        env=environment | dict(settings),
        check=True,
        stdout=subprocess.DEVNULL,
    )


def _number(connection: sqlite3.Connection, table: str, count: int, **numbered: str) -> None:
    """Copy the one row of the past `count` times, numbering these columns."""
    columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    chosen = ", ".join(
        f"'{numbered[name]}_{PAST}' || printf('%010d', n)" if name in numbered else name
        for name in columns
    )
    connection.execute(
        "WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < ?) "  # noqa: S608 - our own names
        f"INSERT INTO {table} ({', '.join(columns)}) SELECT {chosen} FROM {table}, number "
        "WHERE tenant_id = 'default'",
        (count,),
    )


def _templates() -> Mapping[str, Mapping[str, Any]]:
    then = SystemClock().now() - AGE
    sub_id = {"format": "email", "email": "past@past.example"}
    one = f"{PAST}0000000000"
    return {
        "streams": {
            "stream_id": f"str_{one}",
            "client_id": f"cli_{one}",
            "aud": ["https://past.example"],
            "method": "urn:ietf:rfc:8936",
            "events_requested": [ASKED_FOR],
            "status": "enabled",
            "default_subjects": "ALL",
        },
        "stream_interests": {
            "stream_id": f"str_{one}",
            "type_digest": hashlib.sha256(ASKED_FOR.encode()).hexdigest()[:32],
        },
        "signals": {
            "signal_id": f"sig_{one}",
            "provider_id": "prv_past",
            "iss": "https://past.example",
            "jti": f"jti_{one}",
            "event_type": f"{CAEP}/session-revoked",
            "sub_id": sub_id,
            "payload": {"event_timestamp": epoch_s(then)},
            "raw": "e30." * 250,
            "mode": "enforce",
            "state": "assessed",
        },
        "events": {
            "event_id": f"evt_{one}",
            "event_type": f"{CAEP}/risk-level-change",
            "payload": {"principal": "USER", "current_level": "HIGH"},
            "subjects": [sub_id],
            "ordering_key": "usr_past",
        },
        "deliveries": {
            "stream_id": f"str_{one}",
            "jti": f"jti_{one}",
            "event_id": f"evt_{one}",
            "iat": epoch_s(then),
            "ordering_key": "usr_past",
            "state": "delivered",
            "attempts": 1,
            "settled_at": then,
        },
    }


def _row(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a full row: what the template leaves out is empty, zero, or a day old."""
    then = SystemClock().now() - AGE
    row: dict[str, Any] = {"tenant_id": "default"}
    for column in metadata.tables[name].columns:
        if column.name in values:
            row[column.name] = values[column.name]
        elif column.nullable or column.name in row or column.server_default is not None:
            continue
        elif isinstance(column.type, UTCDateTime):
            row[column.name] = then
        elif isinstance(column.type, sa.Integer | sa.Boolean):
            row[column.name] = 0
        else:
            row[column.name] = "past"
    return row


def main() -> None:
    """Make such a database and tell what it holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("database", type=Path)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--streams", type=int, default=10_000)
    options = parser.parse_args()
    fill(options.database, events=options.events, streams=options.streams)
    megabytes = options.database.stat().st_size // 1_000_000
    print(json.dumps({"events": options.events, "streams": options.streams, "MB": megabytes}))


if __name__ == "__main__":
    main()
