"""Children that end with their parent, whatever ends it."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> Callable[[], None] | None:
    """A `preexec_fn` for `subprocess.Popen`: the kernel kills the child when the thread that started it ends.

    Start such children from a thread that lives as long as the process. None where the system is not Linux:
    a child then outlives a parent that is killed, and the next broker of its folder says so.
    """
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)  # before the fork: nothing is loaded between fork and exec
    parent = os.getpid()

    def ask_kernel() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before the kernel was asked
            os._exit(1)

    return ask_kernel
