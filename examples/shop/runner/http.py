"""A small HTTP client: one request, one whole answer."""

from __future__ import annotations

import asyncio
import http.client
import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

TIMEOUT_SECONDS = 10.0

# What HTTP_PROXY says is not for loopback.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Answer:
    """A status and a body; status 0 says that nobody answered, and the body why."""

    status: int
    text: str

    def json(self) -> Any:
        """The body, as JSON; `None` where it is none."""
        try:
            return json.loads(self.text)
        except ValueError:
            return None


def _send(request: urllib.request.Request) -> Answer:
    try:
        with _OPENER.open(request, timeout=TIMEOUT_SECONDS) as answer:
            return Answer(answer.status, answer.read().decode(errors="replace"))
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.read().decode(errors="replace"))
    except (OSError, http.client.HTTPException) as error:
        return Answer(0, repr(error))


async def call(
    method: str, url: str, body: Any = None, headers: dict[str, str] | None = None
) -> Answer:
    """Sends a request, with JSON if there is a body."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers or {}, method=method)
    if data is not None:
        request.add_header("content-type", "application/json")
    return await asyncio.to_thread(_send, request)


async def get(url: str, headers: dict[str, str] | None = None) -> Answer:
    """Sends a GET."""
    return await call("GET", url, headers=headers)
