"""The machine of a run: what it is, processes on it, free ports."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

# The core of the load generator and the backend, and the core of the proxies.
LOAD_CORE = 0
PROXY_CORE = 1
BOTH_CORES = frozenset({LOAD_CORE, PROXY_CORE})

# Below the range that the kernel takes the ports of callers from.
PORTS = range(20000, 30000)


def describe() -> dict[str, str | int]:
    """Processor, cores, kernel, system."""
    text = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*:\s*(.*)$", text, re.MULTILINE)
    return {
        "processor": model.group(1) if model else platform.machine(),
        "cores": os.cpu_count() or 0,
        "kernel": platform.release(),
        "system": _system(),
        "memoryMiB": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
    }


def _system() -> str:
    with contextlib.suppress(OSError):
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    return platform.system()


@contextlib.contextmanager
def on_cores(cores: frozenset[int]) -> Iterator[None]:
    """What is started inside inherits these cores, and costs no further exec."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class PortAllocator:
    """Free ports, each given out once until the range is through."""

    def __init__(self) -> None:
        self._next = PORTS.start + os.getpid() % 5000

    def take(self, names: list[str]) -> dict[str, int]:
        """A port for each name."""
        return {name: self._free() for name in names}

    def _free(self) -> int:
        for _ in PORTS:
            self._next = self._next + 1 if self._next + 1 in PORTS else PORTS.start
            with contextlib.closing(socket.socket()) as probe, contextlib.suppress(OSError):
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", self._next))
                return self._next
        raise RuntimeError("no free port")


def tree(pid: int) -> list[int]:
    """A process and all that descend from it."""
    found = [pid]
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in thread.read_text().split():
                found += tree(int(child))
    return found


def memory(pids: list[int]) -> dict[str, float]:
    """Resident and proportional memory of some processes, in KiB."""
    sums = {"Rss": 0.0, "Pss": 0.0}
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            name, _, rest = line.partition(":")
            if name in sums:
                sums[name] += float(rest.split()[0])
    return {"rssKiB": sums["Rss"], "pssKiB": sums["Pss"]}


def first_line(command: list[str]) -> str:
    """The first line that a command prints, on either stream."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return lines[0] if lines else ""
