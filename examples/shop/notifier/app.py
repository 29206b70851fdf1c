"""The notifier: hears over NATS of each order that was placed, and would send a letter.

It reaches NATS at a port of localhost and knows nothing of what is behind it.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal

import nats
from nats.aio.msg import Msg

SUBJECT = "orders.placed"


async def notify(message: Msg) -> None:
    """One order, one letter: here, one line."""
    order = json.loads(message.data)
    trace = (message.headers or {}).get("traceparent", "-")
    line = f"notified order={order['id']} sku={order['sku']} quantity={order['quantity']}"
    print(f"{line} traceparent={trace}", flush=True)


async def main() -> None:
    """Subscribes, and listens until it is told to end."""
    end = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, end.set)
    bus = await nats.connect(os.environ["NATS_URL"], max_reconnect_attempts=-1)
    # A queue group: of several replicas one gets each order.
    await bus.subscribe(SUBJECT, queue="notifier", cb=notify)
    await bus.flush()
    print("listening", flush=True)
    await end.wait()
    await bus.drain()


asyncio.run(main())
