"""The dashboard's addresses: pages, their data, and files, all of it read-only.

Every link is relative. Paths are matched as they were sent, still encoded, so that every name of a folder works.
Starlette calls these functions in threads, since they read files.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from modtrain.dashboard import safe_files
from modtrain.dashboard.access import problem, templates
from modtrain.dashboard.checkpoint_page import may_download
from modtrain.dashboard.page_cache import PageCache
from modtrain.dashboard.payload import Payload, as_json, tag_of
from modtrain.dashboard.timeline import Range
from modtrain.dashboard.urls import shown, unquoted
from modtrain.errors import InputError
from modtrain.storage.layout import CHECKPOINTS, EVALUATION, MODULES, WORKER_LOG
from modtrain.storage.run_state import BY_URGENCY, DESCRIPTIONS

STATIC, PLOTLY = Path(__file__).resolve().parent / "static", "plotly.min.js"
JSON, PNG, WEIGHTS = "application/json", "image/png", "application/octet-stream"
KINDS = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
MOST_VERIFYING = 4
"""Requests that wait for each other; one reads at a time."""
LOG_LINES = 1_000
BIG_BYTES = 1_000
"""Content of at least this size is sent compressed."""
BLOCK_BYTES = 1 << 20


class Dashboard:
    """The answer to each address."""

    def __init__(self, pages: PageCache) -> None:
        self.pages, self.source = pages, pages.source
        self._verifying, self._places = threading.Lock(), threading.BoundedSemaphore(MOST_VERIFYING)

    def routes(self) -> list[Route]:
        """All of them; a page's address ends with a slash. The path is left out where ROOT itself is the run."""
        version = "{path:path}/{module}/{version:int}"
        addresses: list[tuple[str, Callable[[Request], Response]]] = [
            ("/", partial(self.page, "runs")),
            ("/data/runs", partial(self.data, "runs")),
            (f"/data/verify/{version}", self.verify),
            ("/data/lanes/{path:path}", self.lanes),
            ("/data/scalar/{path:path}", self.scalar),
            ("/data/log/{path:path}/{module}", self.log),
            ("/grid/{path:path}/{file}", self.grid),
            (f"/weights/{version}/{{file}}", self.weights),
            ("/static/{file}", self.static),
        ]
        for kind in ("run", "sweep", "checkpoint"):
            addresses += [
                (f"/{kind}/{{path:path}}/", partial(self.page, kind)),
                (f"/data/{kind}/{{path:path}}", partial(self.data, kind)),
                (f"/{kind}/{{path:path}}", self.with_slash),
            ]
        without = [(address.replace("/{path:path}", ""), answer) for address, answer in addresses if "{path" in address]
        # The shorter ones first: `run/` is a page, not an address that lacks its slash.
        return [Route(address, answer, methods=["GET"]) for address, answer in [*without, *addresses]]

    def page(self, kind: str, request: Request) -> Response:
        """A page with its data in it."""
        data = self.pages.version(kind, _path(request)).data
        path = request.path_params.get("path", "")
        content = html(kind, data, base=request.scope["base"], path=path, live=True).encode()
        # A tag of its own: the page around the same data may be another one.
        return answer(request, Payload(content, tag_of(content)), "text/html")

    def data(self, kind: str, request: Request) -> Response:
        """The data of a page; with `since`, the tag of a version: 304 or the delta from it, where it is in memory."""
        path, since = _path(request), request.query_params.get("since")
        payload = self.pages.update(kind, path, since) if since else self.pages.version(kind, path).payload
        if payload is None:
            return Response(status_code=304, headers={"etag": f'"{since}"'})
        return answer(request, payload, JSON)

    def lanes(self, request: Request) -> Response:
        """The lanes of a run from a time on until another one (`from`, `to`: Unix times)."""
        try:
            begin, end = (float(request.query_params[name]) for name in ("from", "to"))
        except (KeyError, ValueError):
            raise HTTPException(400) from None
        content = as_json(self.source.lanes(_path(request), Range(begin=begin, end=end))).encode()
        return answer(request, Payload(content, tag_of(content)), JSON)

    def scalar(self, request: Request) -> Response:
        """The curves of a scalar of training (`name`) in the trials of a sweep."""
        curves = self.source.scalar_curves(_path(request), request.query_params.get("name", ""))
        content = as_json({"curves": curves}).encode()
        return answer(request, Payload(content, tag_of(content)), JSON)

    def verify(self, request: Request) -> Response:
        """Read all of a version, one at a time, and check it."""
        headers = {"cache-control": "no-store"}
        if request.method == "HEAD":
            self.source.checkpoint(*_version(request))  # 404 where there is none
            return Response(media_type=JSON, headers=headers)
        if not self._places.acquire(blocking=False):
            return PlainTextResponse("Several checkpoints are being verified; try again later.", 503)
        try:
            with self._verifying:
                result = self.source.verify(*_version(request))
        finally:
            self._places.release()
        return Response(as_json(result), media_type=JSON, headers=headers)

    def log(self, request: Request) -> Response:
        """The last lines of a module's log; empty where there is none."""
        run, module = self.source.shown_run(_path(request)).run, _name(request, "module")
        if module not in run.modules:
            raise InputError(f"{shown(run.name)} has no module {module!r}; it has {', '.join(run.modules)}.")
        lines, _ = safe_files.last_lines(run.path, MODULES, module, WORKER_LOG, lines=LOG_LINES, most=1 << 18)
        return PlainTextResponse("\n".join(lines))

    def grid(self, request: Request) -> Response:
        """A sample grid; 304 where the browser has it. A later evaluation may replace it under the same name."""
        file = _name(request, "file")
        if not file.endswith(".png"):
            raise InputError("Only pictures are shown.")
        content = safe_files.read(self.source.shown_run(_path(request)).run.path, EVALUATION, file)
        return answer(request, Payload(content, tag_of(content)), PNG)

    def weights(self, request: Request) -> Response:
        """The weights of a version as a download, block by block; their size for HEAD."""
        path, module, version = _version(request)
        run, name = self.source.shown_run(path).run, _name(request, "file")
        if module not in run.modules or not may_download(name):
            raise InputError("Only weights can be downloaded.")
        folder = run.store(module).folder(version).name
        file = safe_files.open_file(run.path, MODULES, module, CHECKPOINTS, folder, name)
        size = os.fstat(file.fileno()).st_size
        saved_as = quote(os.fsencode(f"{run.name}-{module}-{version}-{name}"), safe="")
        headers = {"content-disposition": f"attachment; filename*=UTF-8''{saved_as}", "content-length": str(size)}
        if request.method == "HEAD":
            file.close()
            return Response(media_type=WEIGHTS, headers=headers)
        return Download(file, size, headers)

    def static(self, request: Request) -> Response:
        """A script or style of the pages; 304 where the browser has it."""
        file = _name(request, "file")
        return answer(request, asset(file), KINDS.get(Path(file).suffix, WEIGHTS))

    def with_slash(self, request: Request) -> Response:
        """To the page's own address: links in it are relative to that."""
        name = request.scope["path"].rpartition("/")[2]
        if not name:
            raise HTTPException(404)
        return RedirectResponse(f"./{name}/", 307)  # without the dot `https:host` would lead there


class Download(StreamingResponse):
    """A file as a download, closed as soon as the browser has it or gives it up."""

    def __init__(self, file: BinaryIO, size: int, headers: Mapping[str, str]) -> None:
        super().__init__(_blocks(file, size), media_type=WEIGHTS, headers=headers)
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._file.close()


def html(kind: str, data: dict[str, Any], *, base: str, path: str, live: bool) -> str:
    """The HTML of a page, for the server (`live`) or for an export; `path` is its address below the kind."""
    title = "Runs" if kind == "runs" else data["run" if kind == "checkpoint" else kind]["name"]
    if kind == "checkpoint":
        title = f"{data['module']} v{data['version']} of {title}"
    values = {"title": title, "page": kind, "base": base, "live": live, "index": "" if live else "index.html"}
    states = {state: DESCRIPTIONS[state] for state in BY_URGENCY}
    return templates().get_template("page.html").render(values, path=path, data=data, states=states)


def answer(request: Request, page: Payload, kind: str) -> Response:
    """Content with its tag; 304 where the browser has it, compressed where it accepts that."""
    headers = {"etag": f'"{page.tag}"', "vary": "accept-encoding"}
    if headers["etag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    may_pack = len(page.content) >= BIG_BYTES and kind != PNG  # compressed already
    if may_pack and "gzip" in request.headers.get("accept-encoding", ""):
        return Response(page.packed, media_type=kind, headers={**headers, "content-encoding": "gzip"})
    return Response(page.content, media_type=kind, headers=headers)


@functools.lru_cache(maxsize=32)
def asset(file: str) -> Payload:
    """The content of a static file, or Plotly's script from its own package, and its tag; NotThere."""
    if file == PLOTLY:
        import plotly

        content = (Path(plotly.__file__).parent / "package_data" / file).read_bytes()
    else:
        content = safe_files.read(STATIC, file)
    return Payload(content, tag_of(content))


def _blocks(file: BinaryIO, size: int) -> Iterator[bytes]:
    while size > 0 and (block := file.read(min(size, BLOCK_BYTES))):
        size -= len(block)
        yield block


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


def _no_page(request: Request, error: Exception) -> Response:
    says = str(error) if isinstance(error, InputError) else "There is no such page."
    return problem(request.scope, getattr(error, "status_code", 404), "Not found", says)


def _storage_error(request: Request, error: Exception) -> Response:
    says = f"The folder cannot be read now: {getattr(error, 'strerror', None) or error}."
    return problem(request.scope, 503, "Storage error", says)


ERRORS: dict[Any, Any] = {404: _no_page, InputError: _no_page, HTTPException: _no_page, OSError: _storage_error}
"""What is answered to an error."""
