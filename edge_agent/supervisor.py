"""The supervisor: a worker per agent of the release that runs, and the change from one release to the next."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial

from edge_agent.actor import Actor
from edge_agent.brain import Brain, Deployment
from edge_agent.config import Site
from edge_agent.inference.registry import Models
from edge_agent.loop import Loop
from edge_agent.memory.facts import Facts
from edge_agent.memory.journal import Journal
from edge_agent.memory.queries import recent_predictions
from edge_agent.memory.schema import reading
from edge_agent.recent import HORIZON_S, MAX_TIMES, Recent
from edge_agent.sources.base import Source, SourceContext
from edge_agent.sources.registry import make_source
from edge_agent.worker import Worker
from edge_models.errors import ConfigError

log = logging.getLogger(__name__)

STOP_S = 10.0
"""How long a stop waits for the steps that run, tools included."""


class Supervisor:
    """Runs the agents of one deployment at a time."""

    def __init__(
        self, site: Site, journal: Journal, facts: Facts, actor: Actor, models: Models, now_us: Callable[[], int]
    ) -> None:
        """Nothing runs yet: `apply` a deployment."""
        self._site, self._journal, self._facts = site, journal, facts
        self._actor, self._models, self._now_us = actor, models, now_us
        self._workers: dict[str, Worker] = {}
        self._wanted: dict[str, Brain] = {}
        self._stopped = False
        self._lock = threading.Lock()

    def vet(self, deployment: Deployment) -> None:
        """Whether every agent's source could be made here; opens nothing. Raises `ConfigError` naming the agent."""
        for brain in deployment.brains:
            check_source(self._site, brain, self._now_us)

    def apply(self, deployment: Deployment) -> None:
        """Make this deployment the one that runs; after `stop`, nothing happens.

        An agent whose source stays the same keeps it, and takes its new brain between two steps, so nothing that
        waits in the source is lost. Others are started and stopped; one that does not end keeps its place until it
        does, since two must not read the same source.
        """
        with self._lock:
            if self._stopped:
                return
            self._wanted = {brain.spec.name: brain for brain in deployment.brains}
            self._models.swap(deployment.models())
            leaving = {}
            for name, worker in self._workers.items():
                brain = self._wanted.get(name)
                if brain is not None and brain.spec.source == worker.source_spec:
                    worker.brain = brain
                else:
                    leaving[name] = worker
            for name in self._end(leaving):
                thread = threading.Thread(target=self._await, args=(name, leaving[name]), name="replace", daemon=True)
                thread.start()
            self._hire_wanted()

    def stop(self) -> None:
        """End every agent after the step that runs."""
        with self._lock:
            self._stopped = True
            self._end(self._workers)

    def workers(self) -> list[Worker]:
        """The agents that run now, by name."""
        with self._lock:
            return [self._workers[name] for name in sorted(self._workers)]

    def exhausted(self) -> bool:
        """Whether every agent's source has nothing more to give."""
        with self._lock:
            return bool(self._workers) and all(worker.exhausted for worker in self._workers.values())

    def _end(self, leaving: Mapping[str, Worker]) -> list[str]:
        """Stop these and take off the list those that end in time; returns the names of the others."""
        for worker in leaving.values():
            worker.stop()
        deadline = time.monotonic() + STOP_S
        late = []
        for name, worker in list(leaving.items()):
            if worker.join(max(0.1, deadline - time.monotonic())):
                del self._workers[name]
            else:
                log.error("agent_does_not_end", extra={"agent": name})
                late.append(name)
        return late

    def _await(self, name: str, worker: Worker) -> None:
        """Give the place of a worker that was late to end to its successor, if there is to be one."""
        worker.join()
        with self._lock:
            if self._workers.get(name) is worker:
                del self._workers[name]
            if not self._stopped:
                self._hire_wanted()

    def _hire_wanted(self) -> None:
        for name, brain in self._wanted.items():
            if name not in self._workers:
                self._workers[name] = self._hire(brain)

    def _hire(self, brain: Brain) -> Worker:
        name = brain.spec.name
        with reading(self._journal.path) as connection:
            now_us = self._now_us()
            since_us = now_us - round(HORIZON_S * 1e6)
            recent = Recent(recent_predictions(connection, name, since_us, now_us, MAX_TIMES))
        loop = Loop(
            self._journal,
            self._actor,
            self._models,
            {**self._site.config.labels, "id": self._site.config.site},
            self._facts.view,
            self._now_us,
            time.monotonic,
        )
        make = partial(_source, self._site, now_us=self._now_us)
        worker = Worker(brain, loop, recent, self._journal, make, self._now_us)
        worker.start()
        return worker


def check_source(site: Site, brain: Brain, now_us: Callable[[], int]) -> None:
    """Whether this agent's source could be made at this site; opens nothing. Raises `ConfigError` naming the agent."""
    who = f"agent {brain.spec.name!r}: "
    try:
        _source(site, brain, now_us).close()
    except ConfigError as error:
        raise ConfigError(who + str(error).removeprefix(who)) from None


def _source(site: Site, brain: Brain, now_us: Callable[[], int]) -> Source:
    name = brain.spec.name
    context = SourceContext(
        site=site.config.site,
        agent=name,
        base=site.base,
        data=site.data / "sources" / name,
        endpoint=site.endpoint,
        now_us=now_us,
    )
    return make_source(brain.spec.source, context)
