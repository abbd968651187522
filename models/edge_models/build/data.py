"""Samples from files: .npz, .csv, .jsonl, or a folder of pictures. One clear line for what is wrong in them.

Text goes through the contract's steps, pictures through `edge_models.pictures`, as at a site.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from edge_models.build.reading import checks
from edge_models.build.reading.arrays import from_npz
from edge_models.build.reading.lines import from_jsonl
from edge_models.build.reading.pictures import from_folder
from edge_models.build.reading.table import from_csv
from edge_models.build.samples import Samples
from edge_models.contract import Contract
from edge_models.errors import ConfigError, RejectedError
from edge_models.steps import Before, prepare


def load_samples(path: Path, contract: Contract, files: Mapping[str, bytes]) -> Samples:
    """The samples in `path`, checked against the contract; `files` are what its steps need.

    Raises `RejectedError`, one line that names the file, the row and the column, for what doesn't fit the contract, is
    no number, or is too large; `ConfigError` where there is no such file, or it needs an extra.
    """
    readers: Mapping[str, Callable[[Path, Contract, Before | None], Samples]] = {
        ".npz": from_npz,
        ".csv": from_csv,
        ".jsonl": from_jsonl,
    }
    before = prepare(contract, files).before
    try:
        size_bytes = path.stat().st_size
        if path.is_dir():
            return from_folder(path, contract)
        reader = readers.get(path.suffix.lower())
        if reader is None:
            raise ConfigError(f"{path}: no kind of samples: wanted .npz, .csv, .jsonl or a folder of pictures")
        if size_bytes > checks.MAX_BYTES:
            raise RejectedError(f"larger than {checks.MAX_BYTES} bytes")
        samples = reader(path, contract, before)
        checks.bounded(sum(array.nbytes for array in samples.inputs.values()))
    except RejectedError as error:
        raise RejectedError(f"{path}: {error}") from None
    except OSError as error:
        raise ConfigError(f"{error.filename or path}: {error.strerror}") from None
    return samples
