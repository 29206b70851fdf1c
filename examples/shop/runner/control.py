"""Telling a shop that runs to break and heal: a socket in its folder, one line each way."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path

from . import tools
from .processes import PATIENCE_SECONDS, Failure
from .shop import Shop

FAULTS = ("unavailable", "down")
SOCKET = "control.sock"
# Where the folder is noted of the shop that was started last without saying where.
LATEST = tools.target() / "shop" / "latest"


async def listen(shop: Shop, note: bool) -> None:
    """Obeys until it is cancelled; `note` makes it the shop that is told by default."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, ValueError):
            words = (await reader.readline()).decode().split()
            try:
                await obey(shop, words)
                writer.write(b"done\n")
            except Failure as failure:
                writer.write(f"{failure}\n".encode())
            await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(serve, shop.folder / SOCKET)
    if note:
        LATEST.write_text(str(shop.folder))
    async with server:
        await server.serve_forever()


async def obey(shop: Shop, words: list[str]) -> None:
    """Does what one line says."""
    match words:
        case ["break", name, how] if how in FAULTS:
            await shop.break_replica(name, how)
        case ["heal", name]:
            await shop.heal_replica(name)
        case _:
            raise Failure("expected: break REPLICA unavailable|down, or heal REPLICA")


def ask(folder: Path | None, words: list[str]) -> str:
    """Tells the shop in `folder`, by default the one that was started last."""
    try:
        place = folder or Path(LATEST.read_text())
        with socket.socket(socket.AF_UNIX) as stream:
            stream.settimeout(PATIENCE_SECONDS)
            stream.connect(str(place / SOCKET))
            stream.sendall(" ".join(words).encode() + b"\n")
            said = stream.makefile().readline().strip()
    except OSError as error:
        raise Failure(f"no shop runs there: {error}") from error
    if said != "done":
        raise Failure(said)
    return f"{' '.join(words)}: {said}"
