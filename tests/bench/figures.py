"""Medians, paired ratios and the rule of disturbed rounds: numbers in, numbers out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

# A control measurement off by more than this share of the run's median marks a disturbance.
TOLERANCE = 0.25


@dataclass(frozen=True)
class Spread:
    """A median with the least and the greatest, and how many values they stand on."""

    median: float
    least: float
    greatest: float
    count: int


def spread(values: Sequence[float]) -> Spread | None:
    """The spread of `values`; nothing of nothing."""
    if not values:
        return None
    return Spread(median(values), min(values), max(values), len(values))


def paired_ratios(ours: Mapping[int, float], theirs: Mapping[int, float]) -> list[float]:
    """Ours over theirs, round by round, in the rounds that have both."""
    rounds = sorted(ours.keys() & theirs.keys())
    return [ours[number] / theirs[number] for number in rounds if theirs[number] > 0]


def paired_differences(ours: Mapping[int, float], theirs: Mapping[int, float]) -> dict[int, float]:
    """Ours less theirs, in the rounds that have both."""
    return {number: ours[number] - theirs[number] for number in ours.keys() & theirs.keys()}


def is_disturbed(controls: Sequence[float], baseline: float) -> bool:
    """Whether any control measurement is off the baseline by more than the tolerance."""
    return any(abs(control / baseline - 1) > TOLERANCE for control in controls)
