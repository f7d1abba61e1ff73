"""`dashboard`: the runs and sweeps below a folder as web pages, served on this machine or written as files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modtrain.cli.arguments import Command
from modtrain.cli.options import Count, Text, option
from modtrain.errors import InputError

if TYPE_CHECKING:
    from modtrain.dashboard.access import Access

REACH = "Access"
FILES = "As files"
FIRST_READING_S = 2.0
"""How long the command waits for the first reading of a large folder before it prints the link."""


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(cls=Command)(dashboard)


def dashboard(
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="A folder of runs and sweeps, or one of them.")] = Path(
        "runs"
    ),
    port: Annotated[Count, option(REACH, "[8787, or the next one that is free]", metavar="N")] = None,
    host: Annotated[
        str, option(REACH, "Address to listen on; any but a loopback address needs a token. [127.0.0.1]")
    ] = "127.0.0.1",
    open_it: Annotated[bool, option(REACH, "Open it in the browser of this machine.", "--open")] = False,
    token: Annotated[bool, option(REACH, "Require a token, which is part of the printed link.")] = False,
    token_file: Annotated[
        Path | None, option(REACH, "The same, with the token from a file that only you can read.", metavar="FILE")
    ] = None,
    prefix: Annotated[Text, option(REACH, "Path that a proxy in front keeps, such as /node/HOST/PORT.")] = None,
    allow_host: Annotated[
        list[str] | None, option(REACH, "Host name that a proxy uses for it; repeatable.", metavar="NAME")
    ] = None,
    export: Annotated[Path | None, option(FILES, "Write the pages as files and exit.", metavar="DIR")] = None,
) -> None:
    """Show runs and sweeps as web pages.

    Nothing is written below ROOT. To open it from another machine, run the ssh command that it prints, then the link.
    """
    if not root.is_dir():
        raise InputError(f"There is no folder {root}; give the folder that contains your runs.")
    if export is None:
        _serve(root, host, port, _access(host, token, token_file, prefix, allow_host or []), open_it=open_it)
        return
    if port is not None or host != "127.0.0.1" or any((open_it, token, token_file, prefix, allow_host)):
        raise InputError(
            "--export writes files and serves nothing: leave out --port, --host and the other options of access."
        )
    _export(root, export)


def _export(root: Path, target: Path) -> None:
    import sys

    from modtrain.dashboard.static_export import export

    is_terminal = sys.stderr.isatty()

    def progress(done: int, of: int) -> None:
        if is_terminal:
            typer.echo(f"\r{done} of {of} runs and sweeps", nl=done == of, err=True)
        elif done == of or done % 100 == 0:
            typer.echo(f"{done} of {of} runs and sweeps", err=True)

    written = export(root, target, progress)
    typer.echo(f"{written.pages} page{'s' * (written.pages != 1)}: open {target / 'index.html'}")


def _access(host: str, token: bool, token_file: Path | None, prefix: str | None, names: list[str]) -> Access:
    from modtrain.dashboard.access import Access, is_loopback, name_of, own_names
    from modtrain.dashboard.server import new_token, read_token

    if not is_loopback(host) and not token and token_file is None:
        raise InputError(
            f"--host {host} would show your runs to everyone on the network: add --token or --token-file FILE, or "
            "leave --host out and connect through ssh."
        )
    for name in names:
        if not name_of(name) or "/" in name:
            raise InputError(f"--allow-host {name} is not a host name; give one such as ood.example.org.")
    wanted = read_token(token_file) if token_file else new_token() if token else None
    return Access(
        hosts=own_names(host, names),
        any_address=not is_loopback(host),
        token=wanted,
        prefix=_prefix(prefix or ""),
    )


def _prefix(prefix: str) -> str:
    import re

    if prefix and not re.fullmatch(r"(/[\w.~%:@!$&'()*+,;=-]+)+/?", prefix, re.ASCII):
        raise InputError(f"--prefix {prefix} is not a path; give one such as /node/n12/8787.")
    return prefix.rstrip("/")


def _serve(root: Path, host: str, port: int | None, access: Access, *, open_it: bool) -> None:
    import dataclasses
    import hashlib

    from modtrain.dashboard import server as serve

    listening = serve.listen(host, port)
    taken = listening.getsockname()[1]
    # Browsers send a cookie to every port of a host: each dashboard has a cookie name of its own.
    name = "modtrain-" + hashlib.sha256(f"{taken} {root.resolve()}".encode(errors="replace")).hexdigest()[:8]
    link = _link(host, taken, access)
    server, pages = serve.server(root, dataclasses.replace(access, cookie=name))
    pages.start(wait_s=FIRST_READING_S)
    _print_link(root, host, taken, link, moved=port is None and taken != serve.PORT)
    with contextlib.ExitStack() as stack:
        if open_it:
            _open(stack.enter_context(_private_redirect(link)) if access.token else link)
        server.run(sockets=[listening])


def _link(host: str, port: int, access: Access) -> str:
    import socket
    from urllib.parse import quote

    name = socket.gethostname() if _is_everywhere(host) else _bracketed(host)
    token = f"?token={quote(access.token, safe='')}" if access.token else ""
    return f"http://{name}:{port}{access.prefix}/{token}"


def _is_everywhere(host: str) -> bool:
    import ipaddress

    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _bracketed(host: str) -> str:
    """A host as it is written before a port."""
    return f"[{host}]" if ":" in host else host


def _print_link(root: Path, host: str, port: int, link: str, *, moved: bool) -> None:
    import getpass
    import socket
    from urllib.parse import urlsplit

    from modtrain.dashboard.urls import shown

    if moved:
        typer.echo(f"Port 8787 is in use; this dashboard is on port {port}.")
    typer.echo(f"{shown(str(root))}: {link}")
    loopback = "[::1]" if ":" in host else "127.0.0.1"  # a socket on :: is not reached by IPv4
    near = loopback if _is_everywhere(host) else _bracketed(host)
    tunnel = f"ssh -L {port}:{near}:{port} {getpass.getuser()}@{socket.gethostname()}"
    through = urlsplit(link)._replace(netloc=f"localhost:{port}").geturl()
    then = "" if host in ("127.0.0.1", "localhost") else f", then {through}"
    typer.echo(f"From elsewhere: {tunnel}{then}")
    typer.echo("Ctrl-C ends it.")


@contextlib.contextmanager
def _private_redirect(link: str) -> Iterator[str]:
    """The address of a private file that redirects to the link, since `ps` shows the arguments of a browser to all.

    The file is removed at the end, also after SIGTERM.
    """
    import html
    import signal
    import sys
    import tempfile

    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    descriptor, name = tempfile.mkstemp(prefix="modtrain-", suffix=".html")  # of mode 0600
    try:
        with open(descriptor, "w") as file:
            to = html.escape(link)
            file.write(f'<meta http-equiv="refresh" content="0; url={to}"><a href="{to}">To the dashboard</a>\n')
        yield Path(name).as_uri()
    finally:
        Path(name).unlink(missing_ok=True)
        signal.signal(signal.SIGTERM, before)


def _open(link: str) -> None:
    import threading
    import webbrowser

    threading.Thread(target=webbrowser.open, args=(link,), daemon=True).start()
