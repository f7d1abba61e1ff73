"""The HTTP server of the dashboard, its socket and its token."""

from __future__ import annotations

import contextlib
import errno
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool

from modtrain.dashboard.access import Access, Guard
from modtrain.dashboard.page_cache import REFRESH_S, PageCache
from modtrain.dashboard.routes import ERRORS, Dashboard
from modtrain.errors import InputError

PORT = 8787
TRIES = 100
"""Ports that are tried, from `PORT` on, where none is given."""
SHORTEST = 16
"""Characters of a token."""


def server(root: Path, access: Access, *, refresh_s: float = REFRESH_S) -> tuple[uvicorn.Server, PageCache]:
    """A server of a folder of runs, started by `run(sockets=[...])`, and its pages."""
    pages = PageCache(root.resolve(), refresh_s=refresh_s)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        pages.start()
        yield
        await run_in_threadpool(pages.stop)

    app = Starlette(routes=Dashboard(pages).routes(), lifespan=lifespan, exception_handlers=ERRORS)
    app.router.redirect_slashes = False
    config = uvicorn.Config(
        Guard(app, access),
        http="h11",
        loop="asyncio",
        ws="none",
        lifespan="on",
        log_config=None,  # through this program's own handler, which escapes control characters
        log_level="error",  # a warning is a malformed request, and anyone can send many
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=3,
    )
    return uvicorn.Server(config), pages


def listen(host: str, port: int | None) -> socket.socket:
    """A socket on a port, for None on the first free one from `PORT` on; InputError."""
    if port is not None and not 0 <= port <= 65535:
        raise InputError(f"Port {port} is not allowed: use one from 1024 to 65535.")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for number in [port] if port is not None else range(PORT, PORT + TRIES):
        try:
            return socket.create_server((host, number), family=family, backlog=256)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise InputError(f"Cannot listen on port {number} of {host}: {error.strerror or error}.") from None
            if port is not None:
                raise InputError(f"Port {port} of {host} is in use; leave --port out to use a free one.") from None
    raise InputError(f"Ports {PORT} to {PORT + TRIES - 1} of {host} are all in use; give --port.")


def read_token(path: Path) -> str:
    """The token in a file that only its owner can read; InputError."""
    try:
        mode = path.stat().st_mode
        token = path.read_text().strip() if stat.S_ISREG(mode) else ""
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--token-file {path} cannot be read: {getattr(error, 'strerror', None) or error}.") from None
    if stat.S_IMODE(mode) & 0o077:
        raise InputError(f"--token-file {path} can be read by others; run `chmod 600 {path}`, and take another token.")
    if len(token) < SHORTEST or not token.isascii() or not token.isprintable() or " " in token:
        raise InputError(f"--token-file {path} has no token: one line of at least {SHORTEST} letters and digits.")
    return token
