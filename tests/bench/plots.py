"""Plots as SVG: medians as bars or lines, least to greatest as whiskers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from figures import Spread
from scenarios import SCENARIOS
from series import Series

COLOURS = ["#1b6ca8", "#c2572b", "#4c9a2a", "#7d5ba6", "#b8860b", "#5c6670"]


def draw(series: Series, folder: Path) -> dict[str, str]:
    """Draws what was measured; file names with titles. Without matplotlib it says so and draws none."""
    try:
        import matplotlib
    except ImportError:
        print("plots are missing: pip install matplotlib (tests/bench/run does it)", file=sys.stderr)
        return {}
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "bench"
    folder.mkdir(parents=True, exist_ok=True)
    bars = {
        "cpu-per-request.svg": (
            "CPU per request, both proxies, µs",
            ["http1", "http2", "grpc", "connect"],
            "cpuMicros",
        ),
        "cpu-at-rate.svg": ("CPU per request at a fixed rate, µs", ["rate-1000", "rate-5000"], "cpuMicros"),
        "added-p50.svg": ("Added latency, p50, ms", ["rate-1000", "rate-5000"], "added.p50"),
        "added-p99.svg": ("Added latency, p99, ms", ["rate-1000", "rate-5000"], "added.p99"),
        "cpu-per-gib.svg": ("CPU seconds per GiB", ["bodies", "tcp-down", "tcp-up"], "cpuPerGib"),
    }
    drawn = {}
    for name, (title, scenarios, figure) in bars.items():
        if _bars(series, folder / name, title, scenarios, figure):
            drawn[name] = title
    if _memory(series, folder / "memory.svg"):
        drawn["memory.svg"] = "Resident memory of a pair by idle connections, MiB"
    if _scale(series, folder / "scale.svg"):
        drawn["scale.svg"] = "CPU per request of the caller's side by services, routes and endpoints, µs"
    return drawn


def _axes(title: str) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#dddddd")
    axes.set_axisbelow(True)
    return figure, axes


def _whiskers(spreads: list[Spread]) -> list[list[float]]:
    return [[one.median - one.least for one in spreads], [one.greatest - one.median for one in spreads]]


def _save(figure: Any, axes: Any, path: Path) -> bool:
    axes.set_ylim(bottom=0)
    # Below: above, it would hide what is tall.
    axes.legend(frameon=False, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.08))
    figure.savefig(path, metadata={"Date": None})
    return True


def _proxies(series: Series) -> list[str]:
    return [peer["name"] for peer in series.about["peers"] if peer["kind"] != "direct"]


def _bars(series: Series, path: Path, title: str, scenarios: list[str], figure: str) -> bool:
    present = [name for name in scenarios if series.has(name)]
    peers = [peer for peer in _proxies(series) if any(series.spread(name, peer, figure) for name in present)]
    if not peers:
        return False
    drawing, axes = _axes(title)
    width = 0.8 / len(peers)
    for index, peer in enumerate(peers):
        found = [(at, series.spread(name, peer, figure)) for at, name in enumerate(present)]
        shown = [(at, one) for at, one in found if one]
        spreads = [one for _, one in shown]
        places = [at + (index - (len(peers) - 1) / 2) * width for at, _ in shown]
        heights = [one.median for one in spreads]
        axes.bar(
            places,
            heights,
            width * 0.9,
            yerr=_whiskers(spreads),
            label=peer,
            color=COLOURS[index % len(COLOURS)],
            error_kw={"elinewidth": 1, "capsize": 2},
        )
    axes.set_xticks(range(len(present)), present)
    return _save(drawing, axes, path)


def _lines(axes: Any, label: str, points: list[tuple[float, Spread]], colour: str) -> None:
    spreads = [one for _, one in points]
    axes.errorbar(
        [at for at, _ in points],
        [one.median for one in spreads],
        yerr=_whiskers(spreads),
        label=label,
        color=colour,
        marker="o",
        capsize=2,
    )


def _memory(series: Series, path: Path) -> bool:
    drawing, axes = _axes("Resident memory of a pair by idle connections, MiB")
    steps = {0: "restMib", 1000: "mib1000", 5000: "mib5000"}
    any_drawn = False
    for index, peer in enumerate(_proxies(series)):
        found = [(at, series.spread("idle", peer, figure)) for at, figure in steps.items()]
        points = [(float(at), one) for at, one in found if one]
        if points:
            any_drawn = True
            _lines(axes, peer, points, COLOURS[index % len(COLOURS)])
    return any_drawn and _save(drawing, axes, path)


def _scale(series: Series, path: Path) -> bool:
    drawing, axes = _axes("CPU per request of the caller's side by services, routes and endpoints, µs")
    axes.set_xscale("log")
    index = 0
    for peer in _proxies(series):
        for what in ("services", "routes", "endpoints"):
            names = [one.name for one in SCENARIOS if one.name.startswith(f"{what}-")]
            found = [(float(name.split("-")[1]), series.spread(name, peer, "cpuMicros")) for name in names]
            points = [(at, one) for at, one in found if one]
            if len(points) > 1:
                _lines(axes, f"{peer}, {what}", points, COLOURS[index % len(COLOURS)])
                index += 1
    return index > 0 and _save(drawing, axes, path)
