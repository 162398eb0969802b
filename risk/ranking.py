"""The score that ranks entities of one level: log-odds of evidence that fades. Pure.

``L(t) = logit(prior) + sum over source classes of max(severity * reliability * confidence *
2^(-age / half-life))``: of correlated evidence only the strongest counts. It is shown beside the
level and decides nothing. Each term of the sum is a contribution, so the score explains itself.

An issuer's reliability comes from feedback: the share of its findings that people confirmed,
shrunk towards one half by a prior of four findings. One that nobody judged counts as it claims.
Source: risk-models §3.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final

from risk import catalogue
from risk.model import Detection, Level

PRIOR: Final = 0.002
#: a source that nobody judged: its findings are as often right as wrong, known from so many
UNJUDGED_PRECISION: Final = 0.5
UNJUDGED_FINDINGS: Final = 4.0
#: weight of a finding by claimed level, from a source that nobody judged
SEVERITY: Final[Mapping[Level, float]] = MappingProxyType(
    {Level.LOW: 1.5, Level.MEDIUM: 3.5, Level.HIGH: 7.0}
)
HALF_LIFE: Final[Mapping[Level, timedelta]] = MappingProxyType(
    {Level.LOW: timedelta(days=1), Level.MEDIUM: timedelta(days=3), Level.HIGH: timedelta(days=7)}
)
SCORE_DIGITS: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Reliability:
    """What people said of an issuer's findings: how many were right, how many false."""

    confirmed: int = 0
    false: int = 0

    @property
    def precision(self) -> float:
        """The share that is right, shrunk towards one half: 0 to 1, neither of them reached."""
        right = self.confirmed + UNJUDGED_FINDINGS * UNJUDGED_PRECISION
        return right / (self.confirmed + self.false + UNJUDGED_FINDINGS)

    @property
    def weight(self) -> float:
        """The factor of its evidence: 1 for a source nobody judged, towards 0 for a false one."""
        evidence = _log_odds(self.precision) - PRIOR_LOG_ODDS
        return max(0.0, evidence / (_log_odds(UNJUDGED_PRECISION) - PRIOR_LOG_ODDS))


@dataclass(frozen=True, slots=True, kw_only=True)
class RankingTerm:
    """One term of a score. counts: whether it is the strongest of its source class.

    points: what it adds, or would add. decay: 1 when fresh, towards 0.
    """

    detection_id: str
    name: str
    issuer: str
    source_class: str
    points: float
    decay: float
    reliability: float
    counts: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """A score, and the terms that add up to it together with the prior; the strongest first."""

    score: float
    prior: float
    terms: tuple[RankingTerm, ...]


def _log_odds(probability: float) -> float:
    return math.log(probability / (1 - probability))


PRIOR_LOG_ODDS: Final = _log_odds(PRIOR)
_UNJUDGED: Final = Reliability()


def rank(
    counted: Iterable[tuple[Detection, Level]],
    *,
    reliability: Mapping[str, Reliability],
    now: datetime,
) -> Ranking:
    """Return the score of the detections that count, each with the level it counts for.

    reliability: by issuer; an issuer that is missing was not judged. Order does not matter. Raises
    nothing.
    """
    weighed: list[tuple[float, Detection, float, float]] = []
    for detection, level in counted:
        decay = _decay(detection, level, now)
        trust = reliability.get(detection.issuer, _UNJUDGED).weight
        points = round(SEVERITY[level] * detection.confidence * decay * trust, SCORE_DIGITS)
        weighed.append((points, detection, decay, trust))
    weighed.sort(key=lambda each: (-each[0], each[1].detection_id))
    seen: set[str] = set()
    terms: list[RankingTerm] = []
    for points, detection, decay, trust in weighed:
        terms.append(
            RankingTerm(
                detection_id=detection.detection_id,
                name=detection.name,
                issuer=detection.issuer,
                source_class=detection.source_class,
                points=points,
                decay=round(decay, SCORE_DIGITS),
                reliability=round(trust, SCORE_DIGITS),
                counts=detection.source_class not in seen,
            )
        )
        seen.add(detection.source_class)
    prior = round(PRIOR_LOG_ODDS, SCORE_DIGITS)
    total = math.fsum([prior, *(each.points for each in terms if each.counts)])
    return Ranking(score=round(total, SCORE_DIGITS), prior=prior, terms=tuple(terms))


def claimed_score(counted: Iterable[tuple[Detection, Level]], now: datetime) -> float:
    """Return the score of `rank` when nobody judged any issuer; it is asked for all the time."""
    strongest: dict[str, float] = {}
    for detection, level in counted:
        points = SEVERITY[level] * detection.confidence * _decay(detection, level, now)
        points = round(points, SCORE_DIGITS)
        if points > strongest.get(detection.source_class, 0.0):
            strongest[detection.source_class] = points
    return round(
        math.fsum([round(PRIOR_LOG_ODDS, SCORE_DIGITS), *strongest.values()]), SCORE_DIGITS
    )


def _decay(detection: Detection, level: Level, now: datetime) -> float:
    """Return what is left of the evidence; that of a floor stays whole until it is remedied."""
    if catalogue.finding_type(detection.name).floor:
        return 1.0
    age = max(now - detection.occurred_at, timedelta())
    return float(0.5 ** (age / HALF_LIFE[level]))
