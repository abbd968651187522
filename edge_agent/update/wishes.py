"""What a person at the site wants of its updates, as files in `DATA/update/`: left by a command, read by the site.

    hold            the site takes nothing new while it is there
    back-…          go back to the release before
    stick-…/        what came on a stick: `trust.bin`, `desired.json`, `blobs/`

Whatever lies there was made by somebody who may write in the site's folder; what it brings is verified all the same.
"""

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edge_agent.memory.damage import sync_folder
from edge_models.errors import ConfigError, RetryableError

HOLD = "hold"
_BACK, _STICK = "back-", "stick-"
MAX_REASON_CHARS = 200


@dataclass(frozen=True, slots=True)
class GoBackNow:
    """Run the release before, and refuse the one that runs now."""

    path: Path
    reason: str


@dataclass(frozen=True, slots=True)
class TakeStick:
    """A folder to take in."""

    path: Path

    @property
    def trust(self) -> Path:
        """A packed metadata set."""
        return self.path / "trust.bin"

    @property
    def desired(self) -> Path:
        """This site's signed desired document."""
        return self.path / "desired.json"

    def blobs(self) -> Iterator[tuple[str, Path]]:
        """Digest and file of each artifact."""
        for path in sorted((self.path / "blobs").iterdir()):
            yield f"sha256:{path.name}", path


Wish = GoBackNow | TakeStick


class Wishes:
    """The folder of one site. Commands write, the update thread reads and clears."""

    def __init__(self, data: Path) -> None:
        """`data` is the site's data folder."""
        self.folder = data / "update"

    def hold(self, reason: str) -> None:
        """From now on nothing new is taken."""
        self._write(HOLD, {"reason": reason[:MAX_REASON_CHARS]})

    def unhold(self) -> bool:
        """Take what is new again; whether it was held."""
        path = self.folder / HOLD
        held = path.exists()
        path.unlink(missing_ok=True)
        return held

    def held(self) -> str | None:
        """Why nothing new is taken; None where it is."""
        path = self.folder / HOLD
        try:
            return str(json.loads(path.read_bytes())["reason"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            return "held"  # whatever the file says: it is there

    def go_back(self, reason: str) -> None:
        """Wish for the release before."""
        self._write(f"{_BACK}{secrets.token_hex(4)}", {"reason": reason[:MAX_REASON_CHARS]})

    def stick(self) -> "Offer":
        """Begin to copy what came on a stick; nothing is seen of it before `Offer.done`."""
        return Offer(self._made())

    def next(self) -> Wish | None:
        """One that waits; None where none does."""
        try:
            names = sorted(entry.name for entry in os.scandir(self.folder))
        except FileNotFoundError:
            return None
        for name in names:
            path = self.folder / name
            if name.startswith(_BACK):
                try:
                    reason = str(json.loads(path.read_bytes())["reason"])
                except (OSError, ValueError, KeyError, TypeError):
                    reason = "asked for at the site"
                return GoBackNow(path, reason)
            if name.startswith(_STICK):
                return TakeStick(path)
        return None

    def clear(self, wish: Wish) -> None:
        """It is done, or can't be."""
        if isinstance(wish, TakeStick):
            shutil.rmtree(wish.path, ignore_errors=True)
        else:
            wish.path.unlink(missing_ok=True)

    def clear_unfinished(self) -> None:
        """What a command that was cut short left behind."""
        for path in self.folder.glob(".*"):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def _write(self, name: str, what: dict[str, str]) -> None:
        folder = self._made()
        part = folder / f".{name}.{secrets.token_hex(4)}"
        try:
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                json.dump(what, file)
                file.flush()
                os.fsync(file.fileno())
            part.replace(folder / name)
            sync_folder(folder)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise RetryableError(f"{folder / name}: {error.strerror}") from None

    def _made(self) -> Path:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{self.folder}: {error.strerror}") from None
        return self.folder


class Offer:
    """A stick's content on its way into a site's folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._part = folder / f".{_STICK}{secrets.token_hex(4)}"

    def __enter__(self) -> "Offer":
        (self._part / "blobs").mkdir(parents=True, mode=0o700)
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._part, ignore_errors=True)

    def put(self, name: str, data: bytes) -> None:
        """`trust.bin` or `desired.json`."""
        with (self._part / name).open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def put_blob(self, digest: str, source: Path) -> None:
        """An artifact; it is verified by the site."""
        target = self._part / "blobs" / digest.removeprefix("sha256:")
        with source.open("rb") as read, target.open("wb") as written:
            shutil.copyfileobj(read, written, 1024 * 1024)
            written.flush()
            os.fsync(written.fileno())

    def done(self) -> None:
        """All of it is here: the site may take it."""
        sync_folder(self._part / "blobs")
        sync_folder(self._part)
        self._part.rename(self._folder / self._part.name.removeprefix("."))
        sync_folder(self._folder)
