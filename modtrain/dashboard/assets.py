"""Files that pages show or offer: sample grids, weights, ends of logs, and the pages' scripts and styles."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from modtrain.dashboard import safe_files
from modtrain.dashboard.checkpoint_page import may_download
from modtrain.dashboard.page_data import Source
from modtrain.dashboard.payload import Payload
from modtrain.dashboard.urls import shown
from modtrain.storage.layout import CHECKPOINTS, EVALUATION, MODULES, WORKER_LOG

STATIC = Path(__file__).resolve().parent / "static"
KINDS = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".png": "image/png"}
KIND_OF_WEIGHTS = "application/octet-stream"
LOG_LINES = 1_000
BIG_BYTES = 1_000
"""Content of at least this size is sent compressed."""


def log_text(source: Source, path: str, module: str) -> str:
    """The last lines of a module's log; empty where there is none."""
    run = source.viewed_run(path).run
    if module not in run.modules:
        raise safe_files.NotThere(f"{shown(run.name)} has no module {module!r}; it has {', '.join(run.modules)}.")
    if not safe_files.lies(run.path, MODULES, module, WORKER_LOG):
        return ""
    return "\n".join(safe_files.last_lines(run.path, MODULES, module, WORKER_LOG, lines=LOG_LINES, most=1 << 18)[0])


def grid(request: Request, source: Source, path: str, file: str) -> Response:
    """A sample grid; 304 where the browser has it. A later evaluation may replace it under the same name."""
    if not file.endswith(".png"):
        raise safe_files.NotThere("Only pictures are shown.")
    content = safe_files.read(source.viewed_run(path).run.path, EVALUATION, file)
    return answer(request, Payload(content, hashlib.sha256(content).hexdigest()[:20]), KINDS[".png"])


def weights(request: Request, source: Source, path: str, module: str, version: int, file: str) -> Response:
    """The weights of a version, block by block; their size for HEAD."""
    run = source.viewed_run(path).run
    if module not in run.modules or not may_download(file):
        raise safe_files.NotThere("Only weights can be downloaded.")
    folder = run.store(module).folder(version).name
    opened = os.fdopen(safe_files.open_file(run.path, MODULES, module, CHECKPOINTS, folder, file), "rb")
    size = os.fstat(opened.fileno()).st_size
    name = quote(os.fsencode(f"{run.name}-{module}-{version}-{file}"), safe="")
    headers = {"content-disposition": f"attachment; filename*=UTF-8''{name}", "content-length": str(size)}
    if request.method == "HEAD":
        opened.close()
        return Response(media_type=KIND_OF_WEIGHTS, headers=headers)
    return StreamingResponse(_blocks(opened, size), media_type=KIND_OF_WEIGHTS, headers=headers)


def _blocks(file: BinaryIO, size: int) -> Iterator[bytes]:
    with file:
        yield from safe_files.blocks(file.fileno(), size)


def static(request: Request, file: str) -> Response:
    """A file of the page, or Plotly's script from its own package; 304 where the browser has it."""
    headers = {"cache-control": "private, no-cache"}
    return answer(request, asset(file), KINDS.get(Path(file).suffix, "application/octet-stream"), headers)


@functools.lru_cache(maxsize=32)
def asset(file: str) -> Payload:
    """The content of a static file, and its tag; NotThere."""
    content = plotly() if file == "plotly.min.js" else safe_files.read(STATIC, file)
    return Payload(content, hashlib.sha256(content).hexdigest()[:16])


def plotly() -> bytes:
    """The script of the installed Plotly package."""
    import plotly

    return (Path(plotly.__file__).parent / "package_data" / "plotly.min.js").read_bytes()


def answer(request: Request, page: Payload, kind: str, headers: Mapping[str, str] | None = None) -> Response:
    """Content with its tag; 304 where the browser has it, compressed where it accepts that."""
    sent = {**(headers or {}), "etag": f'"{page.tag}"', "vary": "accept-encoding"}
    if sent["etag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=sent)
    may_pack = len(page.content) >= BIG_BYTES and kind != KINDS[".png"]  # compressed already
    if may_pack and "gzip" in request.headers.get("accept-encoding", ""):
        return Response(page.packed, media_type=kind, headers={**sent, "content-encoding": "gzip"})
    return Response(page.content, media_type=kind, headers=sent)
