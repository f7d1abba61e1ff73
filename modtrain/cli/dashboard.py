"""`dashboard`: serve the runs and sweeps below a folder as web pages, or export the pages as files."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modtrain.cli.arguments import Command
from modtrain.cli.options import Count, Text, option
from modtrain.cli.output import echo
from modtrain.errors import InputError, counted

if TYPE_CHECKING:
    from modtrain.dashboard.access import Access

FIRST_SCAN_S = 2.0
"""Longest wait for the first scan of a large folder before the link is printed."""
File = Path | None
access = functools.partial(option, "Access")


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(cls=Command)(dashboard)


def dashboard(
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="A folder of runs and sweeps, or one.")] = Path("runs"),
    port: Annotated[Count, access("Port to listen on. [8787, or the next free one]", metavar="N")] = None,
    host: Annotated[Text, access("Address to listen on; any but a loopback one needs a token. [127.0.0.1]")] = None,
    open_it: Annotated[bool, access("Open the page in a browser on this machine.", "--open")] = False,
    token: Annotated[bool, access("Require a token; the printed link contains a new one.", "--token")] = False,
    token_file: Annotated[File, access("Require the token in this file, readable by you only.", metavar="FILE")] = None,
    prefix: Annotated[Text, access("Path prefix that a proxy keeps, such as /node/HOST/PORT.")] = None,
    allow_host: Annotated[list[str] | None, access("Host name that a proxy uses; repeatable.", metavar="NAME")] = None,
    export: Annotated[File, option("Export", "Write the pages as files instead.", metavar="DIR")] = None,
) -> None:
    """Serve runs and sweeps as web pages.

    Reads below ROOT and never writes there. To open the pages on another computer, run the printed ssh command there,
    then open the link.
    """
    if not root.is_dir():
        raise InputError(f"{root} is not a folder; give the folder of your runs.")
    if export is None:
        host = host or "127.0.0.1"
        _serve(root, host, port, _access(host, token, token_file, prefix, allow_host or []), open_it=open_it)
    elif port is not None or any((host, open_it, token, token_file, prefix, allow_host)):
        raise InputError("--export writes files and serves nothing; leave out the access options.")
    else:
        _export(root, export)


def _export(root: Path, target: Path) -> None:
    import sys

    from modtrain.dashboard.static_export import export

    is_terminal = sys.stderr.isatty()

    def show_progress(done: int, total: int) -> None:
        if is_terminal or done == total or done % 100 == 0:
            nl = done == total or not is_terminal
            echo(f"Exported {done} of {total}", nl=nl, in_place=is_terminal, err=True)

    written = export(root, target, show_progress)
    subjects = [counted(n, noun) for n, noun in ((written.runs, "run"), (written.sweeps, "sweep")) if n]
    echo(f"Wrote {', '.join([*subjects, counted(written.pages, 'page')])}: open {target / 'index.html'}")


def _access(host: str, token: bool, token_file: Path | None, prefix: str | None, names: list[str]) -> Access:
    import re
    import secrets

    from modtrain.dashboard.access import Access, is_loopback, name_of, own_names
    from modtrain.dashboard.server import read_token

    if not is_loopback(host) and not token and token_file is None:
        raise InputError(
            f"--host {host} makes your runs visible on the network: add --token or --token-file FILE, or leave --host "
            "out and use ssh."
        )
    for name in names:
        if not name_of(name) or "/" in name:
            raise InputError(f"--allow-host {name} is not allowed; give a host name, such as ood.example.org.")
    if prefix and not re.fullmatch(r"(/[\w.~%:@!$&'()*+,;=-]+)+/?", prefix, re.ASCII):
        raise InputError(f"--prefix {prefix} is not allowed; give a path, such as /node/n12/8787.")
    return Access(
        hosts=own_names(host, names),
        any_address=not is_loopback(host),
        token=read_token(token_file) if token_file else secrets.token_urlsafe(24) if token else None,
        prefix=(prefix or "").rstrip("/"),
    )


def _serve(root: Path, host: str, port: int | None, access: Access, *, open_it: bool) -> None:
    import dataclasses
    import hashlib
    import threading
    import webbrowser

    from modtrain.dashboard import server as serve

    listening = serve.listen(host, port)
    bound = listening.getsockname()[1]
    # Browsers send a cookie to every port of a host, so each dashboard has its own name.
    name = "modtrain-" + hashlib.sha256(f"{bound} {root.resolve()}".encode(errors="replace")).hexdigest()[:8]
    link = _link(host, bound, access)
    server, pages = serve.server(root, dataclasses.replace(access, cookie=name))
    pages.start(wait_s=FIRST_SCAN_S)
    _print_addresses(root, host, bound, link, moved=port is None and bound != serve.PORT)
    with contextlib.ExitStack() as stack:
        if open_it:
            address = stack.enter_context(_redirect_file(link)) if access.token else link
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
        server.run(sockets=[listening])


def _link(host: str, port: int, access: Access) -> str:
    import socket
    from urllib.parse import quote

    token = f"?token={quote(access.token, safe='')}" if access.token else ""
    return f"http://{_url_host(host, socket.gethostname())}:{port}{access.prefix}/{token}"


def _url_host(host: str, everywhere: str) -> str:
    """The host as it is written before a port: `everywhere` for one that stands for all addresses."""
    from modtrain.dashboard.access import address_of

    address = address_of(host)
    return everywhere if address and address.is_unspecified else f"[{host}]" if ":" in host else host


def _print_addresses(root: Path, host: str, port: int, link: str, *, moved: bool) -> None:
    import getpass
    import socket
    from urllib.parse import urlsplit

    from modtrain.dashboard.urls import shown

    if moved:
        echo(f"Port 8787 is in use; using port {port}.")
    echo(f"{shown(str(root))}: {link}")
    near = _url_host(host, "[::1]" if ":" in host else "127.0.0.1")  # a socket on :: may not accept IPv4
    tunnel = f"ssh -L {port}:{near}:{port} {getpass.getuser()}@{socket.gethostname()}"
    tunnelled = urlsplit(link)._replace(netloc=f"localhost:{port}").geturl()
    then = "" if host in ("127.0.0.1", "localhost") else f", then {tunnelled}"
    echo(f"From another computer: {tunnel}{then}")
    echo("Press Ctrl-C to stop.")


@contextlib.contextmanager
def _redirect_file(link: str) -> Iterator[str]:
    """The URL of a private file that redirects to the link: `ps` shows the arguments of a browser to all users.

    The file is deleted at the end, also on SIGTERM.
    """
    import html
    import signal
    import sys
    import tempfile

    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    descriptor, name = tempfile.mkstemp(prefix="modtrain-", suffix=".html")  # of mode 0600
    try:
        with open(descriptor, "w") as file:
            url = html.escape(link)
            file.write(f'<meta http-equiv="refresh" content="0; url={url}"><a href="{url}">Dashboard</a>\n')
        yield Path(name).as_uri()
    finally:
        Path(name).unlink(missing_ok=True)
        signal.signal(signal.SIGTERM, before)
