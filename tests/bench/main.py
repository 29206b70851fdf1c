"""The benchmark's command line: what to measure, where to put it."""

from __future__ import annotations

import argparse
import json
import os
import resource
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import machine
import peers
import report
from measure import Run
from pair import running_backend
from scenarios import Bench, Scenario, choose


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="tests/bench/run", description="Pairs of sidecars, side by side.")
    parser.add_argument(
        "--peers",
        default="selvage,envoy,haproxy,nginx,direct",
        help="KIND, KIND=BINARY or KIND:NAME=BINARY, separated by commas; the first is compared with the others",
    )
    parser.add_argument("--scenarios", help="names or groups, separated by commas (see --list)")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--settle", type=float, default=6.0, help="seconds before memory is read")
    parser.add_argument(
        "--bin", type=Path, help="another selvage-proxy for the peer `selvage`; paths count from the checkout"
    )
    parser.add_argument("--out", type=Path, default=peers.TARGET / "bench" / "results")
    parser.add_argument("--no-build", action="store_true", help="measure what is built already")
    parser.add_argument("--list", action="store_true", help="the scenarios, and which peers are missing")
    parser.add_argument("--report-only", type=Path, metavar="FILE", help="tables and plots of an earlier results.json")
    parser.add_argument("--update-readme", action="store_true", help="writes the tables into tests/bench/README.md")
    return parser.parse_args()


def main() -> int:
    """Measures and reports; 1 when a measurement failed, 2 for wrong usage."""
    options = arguments()
    try:
        chosen = choose(options.scenarios)
        wanted = peers.parse(options.peers, options.bin)
    except ValueError as error:
        print(f"tests/bench/run: {error}", file=sys.stderr)
        return 2
    if options.list:
        show(chosen, wanted)
        return 0
    options.out.mkdir(parents=True, exist_ok=True)
    if options.report_only:
        results = json.loads(options.report_only.read_text())
    else:
        results = measure(options, chosen, wanted)
    report.write(results, options.out, options.update_readme)
    return 1 if any(found["state"] == "failed" for found in results["measurements"]) else 0


def show(chosen: list[Scenario], wanted: list[peers.Peer]) -> None:
    """The scenarios by group, and what is missing."""
    for scenario in chosen:
        print(f"{scenario.group:12} {scenario.name:16} {scenario.title}")
    for peer in wanted:
        reasons = {peer.missing(), *(scenario.unfit(peer) for scenario in chosen)}
        for reason in sorted(reason for reason in reasons if reason):
            print(f"missing: {reason}")


def measure(options: argparse.Namespace, chosen: list[Scenario], wanted: list[peers.Peer]) -> dict[str, object]:
    """The whole run; results.json is written after each round."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    os.sched_setaffinity(0, {machine.LOAD_CORE})
    binary = peers.TARGET / "shipped" / "bench-load"
    for peer in wanted:
        if peer.missing():
            print(f"missing: {peer.missing()}", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        certificates(binary, folder)
        allocator = machine.PortAllocator()
        with running_backend(binary, allocator, folder) as ports:
            bench = Bench(binary, {**ports, "pki": str(folder)}, allocator, folder, options.seconds, options.settle)
            run = Run(bench, wanted, chosen, options.rounds)
            results: dict[str, object] = {"about": about(options, wanted, chosen)}

            def save() -> None:
                results["controls"] = run.controls
                results["measurements"] = run.results()
                (options.out / "results.json").write_text(json.dumps(results, indent=1))

            run.perform(save)
            save()
            return results


def certificates(binary: Path, folder: Path) -> None:
    """Certificates of this run; HAProxy takes certificate and key in one file."""
    subprocess.run([str(binary), "pki", str(folder)], check=True, timeout=60)
    for key in folder.glob("*.key"):
        both = key.with_suffix(".pem").read_text() + key.read_text()
        key.with_suffix(".both").write_text(both)


def about(options: argparse.Namespace, wanted: list[peers.Peer], chosen: list[Scenario]) -> dict[str, object]:
    """What the figures depend on."""
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "machine": machine.describe(),
        "command": "tests/bench/run " + shlex.join(sys.argv[1:]),
        "rounds": options.rounds,
        "seconds": options.seconds,
        "settle": options.settle,
        "scenarios": [scenario.name for scenario in chosen],
        "peers": [
            {
                "name": peer.name,
                "kind": peer.kind_name,
                "missing": peer.missing(),
                "version": None if peer.missing() else peer.version(),
            }
            for peer in wanted
        ],
    }


if __name__ == "__main__":
    sys.exit(main())
