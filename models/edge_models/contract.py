"""What a model takes and gives: the names, shapes, dtypes, units, labels and steps its users rely on."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from edge_models.errors import RejectedError
from edge_models.jsonfields import field as take
from edge_models.jsonfields import item, listed, object_of, require
from edge_models.tensors import BATCH, ImageSpec, TensorSpec, image_from_json, tensor_from_json

TASKS = ("classification", "embedding", "reading", "tensors")
"""`classification`: a score a label; finding anomalies is one with two labels. `embedding`: a vector a text or picture.
`reading`: named texts, as the price on a shelf label. `tensors`: whatever the graph gives; no agent acts on it."""

MAX_TENSORS, MAX_LABELS, MAX_STEPS, MAX_THREADS = 16, 10_000, 8, 64

_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")
_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+-]{0,31}")


@dataclass(frozen=True, slots=True)
class Step:
    """What happens before or after the graph, by a name and version of the list in models/FORMAT.md."""

    name: str
    version: int = 1
    params: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require(bool(_NAME.fullmatch(self.name)), f"step {self.name!r} is not of the form [a-z0-9.-]{{1,63}}")
        require(1 <= self.version <= 999, f"step {self.name!r}: version {self.version} is not 1 to 999")


@dataclass(frozen=True, slots=True)
class Contract:
    """What a bundle's graph promises. Making one that contradicts itself is a `ValueError`."""

    name: str
    version: str
    task: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    labels: tuple[str, ...] = ()
    """Of `classification`, in the order of the last axis of `scores`; of `reading`, what a prediction may be called."""
    scores: str = ""
    """Of `classification`: the output that holds ``(batch, labels) float32`` probabilities."""
    golden_atol: float = 0.0
    """The largest absolute difference of the main output on the golden inputs that a site's CPU may show."""
    image: ImageSpec | None = None
    """Set when input 0 takes pictures."""
    embedding: str = ""
    """Of `embedding`: the output that holds ``(batch, N) float32`` vectors."""
    batched: bool = True
    """Axis 0 of every tensor is ``"batch"``. False: the graph takes one sample a run, in whatever shapes."""
    steps: tuple[Step, ...] = ()
    """Before the graph or after it, in order."""
    threads: int = 1
    """A hint: what the graph is quickest with on the machine it was measured on. A site may give it fewer."""

    def __post_init__(self) -> None:
        require(bool(_NAME.fullmatch(self.name)), f"name {self.name!r} is not of the form [a-z0-9.-]{{1,63}}")
        require(bool(_VERSION.fullmatch(self.version)), f"version {self.version!r} has characters it must not have")
        require(self.task in TASKS, f"task {self.task!r} is not one of {listed(TASKS)}")
        for role, tensors in (("inputs", self.inputs), ("outputs", self.outputs)):
            names = [t.name for t in tensors]
            require(0 < len(names) <= MAX_TENSORS, f"{role}: there must be 1 to {MAX_TENSORS}")
            require(len(set(names)) == len(names), f"{role}: two have the same name")
            for spec in tensors if self.batched else ():
                require(spec.shape[:1] == (BATCH,), f"tensor {spec.name!r}: the shape must begin with 'batch'")
        require(self.batched or self.task == "tensors", f"a model for {self.task} must take a batch")
        self._check_labels()
        self._check_main()
        largest = 1 if self.task in ("classification", "embedding") else 1e12
        require(0 <= self.golden_atol <= largest, f"golden_atol: must be between 0 and {largest:g}")
        require(len(self.steps) <= MAX_STEPS, f"steps: at most {MAX_STEPS}")
        require(1 <= self.threads <= MAX_THREADS, f"threads: must be 1 to {MAX_THREADS}")
        require(
            self.image is None or (self.inputs[0].shape == self.image.shape and self.inputs[0].dtype != "bool"),
            f"image: input {self.inputs[0].name!r} does not have the shape of such a picture",
        )

    @property
    def main(self) -> str:
        """The output that the model is for, and that golden samples are compared by."""
        return self.scores or self.embedding or self.outputs[0].name

    def _check_labels(self) -> None:
        if self.task in ("embedding", "tensors"):
            require(not self.labels, f"labels: a model for {self.task} has none")
            return
        require(2 <= len(self.labels) <= MAX_LABELS, f"labels: there must be 2 to {MAX_LABELS}")
        require(len(set(self.labels)) == len(self.labels), "labels: two are the same")
        require(all(0 < len(label) <= 200 for label in self.labels), "labels: each has 1 to 200 characters")

    def _check_main(self) -> None:
        given = {spec.name: spec for spec in self.outputs}
        if self.task == "classification":
            scores = given.get(self.scores)
            require(
                scores is not None and scores.dtype == "float32" and scores.shape == (BATCH, len(self.labels)),
                f"scores: {self.scores!r} must be an output of shape (batch, {len(self.labels)}) float32",
            )
        require(self.task == "classification" or not self.scores, f"scores: a model for {self.task} has none")
        if self.task == "embedding":
            vector = given.get(self.embedding)
            fits = vector is not None and vector.dtype == "float32" and len(vector.shape) == 2
            require(
                fits and vector is not None and isinstance(vector.shape[1], int),
                f"embedding: {self.embedding!r} must be an output of shape (batch, NUMBER) float32",
            )
        require(self.task == "embedding" or not self.embedding, f"embedding: a model for {self.task} has none")

    def to_json(self) -> dict[str, Any]:
        """The contract as a JSON object; `from_json` reads it back. What is as usual is left out, where it may be."""
        value = asdict(self)
        usual = {f.name: f.default for f in fields(self) if f.name in _MAY_BE_LEFT_OUT}
        left_out = {key for key, default in usual.items() if value[key] == default}
        if value["image"] is not None and value["image"]["fit"] == "stretch":
            del value["image"]["fit"]
        for tensor in (*value["inputs"], *value["outputs"]):
            for key in ("columns", "categories"):
                if not tensor[key]:
                    del tensor[key]
        return {key: part for key, part in value.items() if key not in left_out}

    @classmethod
    def from_json(cls, value: object) -> "Contract":
        """The contract in a decoded JSON object; keys it does not know are ignored.

        Raises `RejectedError`, one line that names the part.
        """
        given = object_of(value, "contract")
        try:
            return cls(
                name=take(given, "name", str),
                version=take(given, "version", str),
                task=take(given, "task", str),
                inputs=tuple(tensor_from_json(t) for t in take(given, "inputs", (list, tuple))),
                outputs=tuple(tensor_from_json(t) for t in take(given, "outputs", (list, tuple))),
                labels=tuple(item(label, "labels", str) for label in take(given, "labels", (list, tuple))),
                scores=take(given, "scores", str),
                golden_atol=float(take(given, "golden_atol", (int, float))),
                image=None if given.get("image") is None else image_from_json(given["image"]),
                embedding=item(given.get("embedding", ""), "embedding", str),
                batched=item(given.get("batched", True), "batched", bool),
                steps=tuple(_step(step) for step in item(given.get("steps", ()), "steps", (list, tuple))),
                threads=item(given.get("threads", 1), "threads", int),
            )
        except (ValueError, OverflowError) as error:
            raise RejectedError(f"contract: {error}") from None


_MAY_BE_LEFT_OUT = ("embedding", "batched", "steps", "threads")


def _step(value: object) -> Step:
    given = object_of(value, "step")
    return Step(
        name=take(given, "name", str),
        version=take(given, "version", int),
        params=object_of(given.get("params", {}), "params"),
    )
