"""The dashboard's addresses: pages, their data, and files, all of it read-only.

Every link is relative. Paths are matched as they were sent, still encoded, so that every name of a folder works.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path

from markupsafe import Markup
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from modtrain.dashboard import assets
from modtrain.dashboard.access import Access, Guard
from modtrain.dashboard.assets import answer
from modtrain.dashboard.error_pages import problem, templates
from modtrain.dashboard.page_cache import REFRESH_S, PageCache
from modtrain.dashboard.page_data import Values
from modtrain.dashboard.payload import Payload, as_json, build_version, escaped
from modtrain.dashboard.urls import shown, unquoted
from modtrain.errors import InputError
from modtrain.storage.run_state import BY_URGENCY, DESCRIPTIONS

Answer = Callable[[Request], Awaitable[Response]]

MOST_VERIFYING = 4
"""Requests that wait for each other; one reads at a time."""


class Dashboard:
    """The answer to each address."""

    def __init__(self, pages: PageCache) -> None:
        self.pages, self.root = pages, pages.source.root
        self._verifying = asyncio.Lock()
        self._waiting = 0

    def routes(self) -> list[Route]:
        """All of them; a page's address ends with a slash. The path is left out where ROOT itself is the run."""
        version = "{path:path}/{module}/{version:int}"
        addresses: list[tuple[str, Answer]] = [
            ("/", partial(self.page, "runs")),
            ("/data/runs", partial(self.data, "runs")),
            (f"/checkpoint/{version}/", self.checkpoint),
            (f"/data/checkpoint/{version}", self.checkpoint_data),
            (f"/data/verify/{version}", self.verify),
            ("/data/log/{path:path}/{module}", self.log),
            ("/grid/{path:path}/{file}", self.grid),
            (f"/weights/{version}/{{file}}", self.weights),
            ("/static/{file}", self.static),
        ]
        for kind in ("run", "sweep"):
            addresses += [
                (f"/{kind}/{{path:path}}/", partial(self.page, kind)),
                (f"/data/{kind}/{{path:path}}", partial(self.data, kind)),
            ]
        addresses += [(f"/{kind}/{{path:path}}", self.with_slash) for kind in ("run", "sweep", "checkpoint")]
        without = [(address.replace("/{path:path}", ""), answer) for address, answer in addresses if "{path" in address]
        # The shorter ones first: `run/` is a page, not an address that lacks its slash.
        return [Route(address, answer, methods=["GET"]) for address, answer in [*without, *addresses]]

    async def page(self, kind: str, request: Request) -> Response:
        """A page with its data in it."""
        path = _path(request)
        payload = await run_in_threadpool(lambda: self.pages.version(kind, path).payload)
        return await run_in_threadpool(rendered, request, kind, shown(path), payload)

    async def data(self, kind: str, request: Request) -> Response:
        """The data of a page; with `since`, the tag of a version: 304 or the delta from it, where it is in memory."""
        path, since = _path(request), request.query_params.get("since")

        def respond() -> Response:
            if since is None:
                return answer(request, self.pages.version(kind, path).payload, "application/json")
            payload = self.pages.update(kind, path, since)
            if payload is None:
                return Response(status_code=304, headers={"etag": f'"{since}"'})
            return answer(request, payload, "application/json")

        return await run_in_threadpool(respond)

    async def checkpoint(self, request: Request) -> Response:
        """The page of one version."""
        path, module, version = _version(request)
        title = f"{module} v{version} of {shown(path)}"

        def read() -> Response:
            return rendered(request, "checkpoint", title, _payload(self.pages.source.checkpoint(path, module, version)))

        return await run_in_threadpool(read)

    async def checkpoint_data(self, request: Request) -> Response:
        """Its data."""

        def read() -> Response:
            return answer(request, _payload(self.pages.source.checkpoint(*_version(request))), "application/json")

        return await run_in_threadpool(read)

    async def verify(self, request: Request) -> Response:
        """Read all of a version, one at a time, and check it."""
        if request.method == "HEAD":
            await run_in_threadpool(self.pages.source.checkpoint, *_version(request))  # 404 where there is none
            return nothing("application/json")
        if self._waiting >= MOST_VERIFYING:
            return PlainTextResponse("Several checkpoints are being verified; try again later.", 503)
        self._waiting += 1
        try:
            async with self._verifying:
                result = await run_in_threadpool(self.pages.source.verify, *_version(request))
        finally:
            self._waiting -= 1
        return Response(as_json(result), media_type="application/json", headers={"cache-control": "no-store"})

    async def log(self, request: Request) -> Response:
        """The end of a module's log."""
        text = await run_in_threadpool(assets.log_text, self.pages.source, _path(request), _name(request, "module"))
        return PlainTextResponse(text)

    async def grid(self, request: Request) -> Response:
        """A sample grid."""
        return await run_in_threadpool(assets.grid, request, self.pages.source, _path(request), _name(request, "file"))

    async def weights(self, request: Request) -> Response:
        """The weights of a version, as a download."""
        file = *_version(request), _name(request, "file")
        return await run_in_threadpool(assets.weights, request, self.pages.source, *file)

    async def static(self, request: Request) -> Response:
        """Scripts and styles of the pages."""
        return await run_in_threadpool(assets.static, request, _name(request, "file"))

    async def with_slash(self, request: Request) -> Response:
        """To the page's own address: links in it are relative to that."""
        name = request.scope["path"].rpartition("/")[2]
        if not name:
            raise HTTPException(404)
        return RedirectResponse(f"./{name}/", 307)  # without the dot `https:host` would lead there


def create_app(root: Path, access: Access | None = None, *, refresh_s: float = REFRESH_S) -> tuple[ASGIApp, PageCache]:
    """The dashboard of a folder of runs as an ASGI application, and its pages."""
    pages = PageCache(root, refresh_s=refresh_s)
    dashboard = Dashboard(pages)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        templates().get_template("page.html")
        pages.start()
        yield
        await run_in_threadpool(pages.stop)

    errors = {404: _not_there, InputError: _no_page, HTTPException: _not_there, OSError: _storage}
    app = Starlette(routes=dashboard.routes(), lifespan=lifespan, exception_handlers=errors)
    app.router.redirect_slashes = False
    return Guard(app, access or Access()), pages


def rendered(request: Request, kind: str, title: str, page: Payload) -> Response:
    """The HTML of a page."""
    base = request.scope["base"]
    text = html(kind, title, page, base=base, path=request.path_params.get("path", ""), live=True)
    # A tag of its own: the page around the same data may be another one.
    content = text.encode()
    return answer(request, Payload(content, hashlib.sha256(content).hexdigest()[:20]), "text/html")


def nothing(kind: str) -> Response:
    """The answer to HEAD where building the body would be work."""
    return Response(media_type=kind, headers={"cache-control": "no-store"})


def html(kind: str, title: str, page: Payload, *, base: str, path: str, live: bool) -> str:
    """The HTML of a page, for the server (`live`) or for an export."""
    index = "" if live else "index.html"
    values = {"title": title or "Runs", "page": kind, "base": base, "live": live, "index": index, "path": path}
    states = Markup(escaped(as_json({state: DESCRIPTIONS[state] for state in BY_URGENCY}).decode()))
    return templates().get_template("page.html").render(values, data=Markup(page.embedded), states=states)


def _payload(values: Values) -> Payload:
    return build_version(values).payload


def _path(request: Request) -> str:
    path = unquoted(request.path_params.get("path", ""))
    if path is None:
        raise InputError("This is not the path of a run.")
    return path


def _name(request: Request, which: str) -> str:
    name = unquoted(request.path_params[which])
    if not name:
        raise InputError("This is not a file name.")
    return name


def _version(request: Request) -> tuple[str, str, int]:
    return _path(request), _name(request, "module"), min(request.path_params["version"], 10**12)


async def _no_page(request: Request, error: Exception) -> Response:
    return problem(request.scope, 404, "Not found", str(error))


async def _not_there(request: Request, error: Exception) -> Response:
    return problem(request.scope, getattr(error, "status_code", 404), "Not found", "There is no such page.")


async def _storage(request: Request, error: Exception) -> Response:
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return problem(request.scope, 503, "Storage error", f"The folder cannot be read now: {reason}.")
