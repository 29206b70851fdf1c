#!/usr/bin/env python3
"""Three small services on localhost: two versions of ratings, and one that counts copies.

Each answers with its name, and with the host and the path it was asked for. `/slow` takes a
second; `/flaky` fails every other time. Ends with its terminal, or by a signal.
"""

import http.server
import itertools
import threading
import time

SERVICES = {"ratings": 21080, "ratings-v2": 22080, "copies": 23080}


class Service(http.server.ThreadingHTTPServer):
    """One service: its name, and how often it was asked."""

    daemon_threads = True

    def __init__(self, name: str, port: int) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.name = name
        self.flaky = itertools.count()
        self.asked = 0


class Handler(http.server.BaseHTTPRequestHandler):
    """Says who answers, and what was asked."""

    protocol_version = "HTTP/1.1"
    server: Service

    def do_GET(self) -> None:
        """Answers in one line."""
        status = 200
        if self.path == "/count":
            text = f"{self.server.asked}\n"
        else:
            self.server.asked += 1
            text = f"{self.server.name}: {self.headers['host']}{self.path}\n"
        if self.path.startswith("/slow"):
            time.sleep(1)
        if self.path.startswith("/flaky") and next(self.server.flaky) % 2 == 0:
            status = 503
        self.send_response(status)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def main() -> None:
    """Serves all of them until it is ended."""
    services = [Service(name, port) for name, port in SERVICES.items()]
    for service in services[1:]:
        threading.Thread(target=service.serve_forever, daemon=True).start()
    services[0].serve_forever()


if __name__ == "__main__":
    main()
