"""Tables in Markdown: what was wanted, then every group with its spread."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import plots
from figures import Spread
from peers import HERE
from scenarios import SCENARIOS, Scenario
from series import Series
from targets import TARGETS, Target

BEGIN = "<!-- results: begin -->"
END = "<!-- results: end -->"


@dataclass(frozen=True)
class Column:
    """One figure of a table; `compared` is also shown as a ratio to the reference."""

    title: str
    figure: str
    compared: bool = False


PER_REQUEST = [
    Column("CPU µs per request", "cpuMicros", compared=True),
    Column("user", "userMicros"),
    Column("kernel", "kernelMicros"),
    Column("requests per second", "perSecond"),
]
COLUMNS: dict[str, list[Column]] = {
    "saturation": PER_REQUEST,
    "connections": PER_REQUEST,
    "workers": PER_REQUEST,
    "rate": [
        Column("CPU µs per request", "cpuMicros", compared=True),
        Column("added p50, ms", "added.p50", compared=True),
        Column("added p99, ms", "added.p99", compared=True),
        Column("added p99.9, ms", "added.p999"),
        Column("generator's lag p99, ms", "lagP99"),
        Column("requests per second", "perSecond"),
    ],
    "bytes": [Column("CPU s per GiB", "cpuPerGib", compared=True), Column("GiB per second", "gibPerSecond")],
    "handshakes": [Column("per CPU second of the inbound side", "perCpuSecond", compared=True)],
    "memory": [
        Column("pair at rest, MiB resident", "restMib", compared=True),
        Column("… proportional", "restPssMib"),
        Column("with 1,000, MiB", "mib1000"),
        Column("with 5,000, MiB", "mib5000"),
        Column("KiB per connection, pair", "kibPer5000", compared=True),
        Column("… of the outbound side alone", "kibOutboundPer5000"),
    ],
    "start-up": [Column("ms", "startMillis", compared=True)],
    "scale": [
        Column("CPU µs per request", "cpuMicros"),
        Column("MiB resident after the load", "rssMib"),
        Column("start-up, ms", "startMillis"),
    ],
}
TITLES = {
    "saturation": "Saturation",
    "rate": "Fixed rate: latency added to a direct call",
    "bytes": "Bytes",
    "connections": "One connection per request",
    "handshakes": "Handshakes",
    "memory": "Memory",
    "start-up": "Start-up",
    "workers": "Workers",
    "scale": "Scale: the caller's side alone, plaintext to the backend",
}


def write(results: Mapping[str, object], folder: Path, update_readme: bool) -> None:
    """Writes table.md and plots/, and the README's part when wanted."""
    series = Series(results)
    text = "\n".join([*head(series), *checklist(series), *groups(series)])
    (folder / "table.md").write_text(text)
    drawn = plots.draw(series, folder / "plots")
    if update_readme:
        readme = HERE / "README.md"
        plots.draw(series, HERE / "plots")
        pictures = [f"![{title}](plots/{name})" for name, title in drawn.items()]
        readme.write_text(replaced(readme.read_text(), "\n\n".join([text, *pictures])))
    print(text)


def replaced(text: str, results: str) -> str:
    """The README with its part between the markers replaced."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"tests/bench/README.md has lost its markers {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{results}\n{END}{after}"


def head(series: Series) -> list[str]:
    """When, where, what, and what is missing."""
    about = series.about
    machine = about["machine"]
    versions = ", ".join(f"{peer['name']}: {peer['version']}" for peer in about["peers"] if peer["version"])
    disturbed = sum(one["state"] == "disturbed" for one in series.measurements)
    lines = [
        f"Measured {about['date']} on {machine['cores']} cores ({machine['processor']}), {machine['memoryMiB']} MiB, "
        f"Linux {machine['kernel']}, {machine['system']}.",
        "",
        f"- {versions}",
        f"- `{about['command']}`: {about['rounds']} rounds of {about['seconds']:g} s per measurement",
        f"- {len(series.measurements)} measurements, {disturbed} disturbed even when repeated (left out)",
    ]
    lines += [f"- **missing**: {reason}" for reason in series.missing.values()]
    return [*lines, ""]


def checklist(series: Series) -> list[str]:
    """The targets with what was measured."""
    rows = [row for target in TARGETS if series.has(target.scenario) for row in [target_row(series, target)]]
    if not rows:
        return []
    return ["### What is wanted", "", *table(["what", "wanted", "measured", ""], rows)]


def target_row(series: Series, target: Target) -> list[str]:
    """One line of the checklist."""
    value = target.value(series)
    wanted = f"{'≥' if target.at_least else '≤'} {target.bound:g}"
    verdict = "not measured" if value is None else "met" if target.is_met(value) else "**not met**"
    return [target.text, wanted, shown(value), verdict]


def groups(series: Series) -> list[str]:
    """A section for each group that was measured."""
    lines: list[str] = []
    for group, title in TITLES.items():
        chosen = [one for one in SCENARIOS if one.group == group and series.has(one.name)]
        if not chosen:
            continue
        lines += [f"### {title}", ""]
        if group == "scale":
            lines += scale(series, chosen)
        else:
            for scenario in chosen:
                lines += section(series, scenario)
        if group == "workers" and len(chosen) > 1:
            lines += workers(series)
    return lines


def section(series: Series, scenario: Scenario) -> list[str]:
    """One scenario: a row per peer."""
    columns = COLUMNS[scenario.group]
    compared = [column for column in columns if column.compared]
    ours = series.reference
    titles = ["peer", *(column.title for column in columns)]
    titles += [f"{ours} ÷ peer: {column.title}" if len(compared) > 1 else f"{ours} ÷ peer" for column in compared]
    rows = [row(series, scenario, peer, columns) for peer in series.peers if is_shown(scenario, series, peer)]
    return [f"**{scenario.title}** (`{scenario.name}`)", "", *table([*titles, "rounds"], rows)]


def is_shown(scenario: Scenario, series: Series, peer: str) -> bool:
    """All peers but those of which nothing is expected here."""
    kind = next(one["kind"] for one in series.about["peers"] if one["name"] == peer)
    return scenario.direct if kind == "direct" else True


def row(series: Series, scenario: Scenario, peer: str, columns: list[Column]) -> list[str]:
    """One peer: its figures, and the reference's ratio to it."""
    cells = [shown(series.spread(scenario.name, peer, column.figure)) for column in columns]
    if peer == "direct":
        keep = {"perSecond", "lagP99"}
        cells = [cell if column.figure in keep else "–" for cell, column in zip(cells, columns, strict=True)]
    for column in columns:
        if column.compared:
            own = peer in (series.reference, "direct")
            cells.append("–" if own else shown(series.ratio(scenario.name, peer, column.figure)))
    return [peer, *cells, state(series, scenario.name, peer)]


def state(series: Series, scenario: str, peer: str) -> str:
    """How many rounds count, and why the others do not."""
    counts = series.counts(scenario, peer)
    if counts.missing:
        return f"missing: {counts.reason}"
    parts = [f"{counts.ok}"]
    if counts.disturbed:
        parts.append(f"{counts.disturbed} disturbed")
    if counts.failed:
        parts.append(f"**{counts.failed} failed** ({one_line(counts.reason)})")
    return ", ".join(parts)


def one_line(text: str) -> str:
    """A reason that fits into a cell."""
    flat = " ".join(text.replace("|", "/").split())
    return flat if len(flat) <= 120 else flat[:117] + "…"


def workers(series: Series) -> list[str]:
    """Two workers over one, of the same round."""
    rows = [
        [peer, shown(series.growth(peer, "cpuMicros", "workers-2", "workers-1"))]
        for peer in series.peers
        if peer != "direct"
    ]
    return ["**Two workers ÷ one, CPU per request**", "", *table(["peer", "ratio"], rows)]


def scale(series: Series, chosen: list[Scenario]) -> list[str]:
    """How figures grow with the number of services, routes and endpoints."""
    columns = COLUMNS["scale"]
    rows = []
    for peer in series.peers:
        for scenario in chosen:
            if series.counts(scenario.name, peer) == series.counts("", ""):
                continue
            base = scenario.name.split("-")[0] + "-1"
            cells = [shown(series.spread(scenario.name, peer, column.figure)) for column in columns]
            growth = "–" if scenario.name == base else shown(series.growth(peer, "cpuMicros", scenario.name, base))
            rows.append([peer, scenario.title, *cells, growth, state(series, scenario.name, peer)])
    titles = ["peer", "", *(column.title for column in columns), "CPU ÷ that of 1", "rounds"]
    return table(titles, rows)


def shown(value: Spread | None) -> str:
    """A median with its spread."""
    if value is None:
        return "–"
    return f"{digits(value.median)} ({digits(value.least)}–{digits(value.greatest)})"


def digits(value: float) -> str:
    """Three digits that mean something."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def table(titles: list[str], rows: list[list[str]]) -> list[str]:
    """A table in Markdown."""
    lines = ["| " + " | ".join(titles) + " |", "|" + " --- |" * len(titles)]
    return [*lines, *("| " + " | ".join(cells) + " |" for cells in rows), ""]
