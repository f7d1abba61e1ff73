"""A real browser in tests: Debian's Chromium, which reaches one server only, with its console messages."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, Request, Route, sync_playwright

CHROMIUM = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
VIOLATIONS = """
document.addEventListener("securitypolicyviolation", (event) => console.error(`policy: ${event.violatedDirective}`));
"""
WAIT_MS = 60_000


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """The browser that `make system-packages` installs: without windows of its own it takes half the CPU time."""
    path = next((path for name in CHROMIUM if (path := shutil.which(name))), "")
    assert path, "there is no Chromium; `make system-packages` installs Debian's"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=[*QUIET])
        try:
            yield browser
        finally:
            browser.close()


class Tab:
    """A page with its errors, and its requests beyond its own origin."""

    def __init__(self, page: Page, origin: str) -> None:
        self.page, self.origin = page, origin
        self.complaints: list[str] = []
        self.elsewhere: list[str] = []
        page.set_default_timeout(WAIT_MS)
        page.add_init_script(VIOLATIONS)
        page.on(
            "console",
            lambda message: self.complaints.append(message.text) if message.type in ("error", "warning") else None,
        )
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: (self.complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.route("**/*", self._only_own)

    def _only_own(self, route: Route, request: Request) -> None:
        if request.url.startswith((self.origin, "data:")):
            route.continue_()
        else:
            self.elsewhere.append(request.url)
            route.abort()

    def open(self, address: str = "") -> Page:
        """Go to an address below the origin, and wait until it is drawn."""
        self.page.goto(self.origin + address)
        self.page.wait_for_selector("main h1")
        return self.page

    def is_clean(self) -> None:
        """Assert that there were no errors, and no requests to another origin."""
        assert self.complaints == []
        assert self.elsewhere == []


@contextlib.contextmanager
def tab(browser: Browser, origin: str, **options: Any) -> Iterator[Tab]:
    """A fresh profile with one tab; `origin` ends with a slash."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
    opened = Tab(context.new_page(), origin)
    try:
        yield opened
    finally:
        opened.page.unroute_all(behavior="ignoreErrors")  # a response may be passing through one
        context.close()


def file_origin(folder: Path) -> str:
    """A folder on disk as an origin."""
    return folder.resolve().as_uri() + "/"
