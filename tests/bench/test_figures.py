"""The numbers behind the tables: `python3 -m unittest discover tests/bench`."""

from __future__ import annotations

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import order
import peers
import report
from figures import TOLERANCE, Spread, is_disturbed, paired_differences, paired_ratios, spread
from scenarios import SCENARIOS, choose, idle_figures, per_request
from series import Series
from targets import TARGETS


def one(round_number: int, peer: str, value: float, state: str = "ok") -> dict[str, object]:
    """A measurement of the first scenario."""
    figures = {"cpuMicros": value, "p50": value}
    return {"round": round_number, "scenario": "http1", "peer": peer, "state": state, "reason": "", "figures": figures}


def series(*measurements: dict[str, object]) -> Series:
    """Three peers with these measurements."""
    about = {"peers": [{"name": name, "kind": name, "missing": None} for name in ("selvage", "nginx", "direct")]}
    return Series({"about": about, "measurements": list(measurements)})


PROFILE = """# IR level Instrumentation Flag
:ir
_once
# Func Hash:
17
# Num Counters:
2
# Counter Values:
0
1

main.rs;_often
# Func Hash:
18
# Num Counters:
1
# Counter Values:
900

_never
# Func Hash:
19
# Num Counters:
1
# Counter Values:
0

"""


class Figures(unittest.TestCase):
    """Numbers in, numbers out."""

    def test_functions_that_ran_are_ordered_by_how_often(self) -> None:
        self.assertEqual(order.order(PROFILE), ["_often", "_once"])

    def test_functions_seen_at_rest_stand_before_those_of_load(self) -> None:
        lines = ["fl=(1) ring.c", "fn=(1) _once", "cfn=(2) of_c'2", "fn=(3) 0x4001000", "fn=(4) (below main)"]
        calls = "\n".join(lines)
        at_rest = order.seen(calls)
        self.assertEqual(at_rest, {"_once", "of_c"})
        self.assertEqual(order.order(PROFILE, at_rest), ["_once", "of_c", "_often"])

    def test_a_spread_is_median_least_and_greatest(self) -> None:
        self.assertEqual(spread([3.0, 1.0, 2.0]), Spread(2.0, 1.0, 3.0, 3))
        self.assertEqual(spread([4.0, 1.0]), Spread(2.5, 1.0, 4.0, 2))
        self.assertIsNone(spread([]))

    def test_ratios_pair_the_same_round(self) -> None:
        # Both are slow in round 2: each alone varies threefold, the ratio does not.
        self.assertEqual(paired_ratios({1: 10.0, 2: 30.0}, {1: 20.0, 2: 60.0}), [0.5, 0.5])

    def test_a_round_that_one_lacks_has_no_ratio(self) -> None:
        self.assertEqual(paired_ratios({1: 10.0, 3: 30.0}, {2: 20.0, 3: 60.0}), [0.5])
        self.assertEqual(paired_ratios({1: 1.0}, {1: 0.0}), [])

    def test_differences_pair_the_same_round(self) -> None:
        self.assertEqual(paired_differences({1: 3.0, 2: 5.0}, {1: 1.0}), {1: 2.0})

    def test_a_control_off_by_more_than_a_quarter_disturbs(self) -> None:
        for controls, disturbed in (([0.1, 0.1], False), ([0.124, 0.076], False), ([0.1, 0.13], True), ([0.07], True)):
            self.assertEqual(is_disturbed(controls, 0.1), disturbed, controls)
        self.assertEqual(TOLERANCE, 0.25)

    def test_cpu_is_split_as_the_ticks_say(self) -> None:
        cpu = {"total": 2.0, "user": 0.5, "kernel": 1.5}
        figures = per_request({"requests": 1_000_000, "seconds": 4.0, "cpu": cpu})
        self.assertEqual(figures["cpuMicros"], 2.0)
        self.assertEqual((figures["userMicros"], figures["kernelMicros"]), (0.5, 1.5))
        self.assertEqual(figures["perSecond"], 250_000)

    def test_idle_memory_is_growth_per_connection(self) -> None:
        def kib(value: float) -> dict[str, float]:
            return {"rssKiB": value, "pssKiB": value}

        figures = idle_figures([(0, kib(2048), kib(1024)), (1000, kib(10_048), kib(8024))])
        self.assertEqual(figures["restMib"], 2.0)
        self.assertEqual((figures["kibPer1000"], figures["kibOutboundPer1000"]), (8.0, 7.0))


class Tables(unittest.TestCase):
    """What is shown, and what is left out."""

    def test_disturbed_and_failed_rounds_do_not_count_but_are_named(self) -> None:
        found = series(one(1, "selvage", 1.0), one(2, "selvage", 9.0, "disturbed"), one(3, "selvage", 9.0, "failed"))
        self.assertEqual(found.spread("http1", "selvage", "cpuMicros"), Spread(1.0, 1.0, 1.0, 1))
        self.assertEqual(report.state(found, "http1", "selvage"), "1, 1 disturbed, **1 failed** ()")

    def test_added_latency_is_less_the_direct_one_of_the_round(self) -> None:
        found = series(one(1, "selvage", 5.0), one(2, "selvage", 9.0), one(1, "direct", 2.0), one(2, "direct", 3.0))
        self.assertEqual(found.rounds("http1", "selvage", "added.p50"), {1: 3.0, 2: 6.0})

    def test_targets_name_scenarios_that_exist(self) -> None:
        names = {scenario.name for scenario in SCENARIOS}
        for target in TARGETS:
            self.assertIn(target.scenario, names)
            self.assertIn(target.base or target.scenario, names)
            self.assertIn(target.peer or "selvage", peers.KINDS)

    def test_only_what_is_between_the_markers_is_replaced(self) -> None:
        text = f"a\n{report.BEGIN}\nold\n{report.END}\nz\n"
        self.assertEqual(report.replaced(text, "new"), f"a\n{report.BEGIN}\nnew\n{report.END}\nz\n")
        self.assertRaises(ValueError, report.replaced, "nothing", "new")


class CommandLine(unittest.TestCase):
    """Peers and scenarios by name."""

    def test_two_builds_are_two_peers(self) -> None:
        own, other = peers.parse("selvage,selvage:other=/bin/true", Path("/bin/false"))
        self.assertEqual((own.name, str(own.binary)), ("selvage", str(Path("/bin/false").resolve())))
        self.assertEqual((other.name, str(other.binary)), ("other", str(Path("/bin/true").resolve())))
        self.assertRaises(ValueError, peers.parse, "selvage,selvage=/bin/true", None)
        self.assertRaises(ValueError, peers.parse, "squid", None)

    def test_a_missing_binary_is_named_with_how_to_get_it(self) -> None:
        (peer,) = peers.parse("haproxy=/nowhere/haproxy", None)
        self.assertIn("apt-get install haproxy", peer.missing() or "")

    def test_groups_stand_for_their_scenarios(self) -> None:
        self.assertEqual([one.name for one in choose("rate")], ["rate-1000", "rate-5000"])
        self.assertRaises(ValueError, choose, "nonsense")

    def test_templates_know_every_name(self) -> None:
        self.assertEqual(peers.fill("a @b_c@ d", {"b_c": 7}), "a 7 d")
        self.assertRaises(KeyError, peers.fill, "@unknown@", {})


if __name__ == "__main__":
    unittest.main()
