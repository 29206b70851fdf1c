"""A pair that starts, answers once and rests: rest.py BENCH-LOAD SELVAGE-PROXY SECONDS."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import machine
import peers
from pair import running_backend, running_pair


def main() -> None:
    """What is at rest is told by who watches the processes."""
    load, proxy, seconds = Path(sys.argv[1]).resolve(), sys.argv[2], float(sys.argv[3])
    peer = peers.parse(f"selvage={proxy}", None)[0]
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        subprocess.run([str(load), "pki", str(folder)], check=True, timeout=60)
        allocator = machine.PortAllocator()
        with running_backend(load, allocator, folder) as ports:
            values = {**ports, "pki": str(folder), "workers": 1}
            with running_pair(peer, values, allocator, machine.BOTH_CORES) as pair:
                pair.wait()
                time.sleep(seconds)


if __name__ == "__main__":
    main()
