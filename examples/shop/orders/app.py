"""Orders: takes them, keeps them in PostgreSQL, reserves their stock, and announces them over NATS.

It reaches inventory and NATS at two ports of localhost and knows nothing of what is behind them.
"""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import AsyncIterator

import httpx
import nats
import psycopg
import psycopg_pool
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

# What a caller may send to tell which trace its request belongs to: passed on as it is.
TRACE_HEADERS = ("traceparent", "tracestate", "b3")
SUBJECT = "orders.placed"
SHOWN = 10
MOST = 100
# A little more than what inventory is given to answer.
PATIENCE_SECONDS = 3.0

SCHEMA = """
CREATE TABLE IF NOT EXISTS orders (
    id uuid PRIMARY KEY,
    sku text NOT NULL,
    quantity integer NOT NULL CHECK (quantity > 0),
    placed_at timestamptz NOT NULL DEFAULT clock_timestamp()
)
"""


class Refused(Exception):
    """The order cannot be taken: a status, and why."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


@contextlib.asynccontextmanager
async def connections(app: Starlette) -> AsyncIterator[None]:
    """PostgreSQL, inventory and NATS, from the start to the end of the process."""
    pool = psycopg_pool.AsyncConnectionPool(
        os.environ["DATABASE_URL"], min_size=1, max_size=8, timeout=PATIENCE_SECONDS, open=False
    )
    inventory = httpx.AsyncClient(base_url=os.environ["INVENTORY_URL"], timeout=PATIENCE_SECONDS)
    async with pool, inventory:
        async with pool.connection() as connection:
            await connection.execute(SCHEMA)
        # Without a limit of attempts it reconnects for ever, and keeps what is published meanwhile.
        bus = await nats.connect(os.environ["NATS_URL"], max_reconnect_attempts=-1)
        app.state.pool, app.state.inventory, app.state.bus = pool, inventory, bus
        try:
            yield
        finally:
            await bus.drain()


def trace_of(request: Request) -> dict[str, str]:
    """The headers that a good citizen passes on."""
    return {name: request.headers[name] for name in TRACE_HEADERS if name in request.headers}


async def wanted(request: Request) -> tuple[str, int]:
    """What product an order is for, and how many."""
    try:
        body = json.loads(await request.body())
    except (ValueError, RecursionError) as error:
        raise Refused(400, "the body is no JSON") from error
    sku = body.get("sku") if isinstance(body, dict) else None
    quantity = body.get("quantity") if isinstance(body, dict) else None
    named = isinstance(sku, str) and sku.isascii() and sku.isprintable()
    if not named or type(quantity) is not int or not 1 <= quantity <= MOST:
        raise Refused(400, f'expected {{"sku": "wool", "quantity": 1 to {MOST}}}')
    return sku, quantity


async def reserve(request: Request, order: str, sku: str, quantity: int) -> None:
    """Takes the stock, or says why not. The order's number makes it safe to be sent twice."""
    try:
        answer = await request.app.state.inventory.put(
            f"/reservations/{order}",
            json={"sku": sku, "quantity": quantity},
            headers=trace_of(request),
        )
    except httpx.HTTPError as error:
        raise Refused(503, f"inventory: {error}") from error
    if answer.status_code in (404, 409) and "error" in answer.text:
        raise Refused(answer.status_code, answer.json()["error"])
    if answer.status_code not in (200, 201):
        raise Refused(503, f"inventory answered {answer.status_code}")


async def release(request: Request, order: str) -> None:
    """Gives the stock back that an order may have taken and will not use."""
    with contextlib.suppress(httpx.HTTPError):
        await request.app.state.inventory.delete(
            f"/reservations/{order}", headers=trace_of(request)
        )


async def place(request: Request) -> JSONResponse:
    """`POST /orders`: the row and the stock together, or neither."""
    order = str(uuid.uuid4())
    try:
        sku, quantity = await wanted(request)
        # Commits at its end, rolls back where an error leaves it.
        async with request.app.state.pool.connection() as connection:
            await connection.execute(
                "INSERT INTO orders (id, sku, quantity) VALUES (%s, %s, %s)", (order, sku, quantity)
            )
            await reserve(request, order, sku, quantity)
    except Refused as refused:
        # After a 503 nobody knows whether the stock was taken.
        if refused.status == 503:
            await release(request, order)
        return JSONResponse({"error": refused.reason}, refused.status)
    except (psycopg.Error, psycopg_pool.PoolTimeout) as error:
        await release(request, order)
        return JSONResponse({"error": f"the database: {error}"}, 503)
    placed = {"id": order, "sku": sku, "quantity": quantity}
    await request.app.state.bus.publish(
        SUBJECT, json.dumps(placed).encode(), headers=trace_of(request) or None
    )
    return JSONResponse(placed, 201)


async def recent(request: Request) -> JSONResponse:
    """`GET /orders`: the newest first."""
    query = "SELECT id, sku, quantity, placed_at FROM orders ORDER BY placed_at DESC LIMIT %s"
    try:
        async with request.app.state.pool.connection() as connection:
            rows = await (await connection.execute(query, (SHOWN,))).fetchall()
    except (psycopg.Error, psycopg_pool.PoolTimeout) as error:
        return JSONResponse({"error": f"the database: {error}"}, 503)
    names = ("id", "sku", "quantity", "placedAt")
    orders = [dict(zip(names, (str(i), sku, n, at.isoformat()))) for i, sku, n, at in rows]
    return JSONResponse({"orders": orders})


app = Starlette(
    routes=[
        Route("/orders", place, methods=["POST"]),
        Route("/orders", recent, methods=["GET"]),
    ],
    lifespan=connections,
)
