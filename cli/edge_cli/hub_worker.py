"""What `edge-agent hub serve --workers N` starts N times; what to do it reads from standard input."""

import sys

from edge_cli.logs import log_to_stderr
from edge_hub.workers.worker import Order, run
from edge_models.errors import KitError


def main() -> int:
    """Run until SIGTERM. A reason not to start is one line, as anywhere."""
    log_to_stderr("info")
    try:
        run(Order.read(sys.stdin.buffer.readline()))
    except KitError as error:
        print(f"worker: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
