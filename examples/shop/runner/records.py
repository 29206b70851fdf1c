"""What the inbound sidecars recorded, and whether each hop of it was mutual TLS."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

from .processes import Process
from .shop import Sidecar

# Who calls whom in this shop, by service.
HOPS = {
    ("gateway", "orders"),
    ("gateway", "inventory"),
    ("orders", "inventory"),
    ("orders", "nats"),
    ("notifier", "nats"),
}
# Handshakes of somebody who is not who may come; one that was merely broken off is no breach.
_REFUSED = {"no-certificate", "expired", "untrusted", "wrong-identity"}
_SERIES = re.compile(r'^(?P<name>\w+)\{(?P<labels>.*)\} (?P<value>\S+)$', re.MULTILINE)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
# How the applications that speak HTTP log a request: inventory, and uvicorn under orders.
_REQUEST = re.compile(r'^request [A-Z]+ /|"[A-Z]+ /\S* HTTP/1\.[01]" \d{3}')


def series(text: str, name: str) -> list[tuple[dict[str, str], float]]:
    """The labels and values of all series of one name, of Prometheus' text exposition."""
    return [
        (dict(_LABEL.findall(found["labels"])), float(found["value"]))
        for found in _SERIES.finditer(text)
        if found["name"] == name
    ]


@dataclass
class Records:
    """What the records of all inbound sidecars say together."""

    hops: Counter[tuple[str, str]] = field(default_factory=Counter)
    handshakes: int = 0
    passed: int = 0
    received: int = 0
    wrong: list[str] = field(default_factory=list)

    def all_mutual_tls(self) -> bool:
        """Whether nothing is wrong and every hop of the shop was seen."""
        if not set(self.hops) >= HOPS:
            self.wrong.append(f"never seen: {HOPS - set(self.hops)}")
        return not self.wrong


async def read(sidecars: list[Sidecar], applications: dict[str, Process]) -> Records:
    """Reads metrics and access logs of the sidecars, and the applications' own logs."""
    records = Records()
    for sidecar in sidecars:
        if sidecar.inbound:
            _count(records, sidecar, await sidecar.metrics())
            _look_through(records, sidecar)
            if sidecar.service != "nats":
                log = applications[sidecar.workload].log.read_text(errors="replace")
                records.received += sum(1 for line in log.splitlines() if _REQUEST.search(line))
    return records


def _count(records: Records, sidecar: Sidecar, metrics: str) -> None:
    """From the counters: who called, and how handshakes went."""
    inbound = ("selvage_http_requests_total", "selvage_tcp_connections_opened_total")
    for name in inbound:
        for labels, value in series(metrics, name):
            if labels["direction"] != "inbound" or value == 0:
                continue
            namespace, _, source = labels["source"].partition("/")
            if namespace != "shop" or not source:
                records.wrong.append(f"{sidecar.workload} was called by {labels['source']!r}")
            records.hops[source, sidecar.service] += int(value)
    for labels, value in series(metrics, "selvage_tls_handshakes_total"):
        if labels["side"] == "server" and value > 0:
            if labels["outcome"] in _REFUSED:
                records.wrong.append(f"{sidecar.workload}: a handshake ended {labels['outcome']}")
            if labels["outcome"] == "ok":
                records.handshakes += int(value)


def _look_through(records: Records, sidecar: Sidecar) -> None:
    """From the access log: each request, encrypted and by name; and how many went on."""
    for event in sidecar.process.events():
        if event["event"] != "access" or event["direction"] != "inbound":
            continue
        if event["tls"] not in ("yes", "resumed") or not event.get("source"):
            records.wrong.append(f"{sidecar.workload}: {event}")
        # With a flag the sidecar itself answered: denied, or nobody there.
        if event.get("method") and event["flag"] == "-":
            records.passed += 1
