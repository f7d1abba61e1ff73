"""Access control: the Host header, the token (once in a link, then a cookie), and the headers of every response.

Only GET and HEAD are allowed. A prefix that a proxy kept is removed from the path.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from modtrain.dashboard.error_pages import problem, welcome
from modtrain.dashboard.urls import base_of

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
WRONG_S = 0.5
"""Seconds before a wrong token is refused."""
MOST_WRONG = 20
"""Refusals that wait at the same time."""
LONGEST_BYTES = 8192
"""Longest address."""


@dataclass(frozen=True, kw_only=True)
class Access:
    """Under which names and with which token the dashboard can be reached."""

    hosts: frozenset[str] = frozenset()
    any_address: bool = False
    """Every IP address is accepted as Host: only host names can be redirected by an attacker (DNS rebinding)."""
    token: str | None = None
    prefix: str = ""
    """Without a trailing slash."""
    cookie: str = "modtrain"

    @property
    def secret(self) -> str:
        """The value of the cookie: derived from the token, which it does not reveal."""
        return hmac.new((self.token or "").encode(), b"modtrain dashboard cookie", hashlib.sha256).hexdigest()


class Guard:
    """ASGI middleware around the pages."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access
        self._wrong = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass the request on with its path still encoded and without the prefix."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = _without(self._access.prefix, scope["raw_path"].decode("latin-1"))
        scope = {**scope, "path": path, "root_path": "", "base": base_of(path[1:])}
        answer = self._refused(scope) or await self._unknown(scope) or self._app
        await answer(scope, receive, _with_headers(send))

    def _refused(self, scope: Scope) -> ASGIApp | None:
        host = Headers(scope=scope).get("host", "")
        if not self._is_ours(host):
            says = f"This dashboard does not answer for the host {host!r}. Use the link that it printed"
            return problem(scope, 421, "Wrong host", f"{says}, or start it with --allow-host NAME.")
        if scope["method"] not in ("GET", "HEAD"):
            return problem(scope, 405, "Read-only", "The dashboard is read-only: use GET or HEAD.")
        if len(scope["raw_path"]) + len(scope["query_string"]) > LONGEST_BYTES:
            return problem(scope, 414, "Too long", f"An address has at most {LONGEST_BYTES} bytes.")
        return None

    async def _unknown(self, scope: Scope) -> ASGIApp | None:
        access = self._access
        if access.token is None:
            return None
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[-1]
        if hmac.compare_digest(given.encode(), access.token.encode()):
            is_page = scope["path"].endswith("/")
            return welcome(scope, access.cookie, access.secret, given) if is_page else None
        if self._has_cookie(scope):
            return None
        if not given:
            return problem(scope, 403, "Token required", "Open the link with the token that the dashboard printed.")
        if self._wrong >= MOST_WRONG:
            return problem(scope, 429, "Too many tries", "Too many wrong tokens at the same time; try again later.")
        self._wrong += 1
        try:
            await asyncio.sleep(WRONG_S)
        finally:
            self._wrong -= 1
        return problem(
            scope, 403, "Wrong token", "This is not the token of this dashboard. Use the link that it printed."
        )

    def _has_cookie(self, scope: Scope) -> bool:
        """Each cookie of this host is parsed by itself: a malformed one does not affect the others."""
        secret = self._access.secret.encode()
        pairs = [pair.partition("=") for line in Headers(scope=scope).getlist("cookie") for pair in line.split(";")]
        own = [value.strip() for name, _, value in pairs if name.strip() == self._access.cookie]
        return any(hmac.compare_digest(value.encode(), secret) for value in own)

    def _is_ours(self, host: str) -> bool:
        name = name_of(host)
        if name in self._access.hosts or name == "localhost" or name.endswith(".localhost"):
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or self._access.any_address


def name_of(host: str) -> str:
    """The host of a Host header or of a command-line option, without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    if host.count(":") > 1:
        return host.lower()
    return host.partition(":")[0].lower().rstrip(".")


def own_names(host: str, allowed: Iterable[str]) -> frozenset[str]:
    """The names of a server that listens on `host`, beside localhost and loopback addresses."""
    names = {name_of(name) for name in (host, *allowed)}
    if not is_loopback(host):
        names |= {socket.gethostname().lower(), socket.getfqdn().lower()}
    return frozenset(names - {""})


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _without(prefix: str, path: str) -> str:
    """Proxies keep the prefix or remove it; both work."""
    return path.removeprefix(prefix) if prefix and path.startswith(prefix + "/") else path


def _with_headers(send: Send) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            headers.setdefault("cache-control", "private, no-cache")
        await send(message)

    return sent
