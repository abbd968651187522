"""kubectl, called as a person would: the cluster's own word on every object, and its warnings."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from edge_cluster.outcome import Failed, Unfit
from edge_k3s.bases import Object

ANSWER_S = 30
"""How long the API server may take for one answer."""

_EXEC_ENDED = re.compile(r"command terminated with exit code \d+")

_PATIENT = ("delete", "exec", "logs")

LONG_S = 600.0
"""How long kubectl may take in all, where it waits for something."""


@dataclass(frozen=True, slots=True)
class Done:
    """How a kubectl ended."""

    code: int
    out: str
    err: str

    @property
    def reason(self) -> str:
        """Its last words, in a line."""
        said = [text for text in (self.err or self.out).splitlines() if text.strip() and not is_warning(text)]
        if len(said) > 1 and _EXEC_ENDED.match(said[-1]):
            said.pop()  # what the command in the pod said is before it
        return " ".join(said[-1].split()) if said else f"kubectl ended with {self.code}"


class Kubectl:
    """One cluster, by the kubeconfig in the environment."""

    def __init__(self, program: Sequence[str] = ("kubectl",)) -> None:
        """Raises `Unfit` where there is no such program."""
        if shutil.which(program[0]) is None:
            raise Unfit(f"{program[0]} is not on PATH: install kubectl, or name it with --kubectl 'k3s kubectl'")
        self._program = tuple(program)

    def command(self, *words: object) -> list[str]:
        """The words that start it."""
        return [*self._program, *map(str, words)]

    def ask(self, *words: object, stdin: str | None = None, timeout_s: float = LONG_S) -> Done:
        """Run it; whatever it ends with. A hang is an end, too, with code 124."""
        # Not where kubectl waits for something itself: it would take the end of a request for the end of that.
        limit = () if words[0] in _PATIENT else (f"--request-timeout={ANSWER_S}s",)
        command = self.command(*limit, *words)
        try:
            done = subprocess.run(
                command, input=stdin or "", capture_output=True, text=True, check=False, timeout=timeout_s
            )
        except subprocess.TimeoutExpired:
            return Done(124, "", f"kubectl {words[0]} did not end in {timeout_s:.0f} s")
        return Done(done.returncode, done.stdout, done.stderr)

    def run(self, *words: object, stdin: str | None = None, timeout_s: float = LONG_S) -> str:
        """What it printed. Raises `Failed` with its last words."""
        done = self.ask(*words, stdin=stdin, timeout_s=timeout_s)
        if done.code != 0:
            raise Failed(f"kubectl {' '.join(map(str, words[:4]))}: {done.reason}")
        return done.out

    def get(self, *words: object) -> Any:
        """The object or list that `kubectl get` shows. Raises `Failed`."""
        return json.loads(self.run("get", *words, "--output=json"))

    def has(self, *words: object) -> bool:
        """Whether it is there. Raises `Failed` where that can't be told."""
        return bool(self.run("get", *words, "--ignore-not-found", "--output=name").strip())

    def apply(self, objects: Iterable[Object], verb: str = "apply") -> list[str]:
        """Hand objects to the server, which refuses what it does not know; its warnings. Raises `Failed`."""
        wanted = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        done = self.ask(verb, "--validate=strict", "--filename=-", stdin=wanted)
        if done.code != 0:
            raise Failed(f"the server refuses: {' '.join(done.err.split())[:600]}")
        return [text for text in done.err.splitlines() if is_warning(text)]


def is_warning(text: str) -> bool:
    """Whether this line of kubectl's is the server's warning, not an error."""
    return text.startswith("Warning:")
