"""Figures every benchmark reports the same way: percentiles and tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import msgspec

PERCENTILES: Final = (50, 95, 99)


class Percentiles(msgspec.Struct, frozen=True, kw_only=True):
    """Nearest-rank percentiles of one set of samples, in the samples' unit."""

    samples: int
    p50: float
    p95: float
    p99: float
    maximum: float


def percentiles(samples: Sequence[float]) -> Percentiles:
    """Return the nearest-rank percentiles of `samples`; all zero when there are none."""
    ordered = sorted(samples)
    if not ordered:
        return Percentiles(samples=0, p50=0.0, p95=0.0, p99=0.0, maximum=0.0)
    p50, p95, p99 = (
        ordered[math.ceil(len(ordered) * percent / 100) - 1] for percent in PERCENTILES
    )
    return Percentiles(samples=len(ordered), p50=p50, p95=p95, p99=p99, maximum=ordered[-1])


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows as a text table: the first column flush left, the others flush right."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    lines = []
    for row in (header, ["-" * width for width in widths], *rows):
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
