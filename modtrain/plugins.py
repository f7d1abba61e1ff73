"""load(kind, name): a recipe, backend or tracker from the package, an entry point, an importable module or a file.

There is no registry: the package has those that its folders hold. An error in a user's file names the line there.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib
import inspect
import re
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from modtrain.errors import InputError, ModtrainError, did_you_mean, did_you_mean_file, message_of, one_of, ranges


class ChangedFile(InputError):
    """A file does not have the checksum that it had when it was recorded."""


_CALLED = "called_part"
"""Attribute of an exception: the part of a plugin in which it was raised, and the function that was called."""
_INSTALLED = re.compile("/(site|dist)-packages/")

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
            f"There is no {kind} {name!r}; give {one_of(names)}, or a file (./my_{kind}.py), or a module "
            f"(package.module).{near}"
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
def user_code_errors(kind: str, name: str) -> Iterator[None]:
    """Turn an exception from a plugin's code into an InputError that names the line of the user's file."""
    try:
        yield
    except ModtrainError:
        raise
    except SyntaxError as error:
        raise InputError(f"The {kind} {error.filename}, line {error.lineno}: syntax error: {error.msg}.") from error
    except (Exception, SystemExit) as error:
        raise InputError(f"{failure(error, kind, name)}.") from error


@contextlib.contextmanager
def calling(part: str, function: Any = None) -> Iterator[None]:
    """Around a call of a plugin's function: an exception carries the part that failed, as "the loss of generator".

    Of several around each other the innermost one counts. No function: several of them are called.
    """
    try:
        yield
    except ModtrainError:
        raise
    except (Exception, SystemExit) as error:
        if _CALLED not in vars(error):
            vars(error)[_CALLED] = (part, function)
            error.add_note(f"in {part}")
        raise


def is_of_plugin(error: BaseException, name: str) -> bool:
    """Whether an exception was raised in a part of a plugin that was called, or in the user's file."""
    return _CALLED in vars(error) or (is_file(name) and line_of(error, name) is not None)


def failure(error: BaseException, kind: str, name: str) -> str:
    """`The loss of generator failed in /home/me/ring.py, line 12, in loss: KeyError: 'real'`, for any plugin."""
    part, function = vars(error).get(_CALLED, ("", None))
    place = line_of(error, name) or (name if function is None else _definition_in(function, name))
    return f"{f'{part[:1].upper()}{part[1:]} failed in' if part else f'The {kind}'} {place}: {summary(error)}"


def line_of(error: BaseException, name: str) -> str | None:
    """File, line and function of the user's code in which an exception was raised; None where it was raised elsewhere.

    `name` is that of the plugin; of a file, what is in its folder is the user's code, except installed packages.
    """
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_users(frame.filename, name)]
    return f"{frames[-1].filename}, line {frames[-1].lineno}, in {frames[-1].name}" if frames else None


def place_of(function: Any) -> str:
    """File and line of a function, or of a class or its object: `ring.py, line 12`; its name where there is none."""
    file, line = _definition(function)
    return f"{Path(file).name}, line {line}" if file else _name_of(function)


def _definition(function: Any) -> tuple[str, int]:
    """File and line of a function, or of a class or its object; no file where there is none."""
    function = _unwrapped(function)
    try:
        if code := getattr(function, "__code__", None):
            return code.co_filename, code.co_firstlineno
        return inspect.getsourcefile(function) or "", inspect.getsourcelines(function)[1]
    except (OSError, TypeError, SyntaxError, SystemError):  # edited since, or a rare fault of Python 3.11's parser
        return "", 0


def _definition_in(function: Any, name: str) -> str:
    """Where a plugin defines a function, or names it: `optimizer=Adam`."""
    file, line = _definition(function)
    if file and _is_users(file, name):
        return f"{file}, line {line}"
    lines = _lines_naming(_name_of(function), name)
    places = [f"line{'s' * (len(lines) > 1)} {ranges(lines)}"] if lines else []
    return ", ".join([name, *places, _name_of(function)])


def _lines_naming(function: str, name: str) -> list[int]:
    """The lines of a user's file with an argument that is the name of a function or a class."""
    try:
        tree = ast.parse(Path(name).read_bytes() if is_file(name) else b"")
    except (OSError, SyntaxError, ValueError):  # it has changed since
        return []
    values = [node.value for node in ast.walk(tree) if isinstance(node, ast.keyword)]
    return sorted({v.lineno for v in values if function in (getattr(v, "id", None), getattr(v, "attr", None))})


def _unwrapped(function: Any) -> Any:
    function = inspect.unwrap(getattr(function, "func", function))
    return function if inspect.isroutine(function) or inspect.isclass(function) else type(function)


def _name_of(function: Any) -> str:
    return str(getattr(_unwrapped(function), "__qualname__", function))


def _is_users(filename: str, name: str) -> bool:
    """Whether a file of code is the user's: beside the plugin's file, and of no installed package."""
    folder = f"{Path(name).parent}/" if is_file(name) else ""
    if not filename.startswith(folder) or _INSTALLED.search(filename[len(folder) - 1 if folder else 0 :]):
        return False
    libraries = [sysconfig.get_path("stdlib"), *([str(Path(__file__).parent)] if folder else [])]
    return not any(filename.startswith(f"{path}/") and not folder.startswith(f"{path}/") for path in libraries)


def summary(error: BaseException) -> str:
    """Type and message of an exception in one line."""
    message = " ".join(message_of(error).split()) if str(error) else ""
    return f"{type(error).__name__}: {message}".rstrip(".: ")


def _from_file(kind: str, path: Path, sha256: str | None) -> ModuleType:
    path = path.expanduser().resolve()
    if not path.is_file():
        names, spelled = known(kind), path.stem.replace("_", "-")
        beside = did_you_mean_file(path, (other.name for other in path.parent.glob("*.py")))
        near = f" Did you mean {spelled!r}?" if spelled in names else beside
        problem = f"{path} is a folder" if path.is_dir() else f"There is no file {path}"
        raise InputError(f"{problem}; as a {kind} give a Python file, or {one_of(names)}.{near}")
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
    if "." not in name or not all(part.isidentifier() for part in name.split(".")):
        return None
    with user_code_errors(kind, name):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if not f"{name}.".startswith(f"{error.name}."):  # something that the module imports is missing
                raise
    return None
