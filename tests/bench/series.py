"""Measurements as series: what was measured, by scenario, peer and round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from figures import Spread, paired_differences, paired_ratios, spread

# Percentiles of which the direct ones are taken away, round by round.
ADDED = ("p50", "p99", "p999")


@dataclass(frozen=True)
class Counts:
    """How many measurements of one peer in one scenario ended how."""

    ok: int
    disturbed: int
    failed: int
    missing: int
    reason: str


class Series:
    """The figures of one results.json. Only undisturbed measurements without errors count."""

    def __init__(self, results: Mapping[str, object]) -> None:
        self.about: dict = results["about"]  # type: ignore[assignment,type-arg]
        self.measurements: list[dict] = results["measurements"]  # type: ignore[assignment,type-arg]
        self.peers = [peer["name"] for peer in self.about["peers"]]
        self.missing = {peer["name"]: peer["missing"] for peer in self.about["peers"] if peer["missing"]}

    @property
    def reference(self) -> str:
        """The peer that the others are compared with: the first."""
        return str(self.peers[0])

    def rounds(self, scenario: str, peer: str, figure: str) -> dict[int, float]:
        """One figure by round. `added.p50` is p50 less that of direct in the same round."""
        kind, _, name = figure.partition(".")
        if kind == "added":
            own, direct = (self.rounds(scenario, who, name) for who in (peer, "direct"))
            return paired_differences(own, direct)
        return {
            found["round"]: found["figures"][figure]
            for found in self._of(scenario, peer)
            if found["state"] == "ok" and figure in found["figures"]
        }

    def _of(self, scenario: str, peer: str) -> list[dict]:  # type: ignore[type-arg]
        return [one for one in self.measurements if one["scenario"] == scenario and one["peer"] == peer]

    def spread(self, scenario: str, peer: str, figure: str) -> Spread | None:
        """A figure over all rounds."""
        return spread(list(self.rounds(scenario, peer, figure).values()))

    def ratio(self, scenario: str, peer: str, figure: str) -> Spread | None:
        """The reference over a peer, paired by round."""
        ours = self.rounds(scenario, self.reference, figure)
        return spread(paired_ratios(ours, self.rounds(scenario, peer, figure)))

    def growth(self, peer: str, figure: str, scenario: str, base: str) -> Spread | None:
        """One scenario over another of the same peer, paired by round."""
        return spread(paired_ratios(self.rounds(scenario, peer, figure), self.rounds(base, peer, figure)))

    def counts(self, scenario: str, peer: str) -> Counts:
        """How its measurements ended."""
        found = self._of(scenario, peer)
        states = [one["state"] for one in found]
        reason = next((one["reason"] for one in found if one["reason"]), self.missing.get(peer) or "")
        return Counts(
            ok=states.count("ok"),
            disturbed=states.count("disturbed"),
            failed=states.count("failed"),
            missing=states.count("missing") + (peer in self.missing),
            reason=reason,
        )

    def has(self, scenario: str) -> bool:
        """Whether anything was measured there."""
        return any(one["scenario"] == scenario for one in self.measurements)
