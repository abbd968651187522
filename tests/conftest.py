"""What every test needs: telemetry off before anything can import onnxruntime; hypothesis that measures no time.

And for those that ask for it: a PostgreSQL server of the tests' own.
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

# No deadline: the machine may be busy. In CI the same examples every time: a new one is found by people, not by chance.
settings.register_profile("house", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("house")


class Postgres:
    """A PostgreSQL server in a folder of its own, on a loopback port; it refuses root, so root starts it as another."""

    USER, PASSWORD = "edge", "s3cret:of\\the tests"

    def __init__(self, programs: Path) -> None:
        """Makes and starts it, and waits until it lets users in."""
        self._programs = programs
        self._folder = Path(tempfile.mkdtemp(prefix="edge-postgres-"))
        self._databases = 0
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.passfile = self._folder / "pgpass"
        escaped = self.PASSWORD.replace("\\", "\\\\").replace(":", "\\:")
        self.passfile.write_text(f"127.0.0.1:{self.port}:*:{self.USER}:{escaped}\n")
        self.passfile.chmod(0o600)
        secret = self._folder / "password"
        secret.write_text(self.PASSWORD)
        self._as: list[str] = []
        if os.getuid() == 0:
            self._as = ["setpriv", "--pdeathsig=INT", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--"]
            shutil.chown(self._folder, "nobody", "nogroup")
            shutil.chown(secret, "nobody", "nogroup")
        self._data = self._folder / "data"
        made = ["-D", self._data, "-U", self.USER, "-A", "scram-sha-256", f"--pwfile={secret}", "-E", "UTF8", "-N"]
        self._run("initdb", *map(str, made), "--locale=C", "--no-instructions")
        self.start()

    def start(self) -> None:
        """Start it on its port."""
        options = {"port": self.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": self._folder}
        options |= {"fsync": "off", "max_connections": 200, "log_min_messages": "fatal", "lc_messages": "C"}
        words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        with (self._folder / "log").open("ab") as log:
            self._server = subprocess.Popen(
                [*self._as, str(self._programs / "postgres"), "-D", str(self._data), *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
            )
        deadline = time.monotonic() + 60
        while not self._answers():
            assert self._server.poll() is None, (self._folder / "log").read_text()
            assert time.monotonic() < deadline, "PostgreSQL did not start"
            time.sleep(0.05)

    def stop(self) -> None:
        """End it, and whatever it is asked at the moment."""
        self._server.send_signal(signal.SIGINT)
        self._server.wait(30)

    def remove(self) -> None:
        """End it, and take its folder away."""
        self.stop()
        shutil.rmtree(self._folder)

    def new_database(self) -> str:
        """The URL of an empty database; the password is in `passfile`."""
        self._databases += 1
        name = f"test_{self._databases}"
        self.sql("postgres", f"CREATE DATABASE {name}")
        return f"postgresql://{self.USER}@127.0.0.1:{self.port}/{name}"

    def drop_database(self, url: str) -> None:
        """Take one away, whoever uses it."""
        self.sql("postgres", f"DROP DATABASE IF EXISTS {url.rpartition('/')[2]} WITH (FORCE)")

    def sql(self, database: str, statement: str) -> str:
        """What psql says to a statement."""
        return self._run("psql", *self._where(), "-d", database, "-AtXqc", statement)

    def _answers(self) -> bool:
        words = [str(self._programs / "pg_isready"), *self._where(), "-t", "1"]
        return subprocess.run(words, capture_output=True, check=False, cwd="/").returncode == 0

    def _where(self) -> list[str]:
        return ["-h", "127.0.0.1", "-p", str(self.port), "-U", self.USER]

    def _run(self, program: str, *words: str) -> str:
        as_whom = self._as if program == "initdb" else []
        known = os.environ | {"PGPASSWORD": self.PASSWORD}
        command = [*as_whom, str(self._programs / program), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/", env=known)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """The session's PostgreSQL server."""
    found = shutil.which("postgres")
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    if found is None and not folders:
        if os.environ.get("EDGE_TESTS_NEED_POSTGRES") == "1":
            pytest.fail("PostgreSQL is not installed, and EDGE_TESTS_NEED_POSTGRES is 1")
        pytest.skip("PostgreSQL is not installed")
    server = Postgres(Path(found).resolve().parent if found is not None else folders[-1])
    yield server
    server.remove()


@pytest.fixture
def postgres_url(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty PostgreSQL database, and this process knows its password."""
    monkeypatch.setenv("PGPASSFILE", str(postgres.passfile))
    url = postgres.new_database()
    yield url
    postgres.drop_database(url)
