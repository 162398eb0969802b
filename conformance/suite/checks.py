"""What a check is, what it finds, and running many of them within limits."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Generic, TypeVar

EVIDENCE_CHARS_MAX: Final = 600
TRACE_CALLS_SHOWN: Final = 3

PartyT = TypeVar("PartyT")


class Outcome(StrEnum):
    """What became of a requirement; the later the worse."""

    SKIP = "skip"
    PASS = "pass"  # noqa: S105 - no password
    WARN = "warn"
    FAIL = "fail"


_ORDER: Final = tuple(Outcome)


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """Return the worst outcome; `skip` of none."""
    return max(outcomes, key=_ORDER.index, default=Outcome.SKIP)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that a check saw. requirement_ids: the rows it says something about."""

    requirement_ids: tuple[str, ...]
    outcome: Outcome
    text: str


class StopCheck(Exception):  # noqa: N818 - ends a check, and is no fault of ours
    """What the rest of a check needs is not there; what was seen is recorded already."""


@dataclass(slots=True)
class Verdict:
    """Collects what one check sees. Every method takes the requirement ids it speaks of."""

    allowed: frozenset[str]
    findings: list[Finding] = field(default_factory=list)

    def must(self, ok: object, *requirement_ids: str, told: str) -> bool:
        """Record a binding rule: kept, or broken and then a failure. told: what was expected."""
        return self._record(bool(ok), Outcome.FAIL, requirement_ids, told)

    def should(self, ok: object, *requirement_ids: str, told: str) -> bool:
        """Record a rule that is no failure to break."""
        return self._record(bool(ok), Outcome.WARN, requirement_ids, told)

    def need(self, ok: object, *requirement_ids: str, told: str) -> None:
        """Record a binding rule without which the check cannot go on. Raises StopCheck."""
        if not self.must(ok, *requirement_ids, told=told):
            raise StopCheck

    def skip(self, *requirement_ids: str, why: str) -> None:
        """Record that rules could not be judged."""
        self._add(Outcome.SKIP, requirement_ids, why)

    def stop(self, *requirement_ids: str, why: str) -> None:
        """Record that rules could not be judged, and end the check. Raises StopCheck."""
        self.skip(*requirement_ids, why=why)
        raise StopCheck

    def broken(self, text: str) -> None:
        """Record that the party did not let the check come to its end."""
        silent = self.allowed - {each for one in self.findings for each in one.requirement_ids}
        self._add(Outcome.FAIL, tuple(sorted(silent or self.allowed)), text)

    def _record(self, ok: bool, otherwise: Outcome, ids: Sequence[str], told: str) -> bool:  # noqa: FBT001 - private
        self._add(Outcome.PASS if ok else otherwise, ids, told if ok else f"not so: {told}")
        return ok

    def _add(self, outcome: Outcome, ids: Sequence[str], text: str) -> None:
        unknown = set(ids) - self.allowed
        if unknown:
            raise ValueError(f"a bug of the suite: the check does not declare {sorted(unknown)}")
        self.findings.append(
            Finding(requirement_ids=tuple(ids), outcome=outcome, text=text[:EVIDENCE_CHARS_MAX])
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Check(Generic[PartyT]):
    """One thing to ask a party. title: what it does; group: which variants run it."""

    name: str
    title: str
    requirement_ids: tuple[str, ...]
    group: str
    run: Callable[[PartyT, Verdict], Awaitable[None]]


class Checks(Generic[PartyT]):
    """The checks of one module, in the order they are written."""

    def __init__(self) -> None:
        self.all: list[Check[PartyT]] = []

    def check(
        self, *requirement_ids: str, group: str = "each"
    ) -> Callable[
        [Callable[[PartyT, Verdict], Awaitable[None]]],
        Callable[[PartyT, Verdict], Awaitable[None]],
    ]:
        """Declare a function as a check of these requirements; its docstring is the title."""

        def declare(
            run: Callable[[PartyT, Verdict], Awaitable[None]],
        ) -> Callable[[PartyT, Verdict], Awaitable[None]]:
            title = (run.__doc__ or "").strip().partition("\n")[0]
            self.all.append(
                Check(
                    name=run.__name__,
                    title=title,
                    requirement_ids=requirement_ids,
                    group=group,
                    run=run,
                )
            )
            return run

        return declare


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one check found in one variant. duration_s: how long it took."""

    name: str
    variant: str
    title: str
    requirement_ids: tuple[str, ...]
    findings: tuple[Finding, ...]
    duration_s: float

    @property
    def outcome(self) -> Outcome:
        """The worst of the findings."""
        return worst(one.outcome for one in self.findings)


async def run_check(
    check: Check[Any], party: Any, *, variant: str, limit_s: float, troubles: tuple[type, ...]
) -> Result:
    """Run one check to its end, whatever the party does.

    troubles: exceptions that are the party's doing. A bug of the suite is reported as a failure
    of the check too, and says so: a suite that breaks must not look like a pass.
    """
    verdict = Verdict(allowed=frozenset(check.requirement_ids))
    began_s = time.monotonic()
    try:
        async with asyncio.timeout(limit_s):
            await check.run(party, verdict)
    except StopCheck:
        pass
    except TimeoutError:
        verdict.broken(f"not done within {limit_s:g} s")
    except Exception as problem:  # noqa: BLE001 - outermost step; reported with its reason
        if isinstance(problem, troubles):
            verdict.broken(f"{type(problem).__name__}: {problem}")
        else:
            calls = "".join(traceback.format_tb(problem.__traceback__)[-TRACE_CALLS_SHOWN:])
            verdict.broken(f"a bug of the suite: {problem!r}\n{calls}")
    return Result(
        name=check.name,
        variant=variant,
        title=check.title,
        requirement_ids=check.requirement_ids,
        findings=tuple(verdict.findings),
        duration_s=time.monotonic() - began_s,
    )
