"""Behind a proxy as on a cluster's portal: it takes its prefix off or keeps it, and drops Authorization."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import AsyncIterator, Iterator
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from urllib.parse import urljoin

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from modtrain.dashboard.access import Access, own_names
from modtrain.dashboard.server import listen
from tests.support.serving import Served, eventually, served, trained

PREFIX = "/node/n12/8787"
TOKEN = "a-token-of-many-letters"


@contextlib.contextmanager
def proxy(to: str, *, keeps: bool) -> Iterator[str]:
    """What Open OnDemand does: `/node/...` keeps the whole path, `/rnode/...` takes the prefix off."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, httpx.AsyncClient]]:
        async with httpx.AsyncClient(base_url=to, timeout=60) as client:
            client.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=[]))  # they are the browser's
            yield {"client": client}

    async def forward(request: Request) -> Response:
        client = request.state.client
        path = request.scope["raw_path"].decode()
        path = path if keeps else path.removeprefix(PREFIX) or "/"
        query = request.scope["query_string"].decode()
        dropped = ("authorization", "host", "connection")
        passed = {name: value for name, value in request.headers.items() if name not in dropped}
        sent = client.build_request(request.method, f"{path}?{query}" if query else path, headers=passed)
        answer = await client.send(sent, stream=True)
        headers = {n: v for n, v in answer.headers.items() if n not in ("transfer-encoding", "connection")}
        return StreamingResponse(
            answer.aiter_raw(), answer.status_code, headers, background=BackgroundTask(answer.aclose)
        )

    listening = listen("127.0.0.1", 0)
    app = Starlette(routes=[Route(PREFIX + "{rest:path}", forward)], lifespan=lifespan)
    config = uvicorn.Config(app, log_level="warning", ws="none", timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        eventually(lambda: server.started or None)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}{PREFIX}/"
    finally:
        server.should_exit = True
        thread.join(timeout=60)
        listening.close()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, tiny_recipe: Path) -> Path:
    path = tmp_path_factory.mktemp("runs")
    trained(path, "one", tiny_recipe)
    return path


@pytest.fixture(scope="module", params=[(True, PREFIX), (False, ""), (False, PREFIX)], ids=str)
def front(request: pytest.FixtureRequest, root: Path) -> Iterator[tuple[str, Served]]:
    """The address of a proxy that keeps or strips its prefix, and the dashboard behind it."""
    keeps, prefix = request.param
    access = Access(hosts=own_names("127.0.0.1", []), token=TOKEN, prefix=prefix, cookie="modtrain-1")
    with served(root, access) as behind, proxy(behind.url, keeps=keeps) as address:
        yield address, behind


@pytest.fixture
def browser(front: tuple[str, Served]) -> Iterator[httpx.Client]:
    """One that has come by the link with the token."""
    address, _ = front
    with httpx.Client(timeout=60, headers={"authorization": "Basic user:password"}) as client:
        welcome = client.get(address, params={"token": TOKEN})
        assert welcome.status_code == 200
        yield client


def links(page: str, at: str) -> set[str]:
    """What a page loads or leads to."""
    return {urljoin(at, link) for link in re.findall(r'(?:href|src)="([^"#]+)"', page)}


def test_every_page_is_found_by_relative_links(front: tuple[str, Served], browser: httpx.Client) -> None:
    address, _ = front
    for page in ("", "run/one/", "checkpoint/one/generator/1/"):
        at = urljoin(address, page)
        answer = browser.get(at)
        assert answer.status_code == 200
        loaded = links(answer.text, at)
        assert loaded
        for each in loaded:
            assert each.startswith(address), "a link leads outside of the prefix"
            assert browser.get(each).status_code == 200, each
        base = re.search('data-base="([^"]*)"', answer.text)
        assert base is not None
        assert urljoin(at, base[1] or "./") == address


def test_an_address_without_a_slash_finds_its_page(front: tuple[str, Served], browser: httpx.Client) -> None:
    address, _ = front
    answer = browser.get(address + "run/one", follow_redirects=True)
    assert answer.status_code == 200
    assert str(answer.url) == address + "run/one/"


def test_data_files_and_updates_come_through(front: tuple[str, Served], browser: httpx.Client) -> None:
    address, _ = front
    answer = browser.get(address + "data/run/one")
    assert answer.json()["run"]["name"] == "one"
    again = browser.get(address + "data/run/one", headers={"if-none-match": answer.headers["etag"]})
    assert again.status_code == 304
    assert browser.get(address + "weights/one/generator/1/weights.safetensors").status_code == 200
    tag = again.headers["etag"].removeprefix("W/").strip('"')
    assert browser.get(address + "data/run/one", params={"since": tag}).status_code == 304


def test_the_cookie_is_for_the_prefix_alone(front: tuple[str, Served], browser: httpx.Client) -> None:
    address, _ = front
    assert {cookie.path for cookie in browser.cookies.jar} == {PREFIX}
    with httpx.Client(timeout=60) as stranger:
        assert stranger.get(address).status_code == 403
        assert stranger.get(address + "data/runs", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 403
