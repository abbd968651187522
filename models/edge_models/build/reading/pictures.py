"""Samples from a folder of pictures, in subfolders by their label where the task has labels."""

from math import prod
from pathlib import Path

import numpy as np

from edge_models.build.reading.checks import bounded, picture_of, sizes, truth_of
from edge_models.build.samples import Samples
from edge_models.contract import Contract
from edge_models.errors import RejectedError

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
"""Of pictures."""


def from_folder(path: Path, contract: Contract) -> Samples:
    """Pictures in the folder, or in its subfolders; the subfolders are labels where the task has such."""
    found = sorted(p for p in path.glob("*/*") if not p.name.startswith(".") and not p.parent.name.startswith("."))
    apart = [p for p in sorted(path.iterdir()) if p.is_file() and p.suffix.lower() in SUFFIXES]
    if contract.image is None or len(contract.inputs) != 1:
        raise RejectedError(f"model {contract.name!r} takes no pictures")
    labelled = contract.task == "classification" and bool(found)
    if labelled and apart:
        raise RejectedError(f"{apart[0].name} lies beside the subfolders: which label has it?")
    pictures = found if labelled else [*apart, *found]
    if not pictures:
        raise RejectedError(f"no pictures ({', '.join(SUFFIXES)})")
    names = [p.relative_to(path).as_posix() for p in pictures]
    truth = truth_of(contract, [p.parent.name for p in pictures], names) if labelled else None
    (spec,) = contract.inputs
    bounded(len(pictures) * prod(sizes(spec, contract.batched)) * np.dtype(spec.dtype).itemsize)
    arrays = [picture_of(contract, file, name) for file, name in zip(pictures, names, strict=True)]
    return Samples({spec.name: np.stack(arrays)}, truth, tuple(names))
