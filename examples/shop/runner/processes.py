"""Processes that belong to the shop: started, listened to, and all ended with it.

A process ends also when the shop is killed and can end nothing any more: `setpriv` has the kernel
kill it then. All are started from the one thread there is, for that promise follows the thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

# How long something may take that should be there at once, on a machine that has much to do.
PATIENCE_SECONDS = 30.0
# How long a process may take to end when it is asked to.
FAREWELL_SECONDS = 8.0
# How often a condition is looked at that sends no event.
POLL_SECONDS = 0.02
# Lines that are shown of a process that failed.
SHOWN_LINES = 15
# Lines that are kept of each process; its log has all of them.
KEPT_LINES = 2000


class Failure(Exception):
    """The shop cannot go on; the text is for people."""


class Port:
    """A free port of loopback, kept from everybody else while its server is not there.

    The socket is bound and never listens: a server that binds beside it, as each does with
    SO_REUSEADDR, gets the port, and a caller is refused while there is none.
    """

    def __init__(self, number: int = 0) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind(("127.0.0.1", number))
        except OSError as error:
            raise Failure(f"port {number} cannot be had: {error}") from error
        self.number: int = self._socket.getsockname()[1]

    def __str__(self) -> str:
        return str(self.number)


class Process:
    """One program; it may be started again after its end."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        folder: Path,
        log: Path,
        environment: dict[str, str] | None = None,
        privileges: Sequence[str] = (),
        farewell: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.name = name
        self.log = log
        # Its last lines, and how many there ever were; those of stdout also by themselves.
        self.lines: deque[str] = deque(maxlen=KEPT_LINES)
        self.said = 0
        self._printed: deque[str] = deque(maxlen=KEPT_LINES)
        self._command = list(command)
        self._folder = folder
        self._environment = environment or {}
        self._privileges = list(privileges)
        self._farewell = farewell
        self._child: asyncio.subprocess.Process | None = None
        self._readers: list[asyncio.Task[None]] = []
        self._watcher: asyncio.Task[None] | None = None
        self._spoke = asyncio.Condition()
        self.wanted = False
        # What to call when it ends though nobody asked for it.
        self.unwanted_end: Callable[[str], None] = lambda why: None

    async def start(self) -> None:
        """Starts it; what it says comes by and by."""
        guard = ["setpriv", "--pdeathsig", "KILL", *self._privileges, "--"]
        try:
            self._child = await asyncio.create_subprocess_exec(
                *guard,
                *self._command,
                cwd=self._folder,
                env={**_surroundings(), **self._environment},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                limit=2**20,
                # Ctrl-C is for the shop, which ends them in order.
                start_new_session=True,
            )
        except OSError as error:
            raise Failure(f"{self.name} does not start: {error}") from error
        self.wanted = True
        self._readers = [
            asyncio.create_task(self._read(self._child.stdout, self._printed)),
            asyncio.create_task(self._read(self._child.stderr, deque(maxlen=0))),
        ]
        self._watcher = asyncio.create_task(self._watch(self._child))

    async def run(self) -> str:
        """Runs it to its end, and returns what it printed."""
        await self.start()
        assert self._child
        # Its end is what is waited for.
        self.wanted = False
        try:
            code = await asyncio.wait_for(self._child.wait(), PATIENCE_SECONDS)
        except TimeoutError as error:
            raise Failure(f"{self.name} does not end\n{self.tail()}") from error
        finally:
            await self.stop(signal.SIGKILL)
        if code != 0:
            raise Failure(f"{self.name} failed with exit code {code}\n{self.tail()}")
        return "\n".join(self._printed)

    async def _read(self, stream: asyncio.StreamReader | None, also: deque[str]) -> None:
        assert stream, "both are piped"
        with self.log.open("ab") as log:
            while line := await stream.readline():
                log.write(line)
                log.flush()
                text = line.decode(errors="replace").rstrip("\n")
                also.append(text)
                async with self._spoke:
                    self.lines.append(text)
                    self.said += 1
                    self._spoke.notify_all()
        async with self._spoke:
            self._spoke.notify_all()

    @property
    def pid(self) -> int:
        """Its process id, of the last start."""
        return self._child.pid if self._child else 0

    @property
    def runs(self) -> bool:
        """Whether it was started and has not ended."""
        return self._child is not None and self._child.returncode is None

    async def line(self, pattern: str, since: int = 0) -> str:
        """Waits for a line after the first `since` that the pattern is found in."""
        wanted = re.compile(pattern)

        async def search() -> str:
            seen = since
            async with self._spoke:
                while True:
                    forgotten = self.said - len(self.lines)
                    for line in islice(self.lines, max(seen - forgotten, 0), None):
                        if wanted.search(line):
                            return line
                    seen = self.said
                    if not self.runs or all(reader.done() for reader in self._readers):
                        raise Failure(f"{self.name} ended\n{self.tail()}")
                    await self._spoke.wait()

        try:
            return await asyncio.wait_for(search(), PATIENCE_SECONDS)
        except TimeoutError as error:
            message = f"{self.name} does not say {pattern!r}\n{self.tail()}"
            raise Failure(message) from error

    def events(self) -> list[dict[str, Any]]:
        """The lines of its log that are JSON."""
        lines = self.log.read_text(errors="replace").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    async def listening(self, name: str) -> str:
        """The address that a program of Selvage says its listener `name` is bound to."""
        line = await self.line(f'"event":"listening".*"name":"{re.escape(name)}"')
        return str(json.loads(line)["address"])

    def tail(self) -> str:
        """Its last lines."""
        return "\n".join(f"    {line}" for line in list(self.lines)[-SHOWN_LINES:])

    def send(self, number: signal.Signals) -> None:
        """Sends it a signal, if it runs."""
        if self._child and self.runs:
            self._child.send_signal(number)

    async def stop(self, number: signal.Signals | None = None) -> None:
        """Ends it and what it started itself, and waits for that."""
        self.wanted = False
        if not self._child:
            return
        self.send(number or self._farewell)
        try:
            await asyncio.wait_for(self._child.wait(), FAREWELL_SECONDS)
        except TimeoutError:
            self.send(signal.SIGKILL)
            await self._child.wait()
        # It led a session of its own: whoever is left of that has lost its parent.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._child.pid, signal.SIGKILL)
        await asyncio.gather(*self._readers)
        self._child = None

    async def _watch(self, child: asyncio.subprocess.Process) -> None:
        await child.wait()
        if self.wanted:
            self.unwanted_end(f"{self.name} ended by itself\n{self.tail()}")


def _surroundings() -> dict[str, str]:
    """The environment without what is meant for another Selvage."""
    known = {name: value for name, value in os.environ.items() if not name.startswith("SELVAGE_")}
    return {**known, "PYTHONDONTWRITEBYTECODE": "1"}


class Processes:
    """All processes of a shop; on leaving, all are ended."""

    def __init__(self) -> None:
        self.all: list[Process] = []
        self._ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def __aenter__(self) -> Processes:
        return self

    async def __aexit__(self, *_: object) -> None:
        # One by one, so that nobody is left calling what has gone.
        for process in reversed(self.all):
            await process.stop()

    async def start(self, process: Process) -> Process:
        """Starts one more."""
        self.all.append(process)
        process.unwanted_end = self._note
        await process.start()
        return process

    def _note(self, why: str) -> None:
        if not self._ended.done():
            self._ended.set_result(why)

    async def watch(self) -> None:
        """Fails as soon as one ends by itself."""
        raise Failure(await self._ended)


async def together(*work: Coroutine[Any, Any, None]) -> None:
    """Does all of it at once; where one fails, the others are given up before that is said."""
    try:
        async with asyncio.TaskGroup() as group:
            for one in work:
                group.create_task(one)
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None


async def until(what: str, condition: Callable[[], Awaitable[bool]]) -> None:
    """Looks at a condition until it holds."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await condition():
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError as error:
        raise Failure(f"{what}: not within {PATIENCE_SECONDS:.0f} s") from error
