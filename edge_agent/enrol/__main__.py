"""One try to join or to renew, as a process of its own: what TLS and X.509 take of memory goes with it.

`python -m edge_agent.enrol` is started by the site process; one JSON object on stdout says what came of it.
"""

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edge_agent.enrol.client import EstClient, RefusedError
from edge_agent.enrol.flow import join, journal_public, renew
from edge_agent.enrol.identity import IdentityFolder
from edge_agent.enrol.schedule import Held
from edge_models.errors import ConfigError, KitError, RetryableError


def main(words: list[str]) -> dict[str, Any]:
    """``{"got": …}``, ``{"not_due_us": …}``, or ``{"failed": …, "final": …}``; see `edge_agent.enrol.attempt`."""
    parser = argparse.ArgumentParser(prog="edge_agent.enrol")
    parser.add_argument("act", choices=("join", "renew"))
    for name in ("site", "url", "identity"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("token", "journal-key"):
        parser.add_argument(f"--{name}")
    asked = parser.parse_args(words)
    try:
        client, folder = EstClient(asked.url), IdentityFolder(Path(asked.identity), asked.site)
        if asked.act == "renew":
            came = renew(client, folder, asked.site, lambda: time.time_ns() // 1000)
        else:
            key = journal_public(Path(asked.journal_key)) if asked.journal_key else None
            came = join(client, folder, asked.site, Path(asked.token).read_text(), key)
    except RetryableError as error:
        return {"failed": str(error), "final": False, "retry_after_s": error.retry_after_s}
    except KitError as error:
        return {"failed": str(error), "final": isinstance(error, RefusedError | ConfigError)}
    except (OSError, UnicodeDecodeError) as error:
        return {"failed": str(error), "final": False}
    return {"got": asdict(came)} if isinstance(came, Held) else {"not_due_us": came.time_us}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1:])) + "\n")
