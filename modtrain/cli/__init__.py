"""The command line. Each command parses its options, calls a function that Python can call as well, and prints.

An error is one sentence on standard error and an exit code. torch, ray and pydantic's models are imported by the
commands that need them, so that `--help` is quick.
"""

from __future__ import annotations

import functools
import logging
import sys
import traceback
from typing import Annotated, Any

import typer
from typer.main import get_command

from modtrain.cli import (
    bench,
    check,
    closed_pipe,
    dashboard,
    evaluate,
    export,
    history,
    launch,
    recipes,
    sample,
    score,
    status,
    sweep,
    worker,
)
from modtrain.cli.output import KEPT, echo
from modtrain.errors import ModtrainError, did_you_mean, plain
from modtrain.storage.filesystem import unexpected_exit_code

app = typer.Typer(
    name="modtrain",
    help="Train a model module by module, asynchronously, over a shared folder.\n\n"
    "`modtrain launch` trains the built-in demo; `modtrain status runs/NAME` shows its progress.",
    epilog="`modtrain COMMAND --help` describes a command. Exit codes: 0 success, 2 wrong input, 3 stopped, "
    "75 preempted, 130 interrupted; failures: 1 other error, 4 fenced out by another worker, 5 NaN or infinity, "
    "6 storage, 7 timeout of a peer, 8 no answer from the cluster.",
    invoke_without_command=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
COMMANDS = launch, sweep, status, worker, evaluate, sample, score, export, recipes, check, dashboard, history, bench
for module in COMMANDS:
    module.add_to(app)


class LastMessageHandler(logging.StreamHandler[Any]):
    """Log handler for standard error that keeps the last message, so that a logged error is not printed again.

    Names in messages come from files: control characters are escaped.
    """

    message: str = ""
    error: object = None

    def emit(self, record: logging.LogRecord) -> None:
        self.message = record.getMessage()
        self.error = record.exc_info[1] if record.exc_info else None
        super().emit(record)

    def format(self, record: logging.LogRecord) -> str:
        return plain(super().format(record), KEPT)


def main() -> None:
    """Run the command line and exit; an expected error is one sentence and its exit code."""
    logged = LastMessageHandler()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[logged])
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    try:
        code = _commands()(standalone_mode=False, prog_name="modtrain")
        sys.stdout.flush()
    except BrokenPipeError:
        code = closed_pipe.EXIT_CODE
    except KeyboardInterrupt:
        code = 130
    except Exception as error:
        if error is not logged.error:
            _print_error(error, logged.message)
        code = getattr(error, "exit_code", unexpected_exit_code(error))
    closed_pipe.leave()  # else Python complains at its exit
    sys.exit(code if isinstance(code, int) else 0)


@functools.cache
def _commands() -> Any:
    """The commands as click has them: to build all of them takes longer than to run most."""
    return get_command(app)


@app.callback()
def program(
    ctx: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False
) -> None:
    """Show the help where no command is given."""
    if version:
        from importlib.metadata import distributions

        versions = (distribution.version for distribution in distributions(name="modtrain"))
        echo("modtrain " + next(versions, "(not installed)"))
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        echo(ctx.get_help())
        raise typer.Exit


def _print_error(error: Exception, logged: str) -> None:
    """Print the sentence of an expected error, unless it was logged already; any other error with its traceback."""
    sentence = _sentence(error)
    if sentence is None:
        echo("".join(traceback.format_exception(error)), err=True, nl=False)
    elif sentence != logged:
        echo(f"modtrain: {sentence}", err=True)


def _sentence(error: Exception) -> str | None:
    """The message of an expected error; None for a bug."""
    if isinstance(error, ModtrainError):
        return str(error)
    if isinstance(error, OSError):
        where = f" ({error.filename})" if error.filename else ""
        return f"The operating system refused: {error.strerror or error}{where}."
    if not hasattr(error, "format_message"):
        return None
    possible = getattr(error, "possibilities", None) or []
    near = did_you_mean(getattr(error, "option_name", ""), possible)
    message = str(getattr(error, "message", "") if possible else error.format_message())
    path = getattr(getattr(error, "ctx", None), "command_path", "modtrain")
    return f"{message.rstrip('.?')}{'?' if message.endswith('?') else '.'}{near} See `{path} --help`."
