"""The command line: options in, tables or JSON out, one clear sentence and an exit code where something is wrong.

Everything here can be done from Python with the package's public names. Deliberately not here: any work. torch, ray and
pydantic's models are imported where a command needs them.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Annotated, Any

import typer

from modtrain.cli import dashboard, evaluate, history, launch, recipes, status, sweep, worker
from modtrain.cli.arguments import Commands
from modtrain.errors import ModtrainError, StorageError, did_you_mean

app = typer.Typer(
    name="modtrain",
    cls=Commands,
    help="Train a model module by module, asynchronously, over nothing but a shared folder.\n\n"
    "`modtrain launch` trains the built-in demo; `modtrain status runs/NAME` shows how far it is.",
    epilog="`modtrain COMMAND --help` explains a command. Exit codes: 0 done, 2 wrong input, 3 stopped, "
    "130 interrupted, 75 told to leave, 1 and 4 to 8 failed (4 overtaken, 5 NaN, 6 storage, 7 a peer was late, "
    "8 a cluster is silent).",
    invoke_without_command=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (launch, sweep, status, worker, evaluate, recipes, dashboard, history):
    module.add_to(app)


class Said(logging.StreamHandler[Any]):
    """Log lines on stderr; it remembers the last one, so that an error that was logged is not said twice."""

    last: str = ""
    error: object = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write and remember."""
        self.last = record.getMessage()
        self.error = record.exc_info[1] if record.exc_info else None
        super().emit(record)


def main() -> None:
    """Run the command line; an expected error is one sentence and its exit code."""
    said = Said()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[said])
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    try:
        code = app(standalone_mode=False, prog_name="modtrain")
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    except KeyboardInterrupt:
        code = 130
    except Exception as error:
        if error is not said.error:
            _say(error, said.last)
        code = getattr(error, "exit_code", StorageError.exit_code if isinstance(error, OSError) else 1)
    sys.exit(code if isinstance(code, int) else 0)


@app.callback()
def program(
    ctx: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    """Show help where nothing is asked for."""
    if version:
        from importlib.metadata import distributions

        typer.echo("modtrain " + next((found.version for found in distributions(name="modtrain")), "(not installed)"))
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())
        raise typer.Exit


def _say(error: Exception, logged: str) -> None:
    """One sentence for what is expected; a traceback is a bug of ours."""
    sentence = _sentence(error)
    if sentence is None:
        sys.excepthook(type(error), error, error.__traceback__)
    elif sentence != logged:
        from modtrain.cli.terminal import plain

        # It may repeat names of a folder that anybody made.
        typer.echo("\n".join(map(plain, f"modtrain: {sentence}".splitlines())), err=True)


def _sentence(error: Exception) -> str | None:
    if isinstance(error, ModtrainError):
        return str(error)
    if isinstance(error, OSError):
        where = f" ({error.filename})" if error.filename else ""
        return f"The operating system refused: {error.strerror or error}{where}."
    if not hasattr(error, "format_message"):
        return None
    near = did_you_mean(getattr(error, "option_name", ""), getattr(error, "possibilities", None) or [])
    message = str(getattr(error, "message", "") if near else error.format_message())
    path = getattr(getattr(error, "ctx", None), "command_path", "modtrain")
    return f"{message.rstrip('.?')}{'?' if message.endswith('?') else '.'}{near} See `{path} --help`."
