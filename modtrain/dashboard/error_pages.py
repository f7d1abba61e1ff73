"""Error pages, and the page that sets the cookie after a link with the right token."""

from __future__ import annotations

import functools
from typing import Any
from urllib.parse import quote

import jinja2
from starlette.responses import HTMLResponse, Response
from starlette.types import Scope

from modtrain.dashboard.urls import shown


@functools.cache
def templates() -> jinja2.Environment:
    """The pages' templates; every value is escaped."""
    return jinja2.Environment(loader=jinja2.PackageLoader("modtrain.dashboard"), autoescape=True)


def problem(scope: Scope, code: int, title: str, says: str) -> Response:
    """A page that names the problem, with an HTTP status code."""
    words: dict[str, Any] = {"title": title, "says": shown(says), "base": scope.get("base", "")}
    headers = {"cache-control": "no-store"}
    if code == 405:
        headers["allow"] = "GET, HEAD"
    return HTMLResponse(templates().get_template("problem.html").render(words), code, headers)


def welcome(scope: Scope, cookie: str, secret: str, token: str) -> Response:
    """Set the cookie and lead to the page without the token in its address.

    A page rather than a redirect: after a link from another site a browser would not send a SameSite=Strict cookie to
    the target of a redirect. The cookie has no Path, so that it applies to the folder that the browser sees, behind
    any proxy: therefore the link must lead to the top.
    """
    base = scope["base"]
    to = "./" if not base else f"{base}?token={quote(token, safe='')}"
    text = templates().get_template("welcome.html").render(to=to)
    answer = HTMLResponse(text, headers={"cache-control": "no-store"})
    if not base:
        answer.headers.append("set-cookie", f"{cookie}={secret}; HttpOnly; SameSite=Strict")
    return answer
