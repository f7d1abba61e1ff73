"""The command line of qsub and the #PBS lines of a script, read as PBS Pro reads them: what was asked for, in words.

Whether a value is allowed is not decided here (rules.py). The command line wins over the script. Of two lines in a
script the last wins, except for `-l`, where the first does. A line of the script is split like a command line, so one
level of quotes and backslashes is gone before an option is looked at; `-v` takes a second level.
"""

from __future__ import annotations

import getopt
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from .cluster import Refused, not_simulated

FLAGS = "fhIVXz"
VALUED = "aAcCejJklmMNopqrRSuvWP"
LETTERS = FLAGS + "".join(f"{letter}:" for letter in VALUED)
USAGE = (
    "usage: qsub [-a date_time] [-A account_string] [-c interval]\n"
    "\t[-C directive_prefix] [-e path] [-f ] [-h ] [-I [-X]] [-j oe|eo] [-J X-Y[:Z]]\n"
    "\t[-k keep] [-l resource_list] [-m mail_options] [-M user_list]\n"
    "\t[-N jobname] [-o path] [-p priority] [-P project] [-q queue] [-r y|n]\n"
    "\t[-R o|e|oe] [-S path] [-u user_list] [-W otherattributes=value...]\n"
    "\t[-v variable_list] [-V ] [-z] [script | -- command [arg1 ...]]\n"
    "       qsub --version"
)


@dataclass(kw_only=True)
class Request:
    """What was asked for; `fixed` names what the command line said, which a script cannot change."""

    options: dict[str, str] = field(default_factory=dict)
    attributes: dict[str, str] = field(default_factory=dict)
    resources: dict[str, str] = field(default_factory=dict)
    fixed: set[str] = field(default_factory=set)

    def take(self, arguments: list[str], *, script: bool) -> list[str]:
        """Take options from a command line, or from one #PBS line; returns what is left, the name of the script."""
        try:
            pairs, rest = getopt.gnu_getopt(arguments, LETTERS)
        except getopt.GetoptError as error:
            missing = "requires argument" in error.msg
            said = "option requires an argument" if missing else "invalid option"
            raise Usage(f"{said} -- '{error.opt[:1]}'") from error
        fixed = set(self.fixed) if script else set[str]()
        for option, value in pairs:
            self._take_one(option[1], value, script, fixed)
        if self.options.get("r", "y") not in ("y", "n"):
            raise Usage("illegal -r value")
        if "J" in self.options and self.options.get("r") == "n":
            raise Usage(" cannot submit non-rerunable Array Job")
        return rest

    def _take_one(self, letter: str, value: str, script: bool, fixed: set[str]) -> None:
        if letter == "l":
            for name, asked in resource_list(value):
                if not script or name not in self.resources:
                    self.resources[name] = asked
        elif letter == "W":
            for name, asked in equals(value):
                self._set(self.attributes, name, asked, script, fixed)
        else:
            self._set(self.options, letter, value, script, fixed)

    def _set(self, kept: dict[str, str], name: str, value: str, script: bool, fixed: set[str]) -> None:
        if name in fixed:
            return
        kept[name] = value
        if not script:
            self.fixed.add(name)

    def read(self, script: str, prefix: str) -> None:
        """Take the directives of a script: those before its first line that does something."""
        lines = iter(script.splitlines())
        for line in lines:
            found = line.lstrip()
            if prefix and found.startswith(prefix):
                text = found.removeprefix(prefix)
                while text.endswith("\\"):
                    text = text[:-1] + next(lines, "")
                self._directive(text)
            elif executable(line):
                return

    def _directive(self, text: str) -> None:
        words = split(text)
        try:
            left = self.take(words, script=True)
        except Usage as error:
            raise Refused(f"{error}\nqsub: directive error: {' '.join(words)} ", 1) from error
        if left:
            raise Refused(f"directive error: {' '.join(words)} ", 1)


class Usage(Refused):
    """An option that qsub does not know, or a wrong one: it shows how it is used, with exit code 2."""

    def __init__(self, message: str) -> None:
        super().__init__(message, 2)


def executable(line: str) -> bool:
    """Whether a line of a script does something, so that directives after it are comments."""
    return not line.startswith((":", "#!")) and line.strip() != "" and not line.lstrip().startswith("#")


def split(line: str) -> list[str]:
    """The words of a directive: quotes of either kind and a backslash protect what follows, and are taken off."""
    words: list[str] = []
    word, quote, inside, protected = "", "", False, False
    for letter in line:
        if protected:
            word, protected = word + letter, False
        elif quote:
            word, quote = (word, "") if letter == quote else (word + letter, quote)
        elif letter in "'\"":
            quote, inside = letter, True
        elif letter == "\\":
            inside = protected = True
        elif letter.isspace():
            words += [word] if inside else []
            word, inside = "", False
        else:
            word, inside = word + letter, True
    if quote:
        raise Refused("unmatched quote", 1)
    return [*words, word] if inside else words


def resource_list(text: str) -> list[tuple[str, str]]:
    """The pairs of `-l name=value,name=value`; a value with a comma is quoted."""
    pairs = re.findall(r"""\s*([^=,\s]+)\s*(?:=\s*("[^"]*"|'[^']*'|[^,\s]*))?\s*(,|$)""", text)
    rebuilt = "".join("".join(pair) for pair in pairs)
    wanted = re.sub(r"\s|=", "", text)
    if not pairs or re.sub(r"\s|=", "", rebuilt) != wanted or text.rstrip().endswith(","):
        raise Usage("illegal -l value")
    return [(name, value.strip("\"'")) for name, value, _ in pairs]


def equals(text: str) -> list[tuple[str, str]]:
    """The pairs of `-W name=value,name=value`; a value goes on to the last comma before the next equals sign."""
    if re.fullmatch(r"""\s*[\w.]+\s*=\s*("[^"]*"|'[^']*')\s*""", text):
        name, value = text.split("=", 1)
        return [(name.strip(), value.strip()[1:-1])]
    pairs = re.findall(r"([^=,\s]+)\s*=\s*([^=]*?)\s*(?:,(?=[^=,]+=)|$)", text)
    if not pairs or text.strip().endswith(",") or text.count("=") != len(pairs):
        raise Usage("illegal -W value")
    return pairs


def variables(text: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The variables of `-v`: `NAME` takes the value of the caller, `NAME='a,b'` keeps its comma, `NAME=a\\,b`, too.

    The real qsub escapes such a value twice, so a quote or a backslash in it arrives mangled, or not at all. The fake
    refuses it always.
    """
    found: dict[str, str] = {}
    for item in _items(text):
        name, equal, given = item.partition("=")
        if not name or (not equal and name not in environment):
            raise no_environment()
        value = _unquoted(given) if equal else environment[name]
        if any(letter in value for letter in "'\"\\"):
            raise no_environment()
        found[name] = value
    return {name: value for name, value in found.items() if not name.startswith("PBS_O_")}


def no_environment() -> Refused:
    """What qsub says of a variable that is not there, or cannot be sent."""
    return Refused("cannot send environment with the job", 1)


def _items(text: str) -> list[str]:
    """Split at commas that neither quotes nor a backslash protect; a quote in another kind of quotes opens its own."""
    items, quote, protected = [""], "", False
    for letter in text:
        if letter == "," and not quote and not protected:
            items.append("")
            continue
        if letter in "'\"" and not protected:
            quote = "" if letter == quote else letter
        protected = letter == "\\" and not protected
        items[-1] += letter
    return items


def _unquoted(value: str) -> str:
    """A value without its quotes, up to a comma outside of them: what follows is lost, without a word."""
    out, quote = "", ""
    for letter in value.replace("\\,", "\0"):
        if letter in "'\"" and quote in ("", letter):
            quote = "" if quote else letter
        elif letter == "," and not quote:
            break
        else:
            out += letter
    if quote:
        raise no_environment()
    return out.replace("\0", ",")


def refuse_what_is_not_simulated(request: Request) -> None:
    """Options that the real one takes and the fake cannot play."""
    for letter, what in {"a": "-a", "I": "interactive jobs", "X": "-X", "u": "-u"}.items():
        if letter in request.options:
            raise not_simulated(what)
