"""What stays out of installed packages, as the Containerfile takes it away."""

import subprocess
import sys
from pathlib import Path

import edge_k3s.image.trim


def test_it_works_alone_in_a_folder_of_packages(tmp_path: Path) -> None:
    for path in (
        "numpy/__init__.py",
        "numpy/__init__.pyi",
        "numpy/tests/test_a.py",
        "numpy/__pycache__/__init__.cpython-311.pyc",
        "onnxruntime/capi/libonnxruntime.so.1.32.0",
        "onnxruntime/capi/onnxruntime_pybind11_state.so",
        "pip/__init__.py",
        "numpy-2.0.dist-info/RECORD",
        "numpy-2.0.dist-info/METADATA",
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("x")
    # In a builder there is Python, and nothing of the kit's but this file.
    script = Path(edge_k3s.image.trim.__file__)
    subprocess.run([sys.executable, "-I", "-S", str(script), str(tmp_path)], check=True, capture_output=True)
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()) == [
        "numpy-2.0.dist-info/METADATA",
        "numpy/__init__.py",
        "onnxruntime/capi/onnxruntime_pybind11_state.so",
    ]
    assert not (tmp_path / "pip").exists()
