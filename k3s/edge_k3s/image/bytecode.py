"""Compiled Python beside its source, with the same bytes each time, or a read-only image compiles at every start.

Compiled files are valid by their source's hash and are not checked again (PEP 552, unchecked): no times are in them.
"""

import marshal
import subprocess
import sys

from edge_k3s.image.tree import Entry, File, Tree
from edge_models.errors import RejectedError

_COMPILE = """
import importlib._bootstrap_external as machinery, importlib.util as util, marshal, sys, warnings
warnings.simplefilter("ignore")
compiled = {}
for path, source in marshal.load(sys.stdin.buffer).items():
    try:
        code = compile(source, "/" + path, "exec", dont_inherit=True, optimize=0)
    except (SyntaxError, ValueError):
        continue  # a template, or for another Python
    compiled[path] = bytes(machinery._code_to_hash_pyc(code, util.source_hash(source), False))
sys.stdout.buffer.write(marshal.dumps(compiled))
"""
"""Runs in a process of its own: what marshal writes depends on what the process has interned, and sets on its seed."""


def can_compile(python: tuple[int, int]) -> bool:
    """Whether the Python that runs here writes what that one reads."""
    return sys.version_info[:2] == python and sys.implementation.name == "cpython"


def compiled(tree: Tree, python: tuple[int, int]) -> dict[str, Entry]:
    """Path → compiled file, for every module of the tree; needs `can_compile`."""
    sources = {path: tree[path] for path in sorted(tree) if path.endswith(".py")}
    order = {path: entry.data for path, entry in sources.items() if isinstance(entry, File)}
    done = subprocess.run(
        [sys.executable, "-s", "-S", "-B", "-c", _COMPILE],
        input=marshal.dumps(order),
        capture_output=True,
        env={"PYTHONHASHSEED": "0"},
        cwd="/",
        check=False,
    )
    if done.returncode != 0:
        raise RejectedError(f"modules could not be compiled: {done.stderr.decode(errors='replace')[-500:]}")
    suffix = f".cpython-{python[0]}{python[1]}.pyc"
    result: dict[str, Entry] = {}
    for path, data in marshal.loads(done.stdout).items():  # noqa: S302 - from our own child
        folder, _, name = path.rpartition("/")
        result[f"{folder}/__pycache__/{name.removesuffix('.py')}{suffix}"] = File(data)
    return result
