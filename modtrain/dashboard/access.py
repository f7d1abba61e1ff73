"""Access control: the Host header, the token (once in a link, then a cookie), and the headers of every response.

Only GET and HEAD are allowed. A prefix that a proxy kept is removed from the path. The pages that refuse a request, and
the templates of all pages, are here as well.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import hmac
import ipaddress
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import parse_qs, quote

import jinja2
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from modtrain.dashboard.payload import as_json
from modtrain.dashboard.urls import base_of, shown

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
    "cache-control": "private, no-cache",
}
"""Of every response that sets no others."""
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
        self._refusing = asyncio.Semaphore(MOST_WRONG)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass the request on with its path still encoded and without the prefix."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        path, prefix = scope["raw_path"].decode("latin-1"), self._access.prefix
        if path.startswith(f"{prefix}/"):  # proxies keep the prefix or remove it; both work
            path = path.removeprefix(prefix)
        scope = {**scope, "path": path, "root_path": "", "base": base_of(path[1:])}
        answer = self._refuse(scope) or await self._check_token(scope) or self._app
        await answer(scope, receive, send_with_headers)

    def _refuse(self, scope: Scope) -> Response | None:
        host = Headers(scope=scope).get("host", "")
        if not self._is_ours(name_of(host)):
            says = f"This dashboard does not answer for the host {host!r}. Use the link that it printed"
            return problem(scope, 421, "Wrong host", f"{says}, or start it with --allow-host NAME.")
        if scope["method"] not in ("GET", "HEAD"):
            return problem(scope, 405, "Read-only", "The dashboard is read-only: use GET or HEAD.")
        if len(scope["raw_path"]) + len(scope["query_string"]) > LONGEST_BYTES:
            return problem(scope, 414, "Too long", f"An address has at most {LONGEST_BYTES} bytes.")
        return None

    async def _check_token(self, scope: Scope) -> Response | None:
        access = self._access
        if access.token is None:
            return None
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[-1]
        if hmac.compare_digest(given.encode(), access.token.encode()):
            return welcome(scope, access) if scope["path"].endswith("/") else None
        if self._has_cookie(scope):
            return None
        if not given:
            return problem(scope, 403, "Token required", "Open the link with the token that the dashboard printed.")
        if self._refusing.locked():
            return problem(scope, 429, "Too many tries", "Too many wrong tokens at the same time; try again later.")
        async with self._refusing:
            await asyncio.sleep(WRONG_S)
        says = "This is not the token of this dashboard. Use the link that it printed."
        return problem(scope, 403, "Wrong token", says)

    def _has_cookie(self, scope: Scope) -> bool:
        """Each cookie of this host is parsed by itself: a malformed one does not affect the others."""
        secret = self._access.secret.encode()
        pairs = [pair.partition("=") for line in Headers(scope=scope).getlist("cookie") for pair in line.split(";")]
        own = [value.strip() for name, _, value in pairs if name.strip() == self._access.cookie]
        return any(hmac.compare_digest(value.encode(), secret) for value in own)

    def _is_ours(self, name: str) -> bool:
        is_named = name in self._access.hosts or name.endswith(".localhost")
        return is_named or is_loopback(name) or (self._access.any_address and address_of(name) is not None)


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


def address_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The IP address that a host is; None for a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it."""
    return host == "localhost" or bool((address := address_of(host)) and address.is_loopback)


@functools.cache
def templates() -> jinja2.Environment:
    """The pages' templates; every value is escaped, also in `tojson`."""
    environment = jinja2.Environment(loader=jinja2.PackageLoader("modtrain.dashboard"), autoescape=True)
    environment.policies |= {"json.dumps_function": as_json, "json.dumps_kwargs": {}}
    return environment


def problem(scope: Scope, code: int, title: str, says: str) -> Response:
    """A page that names the problem, with an HTTP status code."""
    text = templates().get_template("problem.html").render(title=title, says=shown(says), base=scope.get("base", ""))
    return HTMLResponse(text, code, {"cache-control": "no-store"} | ({"allow": "GET, HEAD"} if code == 405 else {}))


def welcome(scope: Scope, access: Access) -> Response:
    """Set the cookie and lead to the page without the token in its address.

    A page rather than a redirect: after a link from another site a browser would not send a SameSite=Strict cookie to
    the target of a redirect. The cookie has no Path, so that it applies to the folder that the browser sees, behind
    any proxy: therefore the link must lead to the top.
    """
    base = scope["base"]
    to = f"{base}?token={quote(access.token or '', safe='')}" if base else "./"
    cookie = {} if base else {"set-cookie": f"{access.cookie}={access.secret}; HttpOnly; SameSite=Strict"}
    text = templates().get_template("welcome.html").render(to=to)
    return HTMLResponse(text, headers={"cache-control": "no-store", **cookie})
