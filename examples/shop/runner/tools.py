"""What the shop needs of the machine: Selvage's binaries, Python packages, three servers."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

from .processes import Failure

SHOP = Path(__file__).resolve().parent.parent
WORKSPACE = SHOP.parent.parent
BINARIES = ("selvage", "shop-inventory")
BUILD = ("--package=selvage", "--package=selvage-examples", *(f"--bin={one}" for one in BINARIES))
# Debian packages that hold what is asked for by name.
PACKAGES = {
    "initdb": "postgresql",
    "nats-server": "nats-server",
    "postgres": "postgresql",
    "redis-server": "redis-server",
    "setpriv": "util-linux",
}


def prepare() -> None:
    """Finds all of it, builds and fetches what can be; the rest is named."""
    missing = sorted({PACKAGES[name] for name in PACKAGES if not _find(name)})
    if missing:
        raise Failure(f"these are missing: apt-get install {' '.join(missing)}")
    binaries()
    python()


def target() -> Path:
    """Where cargo builds to."""
    return Path(os.environ.get("CARGO_TARGET_DIR", WORKSPACE / "target")).resolve()


def binaries() -> Path:
    """The folder of `selvage` and `shop-inventory`: `SELVAGE_BIN_DIR`, else `release/` of target.

    There they are built if they are missing.
    """
    given = os.environ.get("SELVAGE_BIN_DIR")
    folder = Path(given).resolve() if given else target() / "release"
    missing = [name for name in BINARIES if not (folder / name).exists()]
    if missing and given:
        raise Failure(f"SELVAGE_BIN_DIR, {folder}, has no {' and no '.join(missing)}")
    if missing:
        _run("building", ["cargo", "build", "--release", *BUILD], quiet=False)
    return folder


def server(name: str) -> str:
    """The path of a server's program."""
    found = _find(name)
    if found is None:
        raise Failure(f"{name} is missing: apt-get install {PACKAGES[name]}")
    return found


def _find(name: str) -> str | None:
    # Debian keeps PostgreSQL's programs beside each other by version, and none in PATH.
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)
    if versions:
        return str(versions[0])
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def python() -> Path:
    """A Python that has what requirements.txt names; made at the first use."""
    wanted = (SHOP / "requirements.txt").read_text()
    place = target() / "shop"
    place.mkdir(parents=True, exist_ok=True)
    with (place / "lock").open("w") as lock:
        # Another shop that starts at this moment waits, and then finds it made.
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = place / "venv" / "made-of"
        if not (made.exists() and made.read_text() == wanted):
            _make(place / "venv")
            made.write_text(wanted)
    return place / "venv" / "bin" / "python"


def _make(venv: Path) -> None:
    shutil.rmtree(venv, ignore_errors=True)
    requirements = str(SHOP / "requirements.txt")
    pip = [str(venv / "bin" / "pip"), "--disable-pip-version-check", "install", "--quiet"]
    _run("making a Python of the shop's own", [sys.executable, "-m", "venv", str(venv)])
    _run("fetching what it needs", [*pip, "--requirement", requirements])


def _run(what: str, command: list[str], quiet: bool = True) -> None:
    """Runs a command to its end; what a quiet one has to say is told where it failed."""
    print(f"{what}: {' '.join(command)}", file=sys.stderr, flush=True)
    try:
        done = subprocess.run(command, cwd=WORKSPACE, capture_output=quiet, text=True)
    except OSError as error:
        raise Failure(f"{command[0]} cannot be run: {error}") from error
    if done.returncode != 0:
        said = f":\n{done.stdout}{done.stderr}" if quiet else ""
        raise Failure(f"`{' '.join(command)}` failed with exit code {done.returncode}{said}")
