"""A reverse proxy as portals have one: below a prefix that it keeps or strips, without Authorization, streaming."""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Proxy(ThreadingHTTPServer):
    """Everything below `prefix` goes to a port of this machine; anything else is not there."""

    daemon_threads = True

    def __init__(self, prefix: str, port: int, *, keeps: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Passing)
        self.prefix, self.port, self.keeps = prefix, port, keeps
        self.url = f"http://127.0.0.1:{self.server_address[1]}{prefix}/"

    def handle_error(self, request: object, client_address: object) -> None:
        """A browser that went away is no error."""


class _Passing(BaseHTTPRequestHandler):
    server: Proxy

    def do_GET(self) -> None:
        prefix = self.server.prefix
        if not self.path.startswith(prefix + "/"):
            self.send_error(404)
            return
        path = self.path if self.server.keeps else self.path.removeprefix(prefix)
        dropped = ("authorization", "connection")
        headers = {name: value for name, value in self.headers.items() if name.lower() not in dropped}
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)) as behind:
            behind.request("GET", path, headers={**headers, "Connection": "close"})
            self._pass(behind.getresponse())

    def _pass(self, answer: http.client.HTTPResponse) -> None:
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "transfer-encoding", "date", "server"):
                self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()
        while piece := answer.read1(65536):
            self.wfile.write(piece)
            self.wfile.flush()

    def log_message(self, *words: object) -> None:
        """Nothing is printed."""


@contextlib.contextmanager
def proxy(prefix: str, port: int, *, keeps: bool) -> Iterator[str]:
    """The address of a proxy in front of a port, until the block ends."""
    with Proxy(prefix, port, keeps=keeps) as running:
        thread = threading.Thread(target=running.serve_forever, name="proxy")
        thread.start()
        try:
            yield running.url
        finally:
            running.shutdown()
            thread.join(timeout=30)
