"""The text of a job script, from a Jinja2 template: readable, self-contained, every value quoted.

A site's own template (`template:` of a profile) gets the same names, and may include or extend ours; an unknown name
or block is an error. The directives come from `backends/slurm.py` and `backends/pbs.py`.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING

from modtrain.errors import InputError, did_you_mean
from modtrain.scheduling.profile import Profile
from modtrain.scheduling.restarts import MAX_PAUSE_S, MAX_RESTARTS, QUICK_FAILURE_S

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "backends" / "templates"


@dataclass(frozen=True, kw_only=True)
class Script:
    """The values of a template; every field is a name in it, and every job option of the profile."""

    about: str
    """What this job is, for the comment at the top."""
    submit: str
    """Command that submits the script by hand."""
    path: Path
    log: Path
    """Log of the worker; for an array, the folder of the logs."""
    journal: Path
    """File with a line for each start, end and continuation of the worker."""
    marker: str
    """Prefix of a directive: #SBATCH, #PBS."""
    directives: Sequence[str]
    command: Sequence[str]
    tasks: Sequence[int] = ()
    """For an array: the task of each index, passed as `--task`. Log and journal are named after it."""
    environment: dict[str, str] = field(default_factory=dict)
    tools: Path | None = None
    """Folder of the scheduler's commands, for nodes whose login shell does not find them."""
    umask: str = "0022"
    """Of the submitting process, so that what the job writes has the same readers."""
    profile: Profile


def render(script: Script, template: str) -> str:
    """The script's text by one of our templates, or by the profile's own; InputError where that one is wrong."""
    import jinja2

    site_template = script.profile.template
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([TEMPLATES, *([Path(site_template).parent] if site_template else [])]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"sh": lambda value: shlex.quote(str(value)), "comment": comment}
    own = {item.name: getattr(script, item.name) for item in fields(script)}
    limits = {
        "limit_s": script.profile.limit_s,
        "publish_before_s": math.ceil(script.profile.publish_before_s),
        "max_restarts": MAX_RESTARTS,
        "quick_failure_s": QUICK_FAILURE_S,
        "max_pause_s": MAX_PAUSE_S,
    }
    values = {**own, **dict(script.profile), **limits, **own}  # first in an error message, and above the profile
    if site_template is None:
        return environment.get_template(template).render(values)
    try:
        text = Path(site_template).read_text(encoding="utf-8")
        _block_names(text, environment, site_template)
        return environment.from_string(text).render(values)
    except InputError:
        raise
    except Exception as error:  # a template is a program, and can fail in any way
        raise InputError(f"The job script template {site_template}{_explanation(error, values)}") from None


def _block_names(text: str, environment: Environment, site_template: str) -> set[str]:
    """Names of the blocks of a template and of those that it extends.

    InputError for a block that replaces none of its base template and is not nested in one: Jinja2 would ignore it.
    """
    from jinja2 import nodes

    tree = environment.parse(text)
    blocks = list(tree.find_all(nodes.Block))
    names, extends = {block.name for block in blocks}, tree.find(nodes.Extends)
    if extends is None or environment.loader is None or not isinstance(extends.template, nodes.Const):
        return names  # an expression has no value before rendering
    base = str(extends.template.value)
    inherited = _block_names(environment.loader.get_source(environment, base)[0], environment, base)
    nested = {inner.name for block in blocks for inner in block.find_all(nodes.Block)}
    for name in sorted(names - inherited - nested):
        allowed, suggestion = ", ".join(sorted(inherited)) or "none", did_you_mean(name, inherited)
        raise InputError(
            f"The job script template {site_template} has a block {name!r}; {base} has {allowed}.{suggestion}"
        )
    return names | inherited


def _explanation(error: Exception, names: Iterable[str]) -> str:
    """What is wrong with a template, as the end of a sentence that begins with its path."""
    import jinja2

    if isinstance(error, jinja2.TemplateNotFound):
        return f" names the template {error.name}, which is neither in its folder nor one of modtrain's."
    if isinstance(error, OSError):
        return f" cannot be read: {error.strerror}."
    line = f", line {error.lineno}" if isinstance(error, jinja2.TemplateSyntaxError) else ""
    allowed = f" It may use {', '.join(names)}." if isinstance(error, jinja2.UndefinedError) else ""
    return f"{line}: {' '.join(str(error).split()).rstrip('.')}.{allowed}"


def comment(value: object) -> str:
    """The value as one printable line, so that no line break can end a comment."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(value))
