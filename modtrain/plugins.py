"""load(kind, name): a recipe, a backend or a tracker by name, from the package, a module, a file, or an entry point.

What goes wrong in a user's own file is said with that file's line. Deliberately not here: a registry. What is in the
package is what lies in its folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import pkgutil
import sys
import traceback
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from modtrain.errors import InputError, ModtrainError, did_you_mean

PLACES = {
    "recipe": "modtrain.recipes",
    "backend": "modtrain.scheduling.backends",
    "tracker": "modtrain.training.trackers",
}


def load(kind: str, name: str) -> Any:
    """The object called `kind` in what `name` names.

    `name` is a file (`./my_gan.py`), a name in the package (`latent-translation`), the name of an entry point in the
    group `modtrain.recipe`, `modtrain.backend` or `modtrain.tracker`, or an importable module (`my_package.my_gan`).
    """
    if is_file(name):
        module = _from_file(kind, Path(name))
    elif name.replace("_", "-") in built_in(kind):
        module = importlib.import_module(f"{PLACES[kind]}.{name.replace('-', '_')}")
    elif name in (points := entry_points(group=f"modtrain.{kind}")).names:
        with said(kind, points[name].value):
            return points[name].load()
    elif "." in name:
        module = _imported(kind, name)
    else:
        raise InputError(_unknown(kind, name))
    if not hasattr(module, kind):
        raise InputError(f"{name} defines no `{kind}`; end it with `{kind} = {kind.capitalize()}(...)`.")
    return getattr(module, kind)


def is_file(name: str) -> bool:
    """Whether a name means a file of the user's."""
    return name.endswith(".py") or "/" in name


def built_in(kind: str) -> list[str]:
    """The names of a kind that the package has."""
    folder = importlib.import_module(PLACES[kind]).__path__
    hidden = {"base", "batch", "journal", "loading", "nets_view", "params"}
    return sorted(m.name.replace("_", "-") for m in pkgutil.iter_modules(folder) if m.name not in hidden)


def known(kind: str) -> list[str]:
    """Every name of a kind that can be typed: the package's and those of entry points."""
    return sorted({*built_in(kind), *entry_points(group=f"modtrain.{kind}").names})


@contextlib.contextmanager
def said(kind: str, name: str) -> Iterator[None]:
    """An exception from the code of a plugin becomes an InputError that names the line of the user's file."""
    try:
        yield
    except ModtrainError:
        raise
    except SyntaxError as error:
        raise InputError(f"The {kind} {error.filename}, line {error.lineno}: syntax error: {error.msg}.") from error
    except (Exception, SystemExit) as error:
        raise InputError(f"The {kind} {_line(error, name) or name}: {_words(error)}.") from error


def _line(error: BaseException, name: str) -> str | None:
    """The last place in the user's file, or beside it, that the exception went through."""
    beside = f"{Path(name).parent}/" if is_file(name) else ""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(beside)]
    return f"{frames[-1].filename}, line {frames[-1].lineno}, in {frames[-1].name}" if frames else None


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".rstrip(".: ") if str(error) else type(error).__name__


def _from_file(kind: str, path: Path) -> ModuleType:
    path = path.expanduser().resolve()
    if not path.is_file():
        raise InputError(_no_file(kind, path))
    # Two files may have one name; dataclasses look their module up by it.
    name = f"modtrain_{kind}_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path} is not a Python file; a {kind} is a file that ends in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # as for a script: what lies beside it can be imported
    with said(kind, str(path)):
        spec.loader.exec_module(module)
    return module


def _imported(kind: str, name: str) -> ModuleType:
    with said(kind, name):
        try:
            found = importlib.util.find_spec(name)
        except ModuleNotFoundError as error:
            if not name.startswith(str(error.name)):
                raise
            found = None
        if found is not None:
            return importlib.import_module(name)
    raise InputError(_unknown(kind, name))


def _no_file(kind: str, path: Path) -> str:
    beside = [other.name for other in path.parent.glob("*.py")] if path.parent.is_dir() else []
    near = did_you_mean(path.name, beside) or did_you_mean(path.stem.replace("_", "-"), known(kind))
    return f"There is no {kind} file {path}; give a Python file or one of {', '.join(known(kind))}.{near}"


def _unknown(kind: str, name: str) -> str:
    names = known(kind)
    return (
        f"There is no {kind} {name!r}; there are {', '.join(names)}, or give a file (./my_{kind}.py) "
        f"or a module (package.module).{did_you_mean(name, names)}"
    )
