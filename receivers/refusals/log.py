"""Note refused SETs off the hot path: count all, keep a few, write in batches."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import structlog
from prometheus_client import Counter

from receivers.model import ProviderProfile
from receivers.refusals.model import (
    DEFERRED,
    TEXT_CHARS_MAX,
    Refusal,
    RefusalBatch,
    RefusalCount,
    peek,
    shown_text,
)
from receivers.refusals.store import NOTE_REFUSALS
from runtime.errors import Refused, Unavailable
from runtime.ids import new_id
from runtime.secrets import SecretBox
from runtime.writer import Writer
from ssf.errors import SETError

FLUSH_S: Final = 0.5
#: what one process keeps of each provider and code between two flushes, and of all
KEPT_PER_KEY: Final = 3
KEPT_MAX: Final = 30
#: providers and codes between two flushes; they are few unless there are very many providers
KEYS_MAX: Final = 1_000

log = structlog.get_logger()
_dropped_total = Counter(
    "hub_receivers_refusals_dropped_total", "Refused SETs that are in no list and no count."
)

_Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Noted:
    """A refused SET that is kept. raw: None when its body was not read."""

    provider: ProviderProfile
    code: str
    requirement: str
    reason: str
    raw: bytes | None
    peer: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Witness:
    """Where intake notes what it refuses, and for whom: the sender's address."""

    refusals: RefusalLog
    peer: str

    def note(
        self,
        provider: ProviderProfile,
        refusal: SETError | Unavailable,
        *,
        raw: bytes | None,
        now: datetime,
    ) -> None:
        """Note a refused SET, or one that nobody could decide about. Raises nothing."""
        code, requirement, reason = DEFERRED, "", ""
        if isinstance(refusal, SETError):
            code, requirement, reason = refusal.code, refusal.requirement, refusal.description
        else:
            reason = refusal.detail
        self.refusals.note(
            Noted(
                provider=provider,
                code=code,
                requirement=requirement,
                reason=reason,
                raw=raw,
                peer=self.peer,
                at=now,
            )
        )


class RefusalLog:
    """The refusals this process has seen and not written yet. Bounded; a crash loses them."""

    def __init__(self, writer: Writer, box: SecretBox) -> None:
        self._writer = writer
        self._box = box
        self._kept: dict[_Key, list[Noted]] = {}
        self._counts: dict[_Key, tuple[int, datetime]] = {}
        self._noted = asyncio.Event()

    def note(self, noted: Noted) -> None:
        """Count a refusal, and keep it if there are few. Never waits, raises nothing."""
        key = (noted.provider.tenant_id, noted.provider.provider_id, noted.code)
        if key not in self._counts and len(self._counts) >= KEYS_MAX:
            _dropped_total.inc()
            return
        count, _ = self._counts.get(key, (0, noted.at))
        self._counts[key] = (count + 1, noted.at)
        kept = self._kept.setdefault(key, [])
        if len(kept) < KEPT_PER_KEY and sum(map(len, self._kept.values())) < KEPT_MAX:
            kept.append(noted)
        self._noted.set()

    async def run(self) -> None:
        """Write what was noted, at most twice a second, until cancelled."""
        while True:
            await self._noted.wait()
            await asyncio.sleep(FLUSH_S)
            await self.flush()

    async def flush(self) -> None:
        """Write what was noted. What the writer does not take is dropped and counted."""
        kept, counts = self._kept, self._counts
        self._kept, self._counts = {}, {}
        self._noted.clear()
        if not counts:
            return
        batch = RefusalBatch(
            kept=tuple(self._refusal(each) for some in kept.values() for each in some),
            counts=tuple(
                RefusalCount(
                    tenant_id=tenant_id, provider_id=provider_id, code=code, count=count, last_at=at
                )
                for (tenant_id, provider_id, code), (count, at) in counts.items()
            ),
        )
        try:
            await self._writer.submit(NOTE_REFUSALS, batch)
        except (Refused, Unavailable) as trouble:
            _dropped_total.inc(sum(count for count, _ in counts.values()))
            log.warning("refusals.dropped", reason=trouble.detail)

    def _refusal(self, noted: Noted) -> Refusal:
        jti, event_type = (None, None) if noted.raw is None else peek(noted.raw)
        # latin-1: any bytes, one character each.
        sealed = None if noted.raw is None else self._box.seal(noted.raw.decode("latin-1"))
        return Refusal(
            tenant_id=noted.provider.tenant_id,
            error_id=new_id("ing"),
            provider_id=noted.provider.provider_id,
            code=noted.code,
            requirement=noted.requirement,
            reason=shown_text(noted.reason, TEXT_CHARS_MAX) or "",
            jti=jti,
            event_type=event_type,
            peer=noted.peer[:64],
            raw_sealed=sealed,
            size_bytes=0 if noted.raw is None else len(noted.raw),
            at=noted.at,
        )
