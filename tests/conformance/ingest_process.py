"""A process that takes in what it is given: database and messages as pickled on its standard input."""

import pickle
import sys

from edge_hub.database.store import Store
from edge_hub.ingest.inbox import Heard, Inbox
from edge_hub.ingest.thread import Ingest, Outgoing
from edge_hub.metrics import Metrics


def main() -> None:
    """Say that the database is open, wait for the word, take everything in, a few messages at a time."""
    database, messages = pickle.load(sys.stdin.buffer)
    store = Store(database)
    ingest = Ingest(store, Inbox(), Metrics(), Outgoing(lambda *_: None, lambda *_: None, lambda _: None))
    print("ready", flush=True)
    sys.stdin.buffer.readline()
    items = [Heard(site, "journal", payload) for site, payload in messages]
    for at in range(0, len(items), 3):
        ingest.handle(items[at : at + 3])
    store.close()


if __name__ == "__main__":
    main()
