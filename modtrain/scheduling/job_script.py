"""The text of a job script, from a Jinja2 template: readable, complete by itself, every value quoted.

A site's own template (`template:` of a profile) gets the same names, and may include or extend ours; a name that does
not exist is an error. Deliberately not here: what the directives are (`backends/slurm.py`, `backends/pbs.py`).
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING

from modtrain.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "backends" / "templates"
MAX_QUICK_DEATHS = 16
"""How often in a row a script starts a worker again that was killed within a minute."""


@dataclass(frozen=True, kw_only=True)
class Script:
    """What a template is given; every field is a name in it."""

    about: str
    """What this job is, for the comment at the top."""
    submit: str
    """The command that submits it by hand."""
    path: Path
    log: Path
    journal: Path
    """Takes a line when the worker starts, ends, or is continued by another job."""
    marker: str
    """What begins a directive: #SBATCH, #PBS."""
    directives: Sequence[str]
    command: Sequence[str]
    tasks: Sequence[int] = ()
    """Of an array: the task of each index, given to the command as `--task`. Log and journal have one in their name."""
    environment: dict[str, str] = field(default_factory=dict)
    tools: Path | None = None
    """The folder of the scheduler's commands, for a node whose login shell does not find them."""
    umask: str = "0022"
    """Of the person who submits: what the job writes is for the same readers."""
    prologue: Sequence[str] = ()
    epilogue: Sequence[str] = ()
    limit_s: int | None = None
    """The walltime; None where it is not known."""
    publish_before_s: int = 0
    chain: int = 1
    max_quick_deaths: int = MAX_QUICK_DEATHS


def render(script: Script, template: str, own: str | None = None) -> str:
    """The script's text by one of our templates, or by a site's `own`; InputError where that one is wrong."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([TEMPLATES, *([Path(own).parent] if own else [])]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"sh": quoted, "comment": comment}
    values = {item.name: getattr(script, item.name) for item in fields(script)}
    if own is None:
        return environment.get_template(template).render(values)
    try:
        text = Path(own).read_text(encoding="utf-8")
        _blocks(text, environment, own)
        return environment.from_string(text).render(values)
    except InputError:
        raise
    except Exception as error:  # a template is a program of the site's
        raise InputError(f"The job script template {own}{_said(error, values)}") from None


def _blocks(text: str, environment: Environment, own: str) -> set[str]:
    """The blocks of a template and of those that it extends.

    InputError for one that nothing above has, and that is in no other: it would be left out without a word.
    """
    from jinja2 import nodes

    tree = environment.parse(text)
    blocks = list(tree.find_all(nodes.Block))
    names, extends = {block.name for block in blocks}, tree.find(nodes.Extends)
    if extends is None or environment.loader is None:
        return names
    if not isinstance(extends.template, nodes.Const):  # known only when it is rendered
        return names
    base = str(extends.template.value)
    above = _blocks(environment.loader.get_source(environment, base)[0], environment, base)
    inner = {nested.name for block in blocks for nested in block.find_all(nodes.Block)}
    for name in sorted(names - above - inner):
        has, near = ", ".join(sorted(above)) or "none", did_you_mean(name, above)
        raise InputError(f"The job script template {own} has a block {name!r}; {base} has {has}.{near}")
    return names | above


def _said(error: Exception, names: Iterable[str]) -> str:
    """What is wrong with a template."""
    import jinja2

    if isinstance(error, jinja2.TemplateNotFound):
        return f" asks for {error.name}, which is neither beside it nor one of ours."
    if isinstance(error, OSError):
        return f" cannot be read: {error.strerror}."
    line = f", line {error.lineno}" if isinstance(error, jinja2.TemplateSyntaxError) else ""
    known = f" It may use {', '.join(names)}." if isinstance(error, jinja2.UndefinedError) else ""
    return f"{line}: {' '.join(str(error).split()).rstrip('.')}.{known}"


def quoted(value: object) -> str:
    """One word of a shell, whatever is in it."""
    return shlex.quote(str(value))


def comment(value: object) -> str:
    """One printable line, whatever is in it: a comment must not end early."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(value))


def job_name(name: str, belongs_to: Path, longest: int) -> str:
    """A name that every scheduler takes: letters, digits and `._-`, at most so long, another for each run's folder."""
    mark = hashlib.sha256(f"{belongs_to}\0{name}".encode()).hexdigest()[:4]
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._-")
    plain = plain if plain[:1].isalpha() else f"m{plain}"
    return f"{plain[: longest - 5]}-{mark}"


def without(directives: Iterable[str], left_out: Sequence[str]) -> list[str]:
    """The directives but those that begin with one of `left_out` (`--mem`, `-l walltime`), word by word."""

    def words(text: str) -> list[str]:
        return [word for word in re.split(r"[\s=]+", text) if word]

    begun = [words(entry) for entry in left_out]
    return [line for line in directives if not any(words(line)[: len(entry)] == entry for entry in begun)]
