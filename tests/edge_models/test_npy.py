"""models/FORMAT.md, Golden arrays: NumPy's format, minus everything a reader would have to trust."""

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge_models.errors import RejectedError
from edge_models.npy import dump_array, load_array
from edge_models.tensors import DTYPES


def saved(array: Any, **options: Any) -> bytes:
    """What `numpy.save` makes of it."""
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


@given(hnp.arrays(st.sampled_from(sorted(DTYPES)).map(np.dtype), hnp.array_shapes(max_dims=8, min_side=0, max_side=3)))
def test_arrays_come_back_and_are_numpys(array: Any) -> None:
    data = dump_array(array)
    back = load_array(data)
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)
    np.testing.assert_array_equal(np.load(io.BytesIO(data), allow_pickle=False), array)


def test_memory_order_and_byte_order_do_not_matter() -> None:
    array = np.arange(6, dtype="<f4").reshape(2, 3)
    assert dump_array(np.asfortranarray(array)) == dump_array(array.astype(">f4")) == dump_array(array)


@pytest.mark.parametrize(
    "data",
    [
        saved(np.array([{}], dtype=object), allow_pickle=True),
        saved(np.zeros((2, 2), order="F")),
        saved(np.zeros(2, dtype=">f4")),
        saved(np.zeros(2, dtype="<M8[s]")),
        saved(np.zeros(2, dtype="<c8")),
        saved(np.zeros(2, dtype=[("a", "<f4")])),
        saved(np.zeros(2, dtype="<U3")),
        saved(np.float32(1)),
        saved(np.zeros(2))[:-1],
        saved(np.zeros(2)) + b"x",
        saved(np.zeros(2)).replace(b"(2,)", b"(4000000000,)"),
        saved(np.zeros(2)).replace(b"'<f8'", b"'<f1'"),
        b"PK\x03\x04",
        b"",
    ],
    ids=[
        "pickle",
        "fortran",
        "big-endian",
        "time",
        "complex",
        "fields",
        "text",
        "no-axis",
        "short",
        "long",
        "lying-shape",
        "no-such-dtype",
        "zip",
        "empty",
    ],
)
def test_other_files_are_refused(data: bytes) -> None:
    with pytest.raises(RejectedError):
        load_array(data)


@given(st.integers(0, 200), st.integers(0, 255))
def test_a_changed_byte_is_refused_or_read_as_an_array(at: int, byte: int) -> None:
    data = bytearray(dump_array(np.arange(12, dtype=np.float32).reshape(3, 4)))
    data[at % len(data)] = byte
    try:
        array = load_array(bytes(data))
    except RejectedError:
        return
    assert array.nbytes == 48
