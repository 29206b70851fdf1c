"""The run: rounds fixed beforehand, peers interleaved, every measurement between two controls."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

import machine
from figures import is_disturbed
from pair import Broken
from peers import Peer
from scenarios import Bench, Scenario

# A disturbed measurement is repeated this often at most.
REPEATS = 3
# Control measurements before the first round, for a median to compare with.
FIRST_CONTROLS = 7


@dataclass
class Measurement:
    """One line of results.json. The state is ok, disturbed, failed or missing."""

    round: int
    scenario: str
    peer: str
    state: str
    reason: str = ""
    attempt: int = 1
    figures: dict[str, float] = field(default_factory=dict)
    controls: list[float] = field(default_factory=list)
    raw: dict[str, object] = field(default_factory=dict)


class Run:
    """A run with its control measurements."""

    def __init__(self, bench: Bench, peers: list[Peer], scenarios: list[Scenario], rounds: int) -> None:
        self.bench = bench
        self.peers = peers
        self.scenarios = scenarios
        self.rounds = rounds
        self.controls = [spin(bench.binary) for _ in range(FIRST_CONTROLS)]
        self.measurements: list[Measurement] = []

    def perform(self, after_round: Callable[[], None]) -> None:
        """All rounds. In each, each scenario meets each peer, in an order that rotates."""
        present = [peer for peer in self.peers if peer.missing() is None]
        for round_number in range(1, self.rounds + 1):
            shift = (round_number - 1) % max(len(present), 1)
            for scenario in self.scenarios:
                for peer in present[shift:] + present[:shift]:
                    self._measure(round_number, scenario, peer)
            self.mark()
            after_round()

    def _measure(self, round_number: int, scenario: Scenario, peer: Peer) -> None:
        unfit = scenario.unfit(peer)
        if unfit is not None:
            if unfit:
                self._keep(Measurement(round_number, scenario.name, peer.name, "missing", unfit))
            return
        for attempt in range(1, REPEATS + 2):
            found = self._attempt(round_number, scenario, peer)
            found.attempt = attempt
            if found.state != "disturbed" or attempt > REPEATS:
                break
            say(found)
        self._keep(found)

    def _attempt(self, round_number: int, scenario: Scenario, peer: Peer) -> Measurement:
        found = Measurement(round_number, scenario.name, peer.name, "ok")
        found.controls.append(spin(self.bench.binary))
        try:
            outcome = scenario.run(self.bench, peer)
        except (Broken, OSError, subprocess.TimeoutExpired) as error:
            found.state, found.reason = "failed", str(error)
        else:
            found.figures, found.raw = outcome.figures, outcome.raw
            if outcome.errors:
                found.state = "failed"
                found.reason = f"{outcome.errors} errors, the first: {outcome.raw.get('firstError')}"
        found.controls.append(spin(self.bench.binary))
        self.controls += found.controls
        if found.state == "ok" and is_disturbed(found.controls, median(self.controls)):
            found.state = "disturbed"
        return found

    def _keep(self, found: Measurement) -> None:
        self.measurements.append(found)
        say(found)

    def mark(self) -> None:
        """Judges every measurement again, by the median of all controls so far."""
        baseline = median(self.controls)
        for found in self.measurements:
            if found.state in ("ok", "disturbed"):
                found.state = "disturbed" if is_disturbed(found.controls, baseline) else "ok"

    def results(self) -> list[dict[str, object]]:
        """Everything, for a file."""
        return [asdict(found) for found in self.measurements]


def spin(bench: Path) -> float:
    """Seconds for a fixed amount of work on the core of the proxies, while they do not run."""
    with machine.on_cores(frozenset({machine.PROXY_CORE})):
        done = subprocess.run([str(bench), "spin"], capture_output=True, text=True, check=True, timeout=60)
    return float(done.stdout)


def say(found: Measurement) -> None:
    """One line of progress."""
    shown = [f"{name} {value:.4g}" for name, value in list(found.figures.items())[:4]]
    text = f"{time.strftime('%H:%M:%S')} round {found.round} {found.scenario} {found.peer}: {found.state}"
    print(text, *shown, found.reason, file=sys.stderr, flush=True)
