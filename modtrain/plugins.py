"""load(kind, name): a recipe, backend or tracker from the package, an entry point, an importable module or a file.

There is no registry: the package has those that its folders hold. An error in a user's file names the line there.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import re
import sys
import traceback
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from modtrain.errors import InputError, ModtrainError, did_you_mean


class ChangedFile(InputError):
    """A file does not have the checksum that it had when it was recorded."""


PACKAGES = {
    "recipe": "modtrain.recipes",
    "backend": "modtrain.scheduling.backends",
    "tracker": "modtrain.training.trackers",
}


def load(kind: str, name: str, *, sha256: str | None = None) -> Any:
    """The object called `kind` in the module that `name` refers to.

    `name` is a file (`./my_gan.py`), a name in the package (`latent-translation`), the name of an entry point in the
    group `modtrain.recipe`, `modtrain.backend` or `modtrain.tracker`, or an importable module (`my_package.my_gan`).
    Raises InputError; ChangedFile, before anything is executed, where a file's content has not the checksum `sha256`.
    """
    if is_file(name):
        module = _from_file(kind, Path(name), sha256)
    elif name.replace("_", "-") in built_in(kind):
        module = importlib.import_module(f"{PACKAGES[kind]}.{name.replace('-', '_')}")
    elif name in (points := entry_points(group=f"modtrain.{kind}")).names:
        with user_code_errors(kind, points[name].value):
            return points[name].load()
    elif (imported := _imported(kind, name)) is not None:
        module = imported
    else:
        names = known(kind)
        near = f" Did you mean './{name}.py'?" if Path(f"{name}.py").is_file() else did_you_mean(name, names)
        raise InputError(
            f"There is no {kind} {name!r}; there are {', '.join(names)}, or give a file (./my_{kind}.py) "
            f"or a module (package.module).{near}"
        )
    if not hasattr(module, kind):
        raise InputError(f"{name} defines no `{kind}`; end it with `{kind} = {kind.capitalize()}(...)`.")
    return getattr(module, kind)


def is_file(name: str) -> bool:
    """Whether a name refers to a file."""
    return name.endswith(".py") or "/" in name


def built_in(kind: str) -> list[str]:
    """Names of a kind in the package: the modules with a line `kind = ...`, found in their text without importing."""
    folder = Path(importlib.import_module(PACKAGES[kind]).__path__[0])
    definition = re.compile(rf"^{kind}(: .*)? = ", re.MULTILINE)
    files = (*folder.glob("*.py"), *folder.glob("*/__init__.py"))
    modules = (path for path in files if definition.search(path.read_text("utf-8")))
    names = (path.parent.name if path.stem == "__init__" else path.stem for path in modules)
    return sorted(name.replace("_", "-") for name in names)


def known(kind: str) -> list[str]:
    """All names of a kind that can be given: those of the package and of entry points."""
    return sorted({*built_in(kind), *entry_points(group=f"modtrain.{kind}").names})


@contextlib.contextmanager
def user_code_errors(kind: str, name: str, part: str = "") -> Iterator[None]:
    """Turn an exception from a plugin's code into an InputError that names the line of the user's file.

    `part` is what was called, such as "the loss of generator".
    """
    try:
        yield
    except ModtrainError:
        raise
    except SyntaxError as error:
        raise InputError(f"The {kind} {error.filename}, line {error.lineno}: syntax error: {error.msg}.") from error
    except (Exception, SystemExit) as error:
        place, subject = line_of(error, name) or name, f"{part[:1].upper()}{part[1:]} failed in" if part else ""
        raise InputError(f"{subject or f'The {kind}'} {place}: {summary(error)}.") from error


def line_of(error: BaseException, name: str) -> str | None:
    """File, line and function of the user's code in which an exception was raised; None where it was raised elsewhere.

    `name` is that of the plugin; of a file, everything in its folder is the user's code.
    """
    folder = f"{Path(name).parent}/" if is_file(name) else ""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename.startswith(folder) and "/site-packages/" not in frame.filename
    ]
    return f"{frames[-1].filename}, line {frames[-1].lineno}, in {frames[-1].name}" if frames else None


def summary(error: BaseException) -> str:
    """Type and message of an exception in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(".: ")


def _from_file(kind: str, path: Path, sha256: str | None) -> ModuleType:
    path = path.expanduser().resolve()
    if not path.is_file():
        names, files = known(kind), [other.name for other in path.parent.glob("*.py")]
        near = did_you_mean(path.name, files) or did_you_mean(path.stem.replace("_", "-"), names)
        raise InputError(f"There is no {kind} file {path}; give a Python file or one of {', '.join(names)}.{near}")
    if path.suffix != ".py":
        raise InputError(f"{path} is not a Python file; a {kind} is a file that ends in .py.")
    content = path.read_bytes()
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise ChangedFile(f"The {kind} {path} has changed since it was recorded.")
    # Two files may have the same name, and dataclasses look up their module by its name.
    name = f"modtrain_{kind}_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # as for a script: files beside it can be imported
    with user_code_errors(kind, str(path)):
        # The content that was verified: the file may be replaced meanwhile, and bytecode beside it may be other code.
        exec(compile(content, path, "exec"), module.__dict__)
    return module


def _imported(kind: str, name: str) -> ModuleType | None:
    """An importable module, `package.module`; None where there is no such one."""
    if "." not in name:
        return None
    with user_code_errors(kind, name):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if not f"{name}.".startswith(f"{error.name}."):  # something that the module imports is missing
                raise
    return None
