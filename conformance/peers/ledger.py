"""The ledger: what reached a peer and what it did about it, append-only.

Fault tests judge the hub by ledgers, so an entry is written before the answer leaves: a request
whose answer got lost is still on record.
"""

from collections import deque
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

import msgspec

from conformance.peers.clock import now_s

ENTRIES_KEPT_MAX = 200_000  # In memory; the file keeps all.


class Outcome(StrEnum):
    """What became of it.

    effect: something changed. repeat: understood, but nothing was left to change.
    refused: turned away. noted: neither (fetches, deliveries under way, control).
    """

    EFFECT = "effect"
    REPEAT = "repeat"
    REFUSED = "refused"
    NOTED = "noted"


class Ledger:
    """An append-only list of entries, in memory and, when a path is given, in a file."""

    def __init__(self, path: Path | None = None) -> None:
        self._entries: deque[dict[str, object]] = deque(maxlen=ENTRIES_KEPT_MAX)
        self._number = 0
        # Unbuffered: one write per entry, and a killed peer loses nothing that it answered for.
        self._file: BinaryIO | None = path.open("ab", buffering=0) if path else None

    def record(
        self, what: str, outcome: Outcome, *, request_id: str | None = None, **details: object
    ) -> None:
        """Append one entry.

        what: `noun.past_participle`. request_id: the jti, webhook-id or X-Request-Id it came with.
        details: JSON values; never secrets. Raises OSError when the file cannot be written.
        """
        self._number += 1
        entry: dict[str, object] = {
            "number": self._number,
            "at": now_s(),
            "what": what,
            "outcome": outcome.value,
            "request_id": request_id,
            **details,
        }
        self._entries.append(entry)
        if self._file is not None:
            self._file.write(msgspec.json.encode(entry) + b"\n")

    def entries(self, wanted: Mapping[str, str]) -> list[dict[str, object]]:
        """Return the entries that match all of `wanted`, oldest first.

        `what` compares by beginning, `after` by number (exclusive), every other member as text.
        """
        try:
            after = int(wanted.get("after", "0"))
        except ValueError:
            after = 0
        exact = {name: text for name, text in wanted.items() if name not in {"what", "after"}}
        return [
            entry
            for entry in self._entries
            if int(str(entry["number"])) > after
            and str(entry["what"]).startswith(wanted.get("what", ""))
            and all(str(entry.get(name)) == text for name, text in exact.items())
        ]

    def close(self) -> None:
        """Close the file. Raises nothing."""
        if self._file is not None:
            self._file.close()
