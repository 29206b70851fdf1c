"""Processes of a measurement: the backend, and a fresh pair of proxies for each."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import machine
from peers import PORT_NAMES, Peer

PATIENCE = 30.0
# Seconds in which a proxy may end by itself: one that records a profile writes it then.
GRACE = float(os.environ.get("SELVAGE_BENCH_GRACE", "0"))
HOST = "orders.shop"
REQUEST = b"GET %s HTTP/1.1\r\nhost: %s\r\n\r\n"


class Broken(Exception):
    """What should have run did not; the text says what was seen."""


@dataclass
class Pair:
    """Two running proxies of one peer, or none when direct."""

    peer: Peer
    ports: Mapping[str, int]
    processes: list[subprocess.Popen[bytes]]
    folder: Path
    started: float
    host: str
    path: str

    def pids(self) -> list[int]:
        """Every process of the pair."""
        return [pid for process in self.processes for pid in machine.tree(process.pid)]

    def inbound_pids(self) -> list[int]:
        """Those of the server's side."""
        return machine.tree(self.processes[0].pid)

    def outbound_pids(self) -> list[int]:
        """Those of the caller's side."""
        return machine.tree(self.processes[-1].pid)

    def port(self, purpose: str) -> int:
        """The port for a purpose."""
        return self.peer.port(purpose, self.ports)

    def target(self, purpose: str) -> str:
        """The address for a purpose."""
        return f"127.0.0.1:{self.port(purpose)}"

    def wait(self) -> float:
        """Asks every millisecond until a request comes through; seconds since the first exec.

        The caller's side is asked once the server's side accepts connections: what each peer does
        after a refused connection (HAProxy waits for a second) is not what starting takes.
        """
        last = "no answer"
        if len(self.processes) > 1:
            self._repeat(lambda: accepts(self.port("inbound")))

        def answers() -> bool:
            nonlocal last
            last = ask(self.port("http"), self.host, self.path)
            return last.startswith("HTTP/1.1 200")

        if self._repeat(answers):
            return time.perf_counter() - self.started
        raise Broken(f"{self.peer.name} did not answer in {PATIENCE:.0f} s: {last}; {self.said()}")

    def _repeat(self, holds: Callable[[], bool]) -> bool:
        """Tries every millisecond until it holds or patience ends."""
        while time.perf_counter() - self.started < PATIENCE:
            for process in self.processes:
                if process.poll() is not None:
                    raise Broken(f"{self.peer.name} ended with {process.returncode}: {self.said()}")
            with contextlib.suppress(OSError):
                if holds():
                    return True
            time.sleep(0.001)
        return False

    def said(self) -> str:
        """The last lines of what they logged."""
        texts = [path.read_text(errors="replace") for path in sorted(self.folder.glob("*.log"))]
        return " | ".join(line for text in texts for line in text.splitlines()[-4:])

    def stop(self) -> None:
        """Ends them at once: how they drain is no part of this."""
        for process in self.processes:
            end(process)


@dataclass(frozen=True)
class Alone:
    """The caller's side without the other one: its resources by file, and whom to ask for what."""

    resources: Mapping[str, str]
    host: str
    path: str = "/"


def ask(port: int, host: str, path: str = "/") -> str:
    """One request; the status line of its answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(REQUEST % (path.encode(), host.encode()))
        return connection.recv(4096).split(b"\r\n", 1)[0].decode(errors="replace")


def accepts(port: int) -> bool:
    """Whether something accepts connections there."""
    with socket.create_connection(("127.0.0.1", port), timeout=5):
        return True


def end(process: subprocess.Popen[bytes]) -> None:
    """Kills a process with all of its group, which is its own."""
    if GRACE:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextlib.contextmanager
def running_pair(
    peer: Peer,
    values: Mapping[str, str | int],
    allocator: machine.PortAllocator,
    cores: frozenset[int],
    alone: Alone | None = None,
) -> Iterator[Pair]:
    """A fresh pair, started now, ended afterwards. The server's side is started first."""
    ports = allocator.take(PORT_NAMES)
    all_values = {**values, **ports}
    app_ports = {name: int(value) for name, value in values.items() if name.startswith("app_")}
    folder = Path(tempfile.mkdtemp(prefix=f"bench-{peer.name}-"))
    sides = [] if peer.is_direct else ["outbound"] if alone else ["inbound", "outbound"]
    whom = (alone.host, alone.path) if alone else (HOST, "/")
    pair = Pair(peer, {**ports, **app_ports}, [], folder, 0.0, *whom)
    try:
        if sides:
            peer.write(folder, all_values)
        for name, text in (alone.resources if alone else {}).items():
            (folder / "outbound-resources" / name).write_text(text)
        commands = [(side, peer.command(folder, side, all_values)) for side in sides]
        with machine.on_cores(cores):
            pair.started = time.perf_counter()
            for side, command in commands:
                pair.processes.append(launch(command, folder, side))
        yield pair
    finally:
        pair.stop()
        shutil.rmtree(folder, ignore_errors=True)


def launch(command: list[str], folder: Path, name: str) -> subprocess.Popen[bytes]:
    """A process in a group of its own, whose words go to a file."""
    with (folder / f"{name}.log").open("wb") as log:
        return subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )


@contextlib.contextmanager
def running_backend(bench: Path, allocator: machine.PortAllocator, folder: Path) -> Iterator[dict[str, int]]:
    """The backend of the whole run, on the core of the load."""
    ports = allocator.take(["app_http", "app_h2", "app_tcp"])
    flags = ["--http1", ports["app_http"], "--h2", ports["app_h2"], "--tcp", ports["app_tcp"]]
    process = launch([str(bench), "backend", *map(str, flags)], folder, "backend")
    try:
        until = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(OSError):
                if ask(ports["app_http"], HOST).startswith("HTTP/1.1 200"):
                    break
            if time.monotonic() > until or process.poll() is not None:
                raise Broken("the backend did not start")
            time.sleep(0.01)
        yield ports
    finally:
        end(process)
