"""A real agent without a process around it: loop, journal, a shipped model and a policy that acts on everything."""

import itertools
import time
from collections.abc import Mapping

import numpy as np

from edge_agent.actor import Actor
from edge_agent.brain import Brain
from edge_agent.inference.model import Model
from edge_agent.inference.registry import Models
from edge_agent.loop import Loop
from edge_agent.memory.facts import Facts
from edge_agent.memory.journal import Journal
from edge_agent.policy import load_policy
from edge_agent.recent import Recent
from edge_agent.records import Json, Malformed, Observation
from edge_agent.tools.base import Call
from edge_models.bundle import Bundle, read_bundle
from edge_models.shipped import shipped_path
from edge_sync.release import AgentSpec
from edge_sync.rows import Lane

POLICY = b"""
policy: bench
version: 1
rules:
  - name: too-often
    when: recent(prediction.label, 60) >= 1000000
  - name: unsure
    when: prediction.score < 0.2 && !("maintenance" in facts)
  - name: act
    when: prediction.label.size() > 0
    do: {tool: note, with: {message: ="seen a " + prediction.label, score: =prediction.score}}
"""
"""Two conditions that are looked at and do not hold, and one that does: every observation is acted on."""

MESSAGES = 1_000
"""Different ones, then they come again: more than one batch of the wire holds."""

NOISE = 0.02
"""Of the samples' standard deviation."""


class Note:
    """A tool that notes when it was called: its decision was durable by then, and by little more."""

    idempotent = True
    lane: Lane = "decision"

    def __init__(self) -> None:
        self.called_s: list[float] = []

    def run(self, args: Mapping[str, Json], call: Call) -> Mapping[str, Json]:  # noqa: ARG002 - the tools' signature
        """Note the time."""
        self.called_s.append(time.perf_counter())
        return {"message": args["message"]}

    def close(self) -> None:
        """Nothing is open."""


class Replay:
    """A source that plays messages from memory, for ever and at once: its own time is next to none."""

    def __init__(self, messages: list[dict[str, Json]]) -> None:
        self._next = itertools.cycle(messages)

    def start(self) -> None:
        """Nothing is to be opened."""

    def take(self, most: int, timeout_s: float) -> list[Observation | Malformed]:  # noqa: ARG002 - never waits
        """The next `most`."""
        now_us = time.time_ns() // 1000
        return [Observation(values, now_us, "replay") for values in itertools.islice(self._next, most)]

    def done(self) -> None:
        """Nothing waits for that."""

    def dropped(self) -> int:
        """None, ever."""
        return 0

    def exhausted(self) -> bool:
        """Never."""
        return False

    def close(self) -> None:
        """Nothing is open."""


def messages(bundle: Bundle) -> list[dict[str, Json]]:
    """What a machine would send: the bundle's golden samples with a sensor's noise, at a sensor's resolution.

    With the samples as they are, a few dozen said again and again, compression would look better than it is.
    """
    rng = np.random.default_rng(1)
    (name,) = (spec.name for spec in bundle.contract.inputs)
    golden = bundle.golden.inputs[name]
    decimals = 0 if np.equal(golden, golden.round()).all() else 4
    picked = golden[np.arange(MESSAGES) % len(golden)].astype(np.float64)
    noisy = (picked + rng.normal(scale=NOISE * golden.std(), size=picked.shape)).round(decimals)
    return [{"machine": f"press-{i % 4}", name: values} for i, values in enumerate(noisy.tolist())]


class Agent:
    """One agent over a journal; `step` decides on `max_batch` observations and acts on each."""

    def __init__(self, journal: Journal, bundle: tuple[str, str], max_batch: int) -> None:
        path = shipped_path(*bundle)
        read = read_bundle(path)
        model = Model(read)
        spec = AgentSpec.model_validate(
            {
                "name": "bench",
                "bundle": model.digest,
                "policy": "bench",
                "source": {"kind": "replay"},
                "subject": "machine",
                "grants": ["note"],
                "max_batch": max_batch,
            }
        )
        self.note = Note()
        self.source = Replay(messages(read))
        self.model = model
        self._brain = Brain(spec, 1, model, load_policy(POLICY))
        actor = Actor(journal, {"note": self.note}, frozenset({"note"}), now_us)
        models = Models()
        models.swap({model.contract.name: model})
        facts = Facts(journal, now_us)
        self._loop = Loop(
            journal, actor, models, {"id": "plant-01", "kind": "factory"}, facts.view, now_us, time.monotonic
        )
        self._recent = Recent()

    def step(self) -> int:
        """One step of the loop."""
        return self._loop.step(self._brain, self.source, self._recent, 0.0)


def now_us() -> int:
    """UTC microseconds."""
    return time.time_ns() // 1000
