"""The scenarios: each starts a fresh pair, puts one kind of load on it, and returns figures."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import machine
from pair import Alone, Broken, Pair, running_pair
from peers import Peer

GIB = 2**30
MIB_IN_KIB = 1024.0
BODY = 10 * 2**20
IDLE_STEPS = (1000, 4000)

# Requests to many services or routes are spread over as many of them as there are, up to this.
SPREAD = 100
# Percentiles at a low rate need more requests than the usual length has.
RATE_TIMES = 3
# So that each of 10,000 endpoints has had its connection before anything is counted.
LONG_WARMUP = 8.0

Raw = dict[str, object]
Figures = dict[str, float]


@dataclass(frozen=True)
class Bench:
    """What all measurements share."""

    binary: Path
    values: Mapping[str, str | int]
    allocator: machine.PortAllocator
    pki: Path
    seconds: float
    settle: float

    def load(self, pair: Pair, command: list[str], pids: list[int], warmup: float = 0.5, times: int = 1) -> Raw:
        """Runs the load generator to its end, for so many times the usual length: what it printed."""
        seconds = self.seconds * times
        text = [str(self.binary), *command, "--warmup", str(warmup), "--seconds", str(seconds)]
        text += ["--pids", ",".join(map(str, pids))] if pids else []
        limit = warmup + seconds + 60
        done = subprocess.run(text, capture_output=True, text=True, timeout=limit, check=False)
        if done.returncode != 0:
            raise Broken(f"{command[0]}: {done.stderr.strip()}; {pair.said()}")
        raw: Raw = json.loads(done.stdout)
        return raw


@dataclass(frozen=True)
class Outcome:
    """What one measurement gave: figures, and everything they were made of."""

    figures: Figures
    raw: Raw

    @property
    def errors(self) -> int:
        """Requests that failed; any makes the measurement failed."""
        return int(number(self.raw, "errors")) if "errors" in self.raw else 0


@dataclass(frozen=True)
class Scenario:
    """One row of the plan."""

    name: str
    group: str
    title: str
    measure: Callable[[Bench, Pair], Outcome]
    # Which port a peer must have, and which ability.
    purpose: str = "http"
    workers: int = 1
    shared: bool = False
    direct: bool = False
    alone: Callable[[Mapping[str, str | int]], Alone] | None = None
    wait: bool = True

    def cores(self) -> frozenset[int]:
        """Where the proxies run."""
        return machine.BOTH_CORES if self.shared else frozenset({machine.PROXY_CORE})

    def unfit(self, peer: Peer) -> str | None:
        """Why this peer has no figure here; empty when it is not even expected to."""
        if peer.is_direct:
            return None if self.direct else ""
        if self.alone and peer.kind_name != "selvage":
            return ""
        return peer.lacks(self.purpose)

    def run(self, bench: Bench, peer: Peer) -> Outcome:
        """One measurement on a fresh pair."""
        values = {**bench.values, "workers": self.workers}
        alone = self.alone(values) if self.alone else None
        with running_pair(peer, values, bench.allocator, self.cores(), alone) as pair:
            if self.wait and not peer.is_direct:
                pair.wait()
            return self.measure(bench, pair)


def number(raw: Mapping[str, object], *path: str) -> float:
    """A number inside of what was printed."""
    value: object = raw
    for name in path:
        value = value[name]  # type: ignore[index]
    return float(value)  # type: ignore[arg-type]


def per_request(raw: Raw) -> Figures:
    """CPU microseconds per request with their split, and requests per second."""
    requests = number(raw, "requests")
    if requests == 0:
        raise Broken(f"no request was answered: {raw.get('firstError')}")
    total, user, kernel = (number(raw, "cpu", part) for part in ("total", "user", "kernel"))
    share = user / (user + kernel) if user + kernel else 0.0
    microseconds = total * 1e6 / requests
    return {
        "cpuMicros": microseconds,
        "userMicros": microseconds * share,
        "kernelMicros": microseconds * (1 - share),
        "perSecond": requests / number(raw, "seconds"),
    }


def latency(raw: Raw) -> Figures:
    """Percentiles in milliseconds."""
    return {name: number(raw, "latency", name) for name in ("p50", "p99", "p999")}


def closed_loop(command: list[str], purpose: str, warmup: float = 0.5) -> Callable[[Bench, Pair], Outcome]:
    """Saturation: as much as goes."""

    def measure(bench: Bench, pair: Pair) -> Outcome:
        full = [*command, "--target", pair.target(purpose)]
        raw = bench.load(pair, full, pair.pids(), warmup)
        return Outcome({**per_request(raw), **latency(raw), **resident(pair)}, raw)

    return measure


def resident(pair: Pair) -> Figures:
    """Memory right after the load, in MiB."""
    return {"rssMib": machine.memory(pair.pids())["rssKiB"] / MIB_IN_KIB}


def at_rate(rps: int) -> Callable[[Bench, Pair], Outcome]:
    """An open loop; latency counts from the moment a request should have been sent."""

    def measure(bench: Bench, pair: Pair) -> Outcome:
        command = ["rate", "--rps", str(rps), "--target", pair.target("http")]
        raw = bench.load(pair, command, pair.pids(), times=RATE_TIMES)
        figures = {**per_request(raw), **latency(raw), "lagP99": number(raw, "lag", "p99")}
        return Outcome(figures, raw)

    return measure


def bulk(command: list[str], purpose: str) -> Callable[[Bench, Pair], Outcome]:
    """Many bytes: CPU seconds per GiB."""

    def measure(bench: Bench, pair: Pair) -> Outcome:
        raw = bench.load(pair, [*command, "--target", pair.target(purpose)], pair.pids())
        gib = number(raw, "bytes") / GIB
        if gib == 0:
            raise Broken(f"no byte came through: {raw.get('firstError')}; {pair.said()}")
        figures = {"cpuPerGib": number(raw, "cpu", "total") / gib, "gibPerSecond": gib / number(raw, "seconds")}
        return Outcome(figures, raw)

    return measure


def handshakes(group: str) -> Callable[[Bench, Pair], Outcome]:
    """Full mutual handshakes at the server's side, per second of its CPU."""

    def measure(bench: Bench, pair: Pair) -> Outcome:
        kind = pair.peer.kind
        command = ["handshakes", "--target", pair.target("inbound"), "--sni", kind.sni, "--alpn", kind.alpn]
        command += ["--group", group, "--certificate", str(bench.pki / "client.pem")]
        command += ["--key", str(bench.pki / "client.key")]
        raw = bench.load(pair, command, pair.inbound_pids())
        done = number(raw, "requests")
        if done == 0:
            raise Broken(f"no handshake was finished: {raw.get('firstError')}; {pair.said()}")
        cpu = number(raw, "cpu", "total")
        figures = {"perCpuSecond": done / cpu, "perSecond": done / number(raw, "seconds")}
        return Outcome(figures, raw)

    return measure


def idle(bench: Bench, pair: Pair) -> Outcome:
    """Memory at rest, with 1,000 and with 5,000 idle connections."""
    holders: list[subprocess.Popen[str]] = []
    readings: list[tuple[int, dict[str, float], dict[str, float]]] = []

    def read(connections: int) -> None:
        time.sleep(bench.settle)
        readings.append((connections, machine.memory(pair.pids()), machine.memory(pair.outbound_pids())))

    try:
        read(0)
        held = 0
        for more in IDLE_STEPS:
            command = [str(bench.binary), "idle", "--connections", str(more), "--target", pair.target("http")]
            holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            holders.append(holder)
            if holder.stdout is None or "ready" not in holder.stdout.readline():
                raise Broken(f"{held + more} idle connections could not be opened: {pair.said()}")
            held += more
            read(held)
    finally:
        for holder in holders:
            holder.kill()
            holder.wait()
    return Outcome(idle_figures(readings), {"readings": readings})


def idle_figures(readings: list[tuple[int, dict[str, float], dict[str, float]]]) -> Figures:
    """Resident memory at each step, and its growth per connection: of the pair, and of the holder."""
    (_, pair_at_rest, out_at_rest) = readings[0]
    figures = {"restMib": pair_at_rest["rssKiB"] / MIB_IN_KIB, "restPssMib": pair_at_rest["pssKiB"] / MIB_IN_KIB}
    for connections, both, outbound in readings[1:]:
        figures[f"mib{connections}"] = both["rssKiB"] / MIB_IN_KIB
        figures[f"kibPer{connections}"] = (both["rssKiB"] - pair_at_rest["rssKiB"]) / connections
        figures[f"kibOutboundPer{connections}"] = (outbound["rssKiB"] - out_at_rest["rssKiB"]) / connections
    return figures


def start_up(_: Bench, pair: Pair) -> Outcome:
    """From the exec of the first proxy to the first answer through both."""
    return Outcome({"startMillis": pair.wait() * 1e3}, {})


def scaled(command: list[str], warmup: float = 0.5) -> Callable[[Bench, Pair], Outcome]:
    """The caller's side alone: start-up, then saturation, then memory."""

    def measure(bench: Bench, pair: Pair) -> Outcome:
        started = pair.wait() * 1e3
        outcome = closed_loop(command, "http", warmup)(bench, pair)
        return Outcome({**outcome.figures, "startMillis": started}, outcome.raw)

    return measure


DOCUMENTS_PER_FILE = 1000
MESH = "kind: MeshConfig\nmetadata: { name: mesh }\nspec: { trustDomain: mesh.local }\n"
SERVICE = """---
kind: Service
metadata: {{ name: svc-{name}, namespace: shop }}
spec:
  ports: [{{ port: 80, protocol: http }}]
  endpoints:
{endpoints}"""
ROUTE = """---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{ name: route-{name}, namespace: shop }}
spec:
  parentRefs: [{{ group: "", kind: Service, name: svc-0 }}]
  rules:
    - matches: [{{ path: {{ type: PathPrefix, value: /{name} }} }}]
      backendRefs: [{{ name: svc-0, port: 80 }}]
"""
ROOMY = """---
kind: TrafficPolicy
metadata: { name: svc-0, namespace: shop }
spec:
  targetRefs: [{ kind: Service, name: svc-0 }]
  limits: { maxConnections: 12000 }
"""


def services(count: int) -> Callable[[Mapping[str, str | int]], Alone]:
    """That many services of one endpoint each: the backend."""

    def resources(values: Mapping[str, str | int]) -> Alone:
        endpoint = f"    - {{ address: 127.0.0.1:{values['app_http']} }}\n"
        documents = [SERVICE.format(name=name, endpoints=endpoint) for name in range(count)]
        return Alone({"mesh.yaml": MESH, **in_files("services", documents)}, "svc-0.shop")

    return resources


def routes(count: int) -> Callable[[Mapping[str, str | int]], Alone]:
    """One service, and that many HTTPRoutes of one path each that lead to it."""

    def resources(values: Mapping[str, str | int]) -> Alone:
        endpoint = f"    - {{ address: 127.0.0.1:{values['app_http']} }}\n"
        service = MESH + SERVICE.format(name=0, endpoints=endpoint)
        documents = [ROUTE.format(name=name) for name in range(count)]
        return Alone({"mesh.yaml": service, **in_files("routes", documents)}, "svc-0.shop", "/0")

    return resources


def in_files(name: str, documents: list[str]) -> dict[str, str]:
    """Documents by file, in files of a size that people have."""
    firsts = range(0, len(documents), DOCUMENTS_PER_FILE)
    return {f"{name}-{first}.yaml": "".join(documents[first : first + DOCUMENTS_PER_FILE]) for first in firsts}


def endpoints(count: int) -> Callable[[Mapping[str, str | int]], Alone]:
    """One service of that many endpoints: the backend under as many addresses."""

    def resources(values: Mapping[str, str | int]) -> Alone:
        lines = [f"    - {{ address: {address(i)}:{values['app_http']} }}\n" for i in range(count)]
        text = MESH + SERVICE.format(name=0, endpoints="".join(lines)) + ROOMY
        return Alone({"mesh.yaml": text}, "svc-0.shop")

    return resources


def address(index: int) -> str:
    """A loopback address of its own for each index."""
    return f"127.0.{1 + index // 250}.{1 + index % 250}"


def _spread(count: int, *over: str) -> list[str]:
    return ["http1", *over, "--spread", str(min(count, SPREAD))]


def _workers(count: int) -> Scenario:
    title = f"HTTP/1.1 saturation, {count} worker{'s' if count > 1 else ''} per proxy on both cores"
    return Scenario(f"workers-{count}", "workers", title, closed_loop(["http1"], "http"), workers=count, shared=True)


def _scale() -> list[Scenario]:
    found = []
    for count in (1, 100, 10_000):
        title = f"{count:,} service{'s' if count > 1 else ''}"
        measure = scaled(_spread(count, "--authority", "svc-{}.shop"))
        found.append(Scenario(f"services-{count}", "scale", title, measure, alone=services(count), wait=False))
    for count in (1, 100, 10_000):
        title = f"{count:,} route{'s' if count > 1 else ''} of one service"
        measure = scaled(_spread(count, "--authority", "svc-0.shop", "--path", "/{}"))
        found.append(Scenario(f"routes-{count}", "scale", title, measure, alone=routes(count), wait=False))
    for count in (1, 100, 10_000):
        title = f"{count:,} endpoint{'s' if count > 1 else ''} of one service"
        measure = scaled(["http1", "--authority", "svc-0.shop"], LONG_WARMUP if count > 1000 else 0.5)
        found.append(Scenario(f"endpoints-{count}", "scale", title, measure, alone=endpoints(count), wait=False))
    return found


GRPC = ["grpc", "--authority", "orders.shop:81"]
BODIES = ["http1", "--size", str(BODY), "--connections", "4"]

SCENARIOS = [
    Scenario("http1", "saturation", "HTTP/1.1 keep-alive, 64 connections", closed_loop(["http1"], "http"), direct=True),
    Scenario(
        "http2", "saturation", "HTTP/2, 8 connections × 32 streams", closed_loop(["http2"], "h2"), "h2", direct=True
    ),
    Scenario(
        "grpc", "saturation", "gRPC unary, 8 connections × 32 streams", closed_loop(GRPC, "grpc"), "grpc", direct=True
    ),
    Scenario("rate-1000", "rate", "1,000 requests per second", at_rate(1000), direct=True),
    Scenario("rate-5000", "rate", "5,000 requests per second", at_rate(5000), direct=True),
    Scenario("bodies", "bytes", "Bodies of 10 MiB, 4 connections", bulk(BODIES, "http")),
    Scenario(
        "tcp-down", "bytes", "Raw TCP towards the caller, 4 connections", bulk(["tcp", "--way", "down"], "tcp"), "tcp"
    ),
    Scenario("tcp-up", "bytes", "Raw TCP from the caller, 4 connections", bulk(["tcp", "--way", "up"], "tcp"), "tcp"),
    Scenario(
        "connect",
        "connections",
        "One connection per request, 32 at a time",
        closed_loop(["connect", "--connections", "32"], "http"),
    ),
    Scenario("handshakes", "handshakes", "Full mutual handshakes, X25519", handshakes("x25519"), "inbound"),
    Scenario(
        "handshakes-pq",
        "handshakes",
        "Full mutual handshakes, X25519MLKEM768",
        handshakes("x25519mlkem768"),
        "x25519mlkem768",
    ),
    Scenario("idle", "memory", "Idle memory", idle),
    Scenario("start-up", "start-up", "From exec to the first answer through both", start_up, wait=False),
    _workers(1),
    _workers(2),
    *_scale(),
]


def choose(text: str | None) -> list[Scenario]:
    """The scenarios of these names or groups, in the order of the plan; all of them for none."""
    if text is None:
        return SCENARIOS
    wanted = {part.strip() for part in text.split(",")}
    known = {scenario.name for scenario in SCENARIOS} | {scenario.group for scenario in SCENARIOS}
    if wanted - known:
        raise ValueError(f"no scenario or group `{', '.join(sorted(wanted - known))}`: see --list")
    return [scenario for scenario in SCENARIOS if {scenario.name, scenario.group} & wanted]
