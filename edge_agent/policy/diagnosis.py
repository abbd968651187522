"""The CEL library's messages, made into one line for the person who wrote the policy."""

import difflib
import re
from collections.abc import Mapping

VARIABLES = (
    "prediction.label",
    "prediction.score",
    "prediction.scores",
    "prediction.values",
    "observation",
    "facts",
    "site",
)
"""Every variable a policy may name."""

FUNCTIONS = (
    *("recent", "size", "contains", "startsWith", "endsWith", "matches"),
    *("has", "exists", "exists_one", "all", "map", "filter"),
    *("int", "uint", "double", "string", "bool", "bytes", "timestamp", "duration", "type", "dyn"),
)
"""The functions and macros that a policy is likely to want."""

MAX_ERROR_CHARS = 200
"""An error quotes the value it met; a record must not hold a whole observation twice."""

_AT = re.compile(r"ERROR: <input>:(-?\d+):(-?\d+): (.*)")
_STATUS = re.compile(r"^[A-Z_]+: | \[[A-Z_]+\]$")
_UNDECLARED = re.compile(r"undeclared reference to '([^']*)'")
_OVERLOAD = re.compile(r"found no matching overload for '([^']*)' applied to '(.*)'")
_NO_KEY = re.compile(r'Key not found in map : "(.*)"')
_NO_OVERLOAD = re.compile(r"No matching overloads found : (.*)", re.DOTALL)


class CompileError(ValueError):
    """An expression that is no CEL, or does not type-check. `line` and `column` count from 1 in its text."""

    def __init__(self, message: str, line: int = 1, column: int = 1) -> None:
        super().__init__(message)
        self.line = line
        self.column = column


def compile_error(message: str, text: str) -> CompileError:
    """The first thing that the library's compiler objects to in `text`."""
    found = _AT.search(message)
    if not found:
        return CompileError(_limits(_STATUS.sub("", message.strip())))
    line, column = max(1, int(found[1])), max(1, int(found[2]))
    said = _STATUS.sub("", found[3])
    if undeclared := _UNDECLARED.search(said):
        column = _start(undeclared[1], text, line, column)
        return CompileError(_undeclared(undeclared[1]), line, column)
    if overload := _OVERLOAD.search(said):
        return CompileError(_overload(overload[1], overload[2]), line, column)
    return CompileError(_syntax(_limits(said)), line, column)


def runtime_error(message: str, left_out: Mapping[str, str]) -> str:
    """A run-time error in one short line; `left_out` are the keys that the policy was not given, and why."""
    said = _limits(_STATUS.sub("", _STATUS.sub("", " ".join(message.split()))))
    if missing := _NO_KEY.search(said):
        why = left_out.get(missing[1], left_out.get(""))
        said = f'no key "{missing[1]}"' + (f" (left out: {why})" if why else "")
    elif overload := _NO_OVERLOAD.search(said):
        said = f"no such operation: {overload[1]}"
    return said if len(said) <= MAX_ERROR_CHARS else said[: MAX_ERROR_CHARS - 1] + "…"


def nearest(word: str, known: tuple[str, ...] | list[str]) -> str:
    """`` (did you mean 'x'?)`` for the word of `known` that looks like `word`; empty when none does."""
    found = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f" (did you mean '{found[0]}'?)" if found else ""


def _start(name: str, text: str, line: int, column: int) -> int:
    """The column at which `name` begins: the library points at its last dot, or at the bracket after it."""
    row = text.split("\n")[line - 1] if line <= text.count("\n") + 1 else ""
    start = row.rfind(name, 0, column - 1 + len(name))
    return start + 1 if start >= 0 else column


def _undeclared(name: str) -> str:
    said = f"undeclared reference to '{name}'"
    root, _, rest = name.partition(".")
    if name == "prediction":
        return said + " (prediction has label, score, scores and values)"
    if name == "recent":
        return said + ' with these arguments (it takes a label and seconds: recent("fault", 60))'
    if name in FUNCTIONS:
        return said + " with these arguments"
    for root_known in ("observation", "facts", "site"):
        if rest and difflib.get_close_matches(root, [root_known], cutoff=0.6):
            return f"{said} (did you mean '{root_known}.{rest}'?)"
    return said + nearest(name, (*VARIABLES, *FUNCTIONS))


def _overload(function: str, arguments: str) -> str:
    operator = function.strip("_@").replace("_", " ") or function
    said = f"'{operator}' does not take {arguments}"
    if arguments in ("(double, int)", "(int, double)"):
        said += " (write a double with its point: 1.0)"
    return said


def _syntax(said: str) -> str:
    said = re.sub(r" expecting \{.*", "", said).replace("Syntax error: ", "syntax: ")
    said = said.replace("mismatched input '<EOF>'", "it ends too early").replace(" expecting <EOF>", "")
    if re.search(r"token recognition error at: '= ?'?", said):
        return said + " (compare with ==)"
    if re.search(r"'(and|or|not)'", said):
        return said + " (write && for and, || for or, ! for not)"
    return said


def _limits(said: str) -> str:
    if "recursion" in said:
        return "nested too deeply (more than 32 levels)"
    if "Iteration budget exceeded" in said:
        return "more than 10,000 iterations"
    return said
