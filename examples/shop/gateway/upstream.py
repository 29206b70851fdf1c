"""Calls of the services behind the gateway, each at a port of localhost."""

from __future__ import annotations

from typing import Any

import httpx
from django.conf import settings
from django.http import HttpRequest

# What a caller may send to tell which trace its request belongs to: passed on as it is.
TRACE_HEADERS = ("traceparent", "tracestate", "b3")
PATIENCE_SECONDS = 5.0


class Unavailable(Exception):
    """A service gave no answer that one could use."""


class Upstream:
    """One service; safe to be used by several threads."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=PATIENCE_SECONDS)

    def call(
        self, request: HttpRequest, method: str, path: str, body: bytes | None = None
    ) -> tuple[int, dict[str, Any]]:
        """Status and JSON of an answer below 500; anything else is `Unavailable`."""
        headers = {name: request.headers[name] for name in TRACE_HEADERS if name in request.headers}
        if body is not None:
            headers["content-type"] = "application/json"
        try:
            answer = self._client.request(method, path, content=body, headers=headers)
            said = answer.json() if answer.status_code < 500 else None
        except (httpx.HTTPError, ValueError) as error:
            raise Unavailable(str(error)) from error
        if not isinstance(said, dict):
            raise Unavailable(f"status {answer.status_code}")
        return answer.status_code, said

    def get(self, request: HttpRequest, path: str) -> dict[str, Any]:
        """The JSON of a 200; anything else is `Unavailable`."""
        status, said = self.call(request, "GET", path)
        if status != 200:
            raise Unavailable(f"status {status}")
        return said


ORDERS = Upstream(settings.ORDERS_URL)
INVENTORY = Upstream(settings.INVENTORY_URL)
