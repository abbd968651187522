"""A broker's folder: its users and the files that brokers read, kept in step."""

import fcntl
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from edge_hub.broker.credentials import User, dump_users, load_users
from edge_hub.broker.mosquitto import ACL, PASSWD, render_acl, render_passwd
from edge_hub.broker.passwords import hash_password, new_password
from edge_hub.broker.roles import Role, check_user
from edge_hub.broker.running import find_running
from edge_hub.files import write_private
from edge_models.errors import ConfigError


class BrokerFolder:
    """Users of one broker. Several processes may use one folder at once; none of its files holds a password."""

    def __init__(self, path: Path) -> None:
        """Makes the folder, mode 0700, where there is none. Raises `ConfigError`."""
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"broker folder {path}: {error.strerror}") from None
        self.path = path.resolve()
        self._known: tuple[tuple[int, int, int], dict[str, User]] | None = None

    @property
    def credentials(self) -> Path:
        """The file of users and password hashes."""
        return self.path / "credentials.json"

    @property
    def tls(self) -> Path:
        """Where whoever issues certificates puts what the listener for sites elsewhere reads."""
        return self.path / "tls"

    def users(self) -> dict[str, User]:
        """The users there are. Raises `ConfigError` where the file is damaged."""
        return load_users(self.credentials)

    def knows(self, name: str, role: Role, password: str) -> bool:
        """Whether there is such a user, with this password. Asked often: the file is read again where it changed."""
        try:
            stamp = self.credentials.stat()
        except FileNotFoundError:
            return False
        key = (stamp.st_mtime_ns, stamp.st_size, stamp.st_ino)
        if self._known is None or self._known[0] != key:
            self._known = (key, self.users())
        user = self._known[1].get(name)
        return user is not None and user.role == role and user.matches(password)

    def add_user(self, name: str, role: Role, replace: bool = False) -> str:
        """Add a user and return its password, which nobody can ask for again; a broker that runs knows it at once.

        Raises `ConfigError` for a name the role can't have, or that is taken while `replace` is false.
        """
        check_user(name, role)
        with self._locked():
            users = self.users()
            if name in users and not replace:
                raise ConfigError(f"broker user {name!r} exists already")
            password = new_password()
            users[name] = User(role, hash_password(password))
            self._write(users)
        self.reload()
        return password

    def change(
        self,
        passwords: Mapping[str, Role] | None = None,
        certificates: Collection[str] = (),
        gone: Collection[str] = (),
    ) -> dict[str, str]:
        """In one step: these users get new passwords, which are returned; these sites come by certificate only; these
        users are gone. A broker that runs knows it at once. Raises `ConfigError` for a name a role can't have.

        Who gets the role `ejected` is remembered as it was, also where this process ends: see `put_back`.
        """
        made: dict[str, str] = {}
        for name, role in (passwords or {}).items():
            check_user(name, role)
        for name in certificates:
            check_user(name, "site")
        with self._locked():
            users = self.users()
            for name, role in (passwords or {}).items():
                made[name] = new_password()
                was = users.get(name) if role == "ejected" else None
                before = was.was if was is not None and was.role == "ejected" else was
                users[name] = User(role, hash_password(made[name]), before)
            users |= {name: User("site", None) for name in certificates}
            for name in gone:
                users.pop(name, None)
            self._write(users)
        self.reload()
        return made

    def put_back(self, names: Collection[str] | None = None) -> None:
        """Make users who are being ejected, these or all, again what they were; who was changed meanwhile stays so."""
        with self._locked():
            users = self.users()
            wanted = users.keys() if names is None else users.keys() & set(names)
            ejected = [name for name in wanted if users[name].role == "ejected"]
            if not ejected:
                return
            for name in ejected:
                was = users.pop(name).was
                if was is not None:
                    users[name] = was
            self._write(users)
        self.reload()

    def service_user(self, name: str, role: Role) -> Path:
        """The file, mode 0600, that holds the password of a user on this machine; both are made where missing."""
        path = self.path / f"{name}.password"
        if name not in self.users() or not path.exists():
            write_private(path, self.add_user(name, role, replace=True).encode())
        return path

    def reload(self) -> bool:
        """Make the broker that runs on this folder, in whatever process, read its users again. False: none runs."""
        running = find_running(self.path)
        return running is not None and running.reload()

    def _write(self, users: dict[str, User]) -> None:
        # The credentials last: they are the truth, and with them in place the other two are there already.
        write_private(self.path / PASSWD, render_passwd(users))
        write_private(self.path / ACL, render_acl(users))
        write_private(self.credentials, dump_users(users))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        fd = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)
