"""What of installed packages stays out of an image, and why. `python -m edge_k3s.image.trim FOLDER` does it in place.

Imports nothing but the standard library: the Containerfile runs it inside a builder.
"""

import sys
from fnmatch import fnmatchcase
from pathlib import Path

LEFT_OUT = {
    # What a compiler or a type checker reads.
    "*.pyi": "types",
    "*.h": "headers",
    "*.hpp": "headers",
    "*.c": "sources of extensions",
    "*.cpp": "sources of extensions",
    "*.pxd": "sources of extensions",
    "*.pyx": "sources of extensions",
    "*.a": "static libraries",
    # What tests or builds the package itself.
    "*/tests/*": "tests",
    "*/conftest.py": "tests",
    "numpy/f2py/*": "wraps Fortran",
    "numpy/_pyinstaller/*": "for another packer",
    "numpy/random/_examples/*": "examples",
    "sqlalchemy/testing/*": "tests",
    # What runs a model needs none of these.
    "onnxruntime/backend/*": "for ONNX's own tests",
    "onnxruntime/datasets/*": "examples",
    "onnxruntime/quantization/*": "the workshop's",
    "onnxruntime/tools/*": "the workshop's",
    "onnxruntime/transformers/*": "the workshop's",
    "onnxruntime/capi/libonnxruntime.so.*": "for programs in C; Python's module has it all inside",
    # Of CEL the kit uses the standard functions and macros.
    "cel_expr_python/ext/*": "functions that no policy can name",
    # What a package manager notes of its work: untrue after this list.
    "*.dist-info/RECORD": "names files that are left out",
    "*.dist-info/INSTALLER": "who installed it",
    "*.dist-info/REQUESTED": "who installed it",
    "*.dist-info/direct_url.json": "a path of the builder's",
    "*/__pycache__/*": "made anew, without times",
    # What would install more.
    "pip/*": "nothing is installed in an image",
    "pip-*": "nothing is installed in an image",
    "setuptools/*": "builds packages",
    "setuptools-*": "builds packages",
    "pkg_resources/*": "builds packages",
    "_distutils_hack/*": "builds packages",
    "distutils-precedence.pth": "builds packages",
}
"""Pattern of a path in site-packages (``*`` also over slashes) → why it stays out."""


def is_left_out(path: str) -> bool:
    """Whether this file, by its path in site-packages, stays out."""
    return any(fnmatchcase(path, pattern) for pattern in LEFT_OUT)


def trim(folder: Path) -> int:
    """Remove what stays out from a folder of installed packages; how many bytes that freed."""
    freed = 0
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif is_left_out(path.relative_to(folder).as_posix()):
            freed += path.lstat().st_size
            path.unlink()
    return freed


if __name__ == "__main__":
    sys.stderr.write(f"{trim(Path(sys.argv[1])) / 1e6:.0f} MB left out\n")
