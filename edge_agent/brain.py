"""What an agent thinks with: one model, one policy and the agent's own words, fixed for as long as it is used.

An update makes new brains beside the old ones; an agent takes its new one between two steps.
"""

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass

from edge_agent.inference.model import Model
from edge_agent.inference.prepared import PreparedGraphs
from edge_agent.policy import Policy, load_policy
from edge_models.bundle import read_bundle
from edge_models.digests import Digest
from edge_models.errors import KitError, RejectedError
from edge_sync.release import AgentSpec, Release


@dataclass(frozen=True, slots=True)
class Brain:
    """An agent's spec with its model and policy loaded."""

    spec: AgentSpec
    release: int
    model: Model
    policy: Policy


@dataclass(frozen=True, slots=True)
class Deployment:
    """A release as this site runs it: every model loaded and checked on its golden inputs, every policy compiled."""

    release: Release
    brains: tuple[Brain, ...]

    def models(self) -> dict[str, Model]:
        """The models by the name their contract gives."""
        return {brain.model.contract.name: brain.model for brain in self.brains}


def deploy(
    release: Release,
    labels: Mapping[str, str],
    blobs: Mapping[Digest, bytes],
    prepared: PreparedGraphs | None = None,
) -> Deployment:
    """Load what a site with these labels runs of `release`, from the exact bytes in `blobs`.

    A model that has a copy in `prepared` is checked and runs on that. Raises `RejectedError` naming the agent and what
    is wrong with it; nothing is running then.
    """
    part = release.for_site(labels)
    models: dict[str, Model] = {}
    brains = []
    for spec in part.agents_for(labels):
        try:
            policy = load_policy(blobs[Digest(spec.policy)], name=part.artifacts[spec.policy].name)
            if spec.bundle not in models:
                models[spec.bundle] = _load_model(blobs[Digest(spec.bundle)], prepared)
        except KeyError as error:
            raise RejectedError(f"agent {spec.name!r}: artifact {error.args[0]} is not here") from None
        except KitError as error:
            raise RejectedError(f"agent {spec.name!r}: {error}") from None
        missing = policy.tools - set(spec.grants)
        if missing:
            raise RejectedError(
                f"agent {spec.name!r}: its policy uses {sorted(missing)[0]!r}, which its grants do not name"
            )
        brains.append(Brain(spec, release.release, models[spec.bundle], policy))
    _refuse_twins(models)
    return Deployment(part, tuple(brains))


def _load_model(data: bytes, prepared: PreparedGraphs | None) -> Model:
    bundle = read_bundle(data)
    try:
        return _checked(Model(bundle, prepared))
    except RejectedError:
        # Perhaps it is the copy that answers wrongly, not the model.
        if prepared is None or not prepared.distrust(bundle.digest):
            raise
    return _checked(Model(bundle, providers=prepared.providers))


def _checked(model: Model) -> Model:
    if not model.predicts:
        raise RejectedError(f"model {model.contract.name} is for {model.contract.task}: no agent can act on it")
    report = model.check_golden()
    if not report.passed:
        raise RejectedError(f"model {model.contract.name}: golden check failed: {report}")
    return model


def _refuse_twins(models: Mapping[str, Model]) -> None:
    names = [model.contract.name for model in models.values()]
    twins = {name for name in names if names.count(name) > 1}
    if twins:
        raise RejectedError(f"two different bundles of this release are both named {sorted(twins)[0]!r}")


def give_back_memory() -> None:
    """Hand the system what loading models left free in this process: its allocator keeps it for the next time.

    Source: a site after ten swaps between models of 4.5 MB, 131 MB in place of 148 (docs/adr/0012-prepared-graphs.md).
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # it is glibc's
        trim(0)
