"""The scenario: an order, a replica that fails, all replicas gone, back again; every hop checked.

It asks the gateway as a customer would, and the sidecars for what they recorded. One step, one
line; the first step that does not hold ends it.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from . import http, records
from .processes import Failure, together, until
from .shop import REPLICAS, Shop

# GETs of the page's data while one replica of three answers 503.
ROUNDS = 200
CALLERS = 4


class Step:
    """What a step found out, for its line."""

    def __init__(self) -> None:
        self.found = ""


class Scenario:
    """The steps, in order, upon a shop that runs."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop

    async def run(self) -> None:
        """All of them."""
        await self._order()
        await self._one_replica_fails()
        await self._all_replicas_are_gone()
        await self._healed()
        await self._strangers_are_denied()
        await self._every_hop_was_mutual_tls()
        await self._plaintext_is_refused()

    @asynccontextmanager
    async def _step(self, what: str) -> AsyncIterator[Step]:
        begin = time.monotonic()
        step = Step()
        try:
            yield step
        except Failure as failure:
            print(f"BROKEN  {what}: {failure}", flush=True)
            raise Failure(f"this does not hold: {what}") from failure
        took = time.monotonic() - begin
        print(f"holds   {what}: {step.found} ({took:.1f} s)", flush=True)

    async def _order(self) -> None:
        async with self._step("an order takes stock, and the notifier hears of it") as step:
            before = await self._whole()
            trace = secrets.token_hex(16)
            headers = {"traceparent": f"00-{trace}-{secrets.token_hex(8)}-01"}
            order = await self._place("wool", 3, headers)
            after = await self._whole()
            _expect(_stock(after, "wool") == _stock(before, "wool") - 3, f"stock: {after}")
            _expect(_first_order(after) == order, f"the newest order: {after}")
            line = await self._shop.applications["notifier-1"].line(f"order={order} ")
            _expect(trace in line, f"the trace of the order: {line}")
            await self._traced(trace)
            stock = f"wool {_stock(before, 'wool')} → {_stock(after, 'wool')}"
            step.found = f"{stock}, one trace through all services"

    async def _one_replica_fails(self) -> None:
        what = f"one of {len(REPLICAS)} replicas answers 503, and the gateway misses nothing"
        async with self._step(what) as step:
            retries = await self._sum("gateway-1", "selvage_http_retries_total")
            replica = await self._busiest()
            await self._shop.break_replica(replica, "unavailable")
            missed = await self._visit(ROUNDS)
            for _ in range(5):
                await self._place("linen", 1)
            _expect(missed == 0, f"{missed} of {ROUNDS} answers were not whole")
            retried = await self._sum("gateway-1", "selvage_http_retries_total") - retries
            name = "selvage_breaker_transitions_total"
            opened = await self._sum("gateway-1", name, {"to": "open"})
            _expect(retried > 0 and opened > 0, "nobody had to retry: was anything broken?")
            step.found = f"{ROUNDS} GETs and 5 orders, 0 failed, {retried:.0f} retries"
            await self._shop.heal_replica(replica)

    async def _all_replicas_are_gone(self) -> None:
        async with self._step("all replicas are gone, and the gateway shows the rest") as step:
            before = await self._whole()
            await together(*(self._shop.break_replica(one, "down") for one in REPLICAS))
            partial = await http.get(f"{self._shop.url}/products")
            said = partial.json()
            _expect(partial.status == 200 and said["missing"] == ["stock"], partial.text)
            _expect(said["recentOrders"] == before["recentOrders"], "recent orders are still there")
            page = await http.get(f"{self._shop.url}/")
            _expect(page.status == 200 and "stock unknown" in page.text, page.text)
            refused = await self._ask_for("wool", 1)
            _expect(refused.status == 503, f"an order: {refused}")
            step.found = "200, stock unknown, recent orders there; a new order gets 503"

    async def _healed(self) -> None:
        async with self._step("the replicas are back, and so is everything") as step:
            await together(*map(self._shop.heal_replica, REPLICAS))
            begin = time.monotonic()

            async def whole() -> bool:
                return bool((await self._products())["missing"] == [])

            await until("the gateway to be whole again", whole)
            whole_after = time.monotonic() - begin
            before = await self._whole()
            order = await self._place_in_time("cotton", 2)
            order_after = time.monotonic() - begin
            after = await self._whole()
            _expect(_stock(after, "cotton") == _stock(before, "cotton") - 2, f"stock: {after}")
            _expect(_first_order(after) == order, f"the newest order: {after}")
            await self._shop.applications["notifier-1"].line(f"order={order} ")
            step.found = f"whole after {whole_after:.1f} s, an order after {order_after:.1f} s"

    async def _strangers_are_denied(self) -> None:
        async with self._step("the notifier has no business with inventory") as step:
            outbound = self._shop.sidecars["notifier-1"].outbound
            answer = await http.get(f"http://{outbound}/stock", {"host": "inventory.shop"})
            _expect(answer.status == 403, f"GET /stock as the notifier: {answer}")
            step.found = "403"

    async def _every_hop_was_mutual_tls(self) -> None:
        async with self._step("every hop was mutual TLS") as step:
            sidecars = list(self._shop.sidecars.values())
            seen = records.Records()

            async def complete() -> bool:
                # A record is written after its answer; what the applications got must be there.
                nonlocal seen
                seen = await records.read(sidecars, self._shop.applications)
                return seen.passed == seen.received

            try:
                await until("the records to be complete", complete)
            except Failure as failure:
                counts = f"{seen.received} requests at applications, {seen.passed} recorded"
                raise Failure(f"{failure}: {counts}") from failure
            _expect(seen.all_mutual_tls(), "; ".join(seen.wrong))
            hops = ", ".join(f"{a} → {b} {n}" for (a, b), n in sorted(seen.hops.items()))
            step.found = f"{seen.received} requests, {seen.handshakes} handshakes; {hops}"

    async def _plaintext_is_refused(self) -> None:
        async with self._step("without a certificate nobody is let in") as step:
            inbound = self._shop.sidecars[REPLICAS[0]].inbound
            answer = await http.get(f"http://{inbound}/stock")
            _expect(answer.status == 0, f"plaintext at the inbound side: {answer}")
            step.found = "plaintext is turned away"

    # What the steps are made of.

    async def _products(self) -> Any:
        answer = await http.get(f"{self._shop.url}/products")
        _expect(answer.status == 200, f"GET /products: {answer}")
        return answer.json()

    async def _whole(self) -> Any:
        said = await self._products()
        _expect(said["missing"] == [], f"something is missing: {said}")
        return said

    async def _ask_for(
        self, sku: str, quantity: int, headers: dict[str, str] | None = None
    ) -> http.Answer:
        order = {"sku": sku, "quantity": quantity}
        return await http.call("POST", f"{self._shop.url}/orders", order, headers)

    async def _place(self, sku: str, quantity: int, headers: dict[str, str] | None = None) -> str:
        answer = await self._ask_for(sku, quantity, headers)
        _expect(answer.status == 201, f"POST /orders: {answer}")
        return str(answer.json()["id"])

    async def _place_in_time(self, sku: str, quantity: int) -> str:
        """Tries until it is taken: the sidecar of orders readmits the replicas on its own."""
        answer = http.Answer(0, "")

        async def taken() -> bool:
            nonlocal answer
            answer = await self._ask_for(sku, quantity)
            _expect(answer.status in (201, 503), f"POST /orders: {answer}")
            return answer.status == 201

        await until("an order to be taken again", taken)
        return str(answer.json()["id"])

    async def _visit(self, rounds: int) -> int:
        """Asks for the products that often, several at a time; returns how many were not whole."""
        left = iter(range(rounds))

        async def visit() -> int:
            missed = 0
            for _ in left:
                answer = await http.get(f"{self._shop.url}/products")
                missed += answer.status != 200 or answer.json()["missing"] != []
            return missed

        return sum(await asyncio.gather(*(visit() for _ in range(CALLERS))))

    async def _busiest(self) -> str:
        """The replica that the gateway's sidecar likes best: its failure is felt at once."""
        await self._visit(20)
        name, only = "selvage_http_requests_total", {"direction": "inbound"}
        calls = {replica: await self._sum(replica, name, only) for replica in REPLICAS}
        return max(calls, key=lambda replica: calls[replica])

    async def _traced(self, trace: str) -> None:
        """Waits until both inbound sidecars of an order have recorded its trace."""
        for service in ("orders", "inventory"):
            sidecars = [one for one in self._shop.sidecars.values() if one.service == service]

            async def recorded() -> bool:
                events = (event for one in sidecars for event in one.process.events())
                return any(
                    event.get("trace_id") == trace and event["direction"] == "inbound"
                    for event in events
                )

            await until(f"the trace at {service}", recorded)

    async def _sum(self, workload: str, name: str, only: dict[str, str] | None = None) -> float:
        text = await self._shop.sidecars[workload].metrics()
        found = records.series(text, name)
        return sum(value for labels, value in found if (only or {}).items() <= labels.items())


def _expect(holds: bool, found: str) -> None:
    if not holds:
        raise Failure(found)


def _stock(said: Any, sku: str) -> int:
    return int(next(one["stock"] for one in said["products"] if one["sku"] == sku))


def _first_order(said: Any) -> str:
    return str(said["recentOrders"][0]["id"])
