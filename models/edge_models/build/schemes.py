"""The quantization schemes by name: what `--scheme` takes."""

import numpy as np

from edge_models.build import quantize
from edge_models.build.recipe import needs_extra
from edge_models.build.run import open_session
from edge_models.build.samples import Samples
from edge_models.build.speed import one_run
from edge_models.contract import Contract
from edge_models.errors import ConfigError, RejectedError

SCHEMES = ("dynamic", "static", "int4")


def apply(
    scheme: str, contract: Contract, graph: bytes, calibration: Samples | None, *, vnni_only: bool = False
) -> bytes:
    """What `scheme` makes of a float graph. The same call gives the same bytes.

    `calibration` is for ``static`` only. `vnni_only`: every CPU it will run on has VNNI, so int8 weights may use their
    full range.

    Raises `ConfigError` for a scheme that there is not, and where the extra is missing; `RejectedError` where the
    calibration samples are not what the model takes, naming the input, and where the scheme cannot be applied to this
    graph, saying why.
    """
    if scheme not in SCHEMES:
        raise ConfigError(f"no scheme {scheme!r}: there are {', '.join(SCHEMES)}")
    if scheme == "static":
        if calibration is None:
            raise RejectedError("static: it needs samples to calibrate on")
        check_samples(contract, calibration, "calibration")
    try:
        with needs_extra():
            made = _made(scheme, contract, graph, calibration, reduce_range=not vnni_only)
        open_session(made)
    except ConfigError:
        raise
    except RejectedError as error:
        raise RejectedError(f"{scheme}: {error}") from None
    except Exception as error:  # noqa: BLE001 - ONNX Runtime and optimum raise whatever they come upon
        raise RejectedError(f"{scheme}: {' '.join(str(error).split()) or type(error).__name__}") from None
    return made


def check_samples(contract: Contract, samples: Samples, role: str) -> None:
    """Raise `RejectedError`, naming the input, unless these samples are what the model takes, and finite."""
    wanted = [spec.name for spec in contract.inputs]
    if set(samples.inputs) != set(wanted):
        came = ", ".join(sorted(samples.inputs)) or "none"
        raise RejectedError(f"{role} data: came the inputs {came}, wanted {', '.join(wanted)}")
    if len({len(array) for array in samples.inputs.values()}) > 1 or not len(samples):
        sizes = ", ".join(f"{name}: {len(array)}" for name, array in samples.inputs.items())
        raise RejectedError(f"{role} data: wanted one sample or more, as many of every input ({sizes})")
    for spec in contract.inputs:
        array = samples.inputs[spec.name]
        spec.check(array if contract.batched else array[0], f"{role} data: input")
        if array.dtype.kind == "f":
            wrong = np.flatnonzero(~np.isfinite(array).reshape(len(array), -1).all(axis=1))
            if len(wrong):
                raise RejectedError(
                    f"{role} data: input {spec.name!r} has a NaN or an infinite number in sample {wrong[0]} "
                    f"({len(wrong)} of {len(array)} samples have)"
                )


def _made(scheme: str, contract: Contract, graph: bytes, calibration: Samples | None, *, reduce_range: bool) -> bytes:
    if scheme == "static" and calibration is not None:
        runs = (one_run(contract, calibration.inputs, row) for row in range(len(calibration)))
        return quantize.static(graph, runs, reduce_range=reduce_range)
    if scheme == "dynamic":
        return quantize.dynamic(graph, reduce_range=reduce_range)
    return quantize.int4(graph)
