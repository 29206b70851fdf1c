"""What the project wants to reach, as data: each line is one median that is met or not."""

from __future__ import annotations

from dataclasses import dataclass

from figures import Spread
from series import Series


@dataclass(frozen=True)
class Target:
    """One line of the checklist. Against a peer, a base scenario, or as an absolute figure."""

    text: str
    scenario: str
    figure: str
    bound: float
    peer: str | None = None
    base: str | None = None
    at_least: bool = False

    def value(self, series: Series) -> Spread | None:
        """What is to be compared with the bound."""
        if self.peer:
            return series.ratio(self.scenario, self.peer, self.figure)
        if self.base:
            return series.growth(series.reference, self.figure, self.scenario, self.base)
        return series.spread(self.scenario, series.reference, self.figure)

    def is_met(self, value: Spread) -> bool:
        """By the median."""
        return value.median >= self.bound if self.at_least else value.median <= self.bound


CPU = "cpuMicros"

TARGETS = [
    Target("HTTP/1.1 saturation: CPU per request ÷ HAProxy", "http1", CPU, 1.0, "haproxy"),
    Target("HTTP/1.1 saturation: CPU per request ÷ Envoy", "http1", CPU, 0.25, "envoy"),
    Target("HTTP/2 saturation: CPU per request ÷ HAProxy", "http2", CPU, 1.1, "haproxy"),
    Target("HTTP/2 saturation: CPU per request ÷ Envoy", "http2", CPU, 0.3, "envoy"),
    Target("1,000 requests per second: CPU per request ÷ nginx", "rate-1000", CPU, 0.9, "nginx"),
    Target("1,000 requests per second: added p50 ÷ nginx", "rate-1000", "added.p50", 1.0, "nginx"),
    Target("1,000 requests per second: added p99 ÷ HAProxy", "rate-1000", "added.p99", 1.0, "haproxy"),
    Target("Bodies of 10 MiB: CPU per GiB ÷ Envoy", "bodies", "cpuPerGib", 0.95, "envoy"),
    Target("Raw TCP towards the caller: CPU per GiB ÷ Envoy", "tcp-down", "cpuPerGib", 0.9, "envoy"),
    Target("Raw TCP from the caller: CPU per GiB ÷ Envoy", "tcp-up", "cpuPerGib", 0.9, "envoy"),
    Target("One connection per request: CPU ÷ HAProxy", "connect", CPU, 1.0, "haproxy"),
    Target("Handshakes per CPU second ÷ Envoy, X25519", "handshakes", "perCpuSecond", 1.3, "envoy", at_least=True),
    Target("Idle pair, MiB resident", "idle", "restMib", 15.0),
    Target("Idle connection, KiB resident in the proxy that holds it", "idle", "kibOutboundPer5000", 4.0),
    Target("Start-up, ms", "start-up", "startMillis", 40.0),
    Target("Two workers: CPU per request ÷ one worker", "workers-2", CPU, 1.1, base="workers-1"),
    Target("10,000 services: CPU per request ÷ 1", "services-10000", CPU, 1.1, base="services-1"),
    Target("10,000 routes: CPU per request ÷ 1", "routes-10000", CPU, 1.1, base="routes-1"),
    Target("10,000 endpoints: CPU per request ÷ 1", "endpoints-10000", CPU, 1.1, base="endpoints-1"),
]  # fmt: skip
