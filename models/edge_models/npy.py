"""NumPy's .npy, the part of it a bundle uses: version 1.0, C order, plain little-endian numbers.

Source: the format's definition in `numpy.lib.format`. The reader evaluates nothing that the file says and
allocates nothing: an array is a read-only view of the bytes it was given.
"""

import io
import math
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_models.errors import RejectedError

Array = NDArray[Any]
"""An array of any numbers."""

_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00(?P<length>[\x00-\xff]{2})"
    rb"\{'descr': '(?P<dtype>[<|][biuf][1248])', 'fortran_order': False, "
    rb"'shape': \((?P<shape>[0-9]{1,12}(?:,|(?:, [0-9]{1,12}){1,7}))\), \} *\n",
)


def dump_array(array: Array) -> bytes:
    """The .npy file of `array`; the same array gives the same bytes on every machine."""
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    file = io.BytesIO()
    np.lib.format.write_array(file, little, version=(1, 0), allow_pickle=False)
    return file.getvalue()


def load_array(data: bytes | memoryview) -> Array:
    """The array in a .npy file. Raises `RejectedError` for what `dump_array` never makes."""
    header = _HEADER.match(data)
    if header is None or header.end() != 10 + int.from_bytes(header["length"], "little"):
        raise RejectedError("not a plain .npy file (version 1.0, C order, little-endian numbers)")
    shape = tuple(int(axis) for axis in header["shape"].rstrip(b",").split(b", "))
    try:
        dtype: np.dtype[np.generic] = np.dtype(header["dtype"].decode("ascii"))
    except TypeError:
        raise RejectedError(f"not a dtype of NumPy's: {header['dtype'].decode('ascii')}") from None
    body = memoryview(data)[header.end() :]
    if math.prod(shape) * dtype.itemsize != len(body):
        raise RejectedError(f"{len(body)} bytes of data do not fill shape {shape} of {dtype}")
    return np.frombuffer(body, dtype=dtype).reshape(shape)
