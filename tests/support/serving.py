"""The dashboard in tests: a real server on a real socket, in a thread of this process."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx
import uvicorn

from modtrain.dashboard.access import Access
from modtrain.dashboard.page_cache import PageCache
from modtrain.dashboard.server import listen, server
from modtrain.storage.run import Run

T = TypeVar("T")


class Served:
    """A running dashboard with a client."""

    def __init__(self, root: Path, running: uvicorn.Server, pages: PageCache, port: int) -> None:
        self.root, self.server, self.pages, self.port = root, running, pages, port
        self.url = f"http://127.0.0.1:{port}"
        self.client = httpx.Client(base_url=self.url, timeout=60)

    def get(self, address: str, **more: Any) -> httpx.Response:
        return self.client.get(address, **more)

    def data(self, address: str) -> dict[str, Any]:
        answer = self.get(f"/data/{address}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())


@contextlib.contextmanager
def served(root: Path, access: Access | None = None, *, refresh_s: float = 0.2, port: int = 0) -> Iterator[Served]:
    """A dashboard of a folder, until the block ends."""
    listening = listen("127.0.0.1", port)
    running, pages = server(root, access or Access(), refresh_s=refresh_s)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]}, name="served")
    thread.start()
    one = Served(root, running, pages, listening.getsockname()[1])
    try:
        eventually(lambda: running.started or None)
        yield one
    finally:
        one.client.close()
        if not running.should_exit:
            running.handle_exit(2, None)
        thread.join(timeout=60)
        listening.close()
        assert not thread.is_alive(), "the server did not end"


def eventually(ready: Callable[[], T | None], timeout_s: float = 60) -> T:
    """The first result of `ready` that is not None; the test fails at the timeout."""
    deadline = time.monotonic() + timeout_s
    while (result := ready()) is None:
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return result


def raw(port: int, request: bytes) -> bytes:
    """The response to bytes that no client would send."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(request)
        content = b""
        while piece := connection.recv(65536):
            content += piece
        return content


def trained(root: Path, name: str, recipe: Path, *, epochs: int = 2, place: list[list[str]] | None = None) -> Run:
    """A run that was trained and evaluated in this process."""
    from modtrain.training.evaluation import final_evaluation
    from tests.support.runs import finish, make_run

    placement = place or [["generator", "discriminator"]]
    run = make_run(root / name, recipe, placement, epochs=epochs)
    finish(run)
    final_evaluation(run)
    return run


def copied(run: Run, path: Path) -> Path:
    """A copy of the run in another folder, under any name."""
    shutil.copytree(run.path, path)
    return path


def embedded(page: str) -> dict[str, Any]:
    """The data in a page's script element, extracted as a browser does."""
    text = page.partition('<script type="application/json" id="data">')[2].partition("</script>")[0]
    return dict(json.loads(text))
