"""The enrolment thread: does what `Schedule` says is due, while agents work; tells when there is a certificate."""

import logging
import random
import threading
import time
from collections.abc import Callable

from edge_agent.enrol.attempt import Asked, Failed, NotDueYet, StoppedError, attempt
from edge_agent.enrol.identity import IdentityFolder, print_of
from edge_agent.enrol.schedule import Act, Held, Schedule, Seen
from edge_models.errors import KitError

log = logging.getLogger(__name__)

TICK_S = 5.0
"""How often the token and the clock are looked at: a token that is put there counts within this."""


class EnrolmentService:
    """Keeps one site's certificate."""

    def __init__(
        self,
        asked: Asked,
        now_us: Callable[[], int],
        online: Callable[[], bool],
        on_identity: Callable[[], None],
        on_got: Callable[[Act, Held], None],
        on_refused: Callable[[str], None],
        refusal: Callable[[], str | None],
    ) -> None:
        """`online`: whether the link to the hub is up; `refusal`: why the hub's broker takes no certificate of ours.

        `refusal` and all of `on_…` are called on the thread of this:

        `on_identity` once, when there is a certificate to connect with; `on_got` for each new one; `on_refused` for
        each no that is not for the moment, in one line.
        """
        self._asked, self._now_us, self._online = asked, now_us, online
        self._on_identity, self._on_got, self._on_refused = on_identity, on_got, on_refused
        self._refusal = refusal
        self._folder = IdentityFolder(asked.identity, asked.site)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="enrol", daemon=True)
        self.problem: str | None = None
        """Why there is no certificate, or no newer one, where it was tried in vain."""
        self.held: Held | None = None

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """Stop; a try that is under way is given up, and loses nothing."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        self.held = self._look()
        schedule = Schedule(self.held, time.monotonic(), random.uniform)
        told = False
        while not self._closing.is_set():
            try:
                if self.held is not None and not told:
                    told = True
                    self._on_identity()
                act = schedule.next(self._seen())
                if act is not None:
                    self._do(act, schedule)
                    continue
            except StoppedError:
                return
            except Exception as error:  # the thread must live: a defect here may not leave a site without its hub
                log.exception("enrolment_crashed")
                self.problem = f"{type(error).__name__}: {error}"
                schedule.in_vain(self._seen())
            self._closing.wait(TICK_S)

    def _do(self, act: Act, schedule: Schedule) -> None:
        outcome = attempt(self._asked, act, self._closing.is_set)
        seen = self._seen()
        if isinstance(outcome, Failed):
            self._failed(act, outcome)
            if outcome.final:
                schedule.refused(act, seen)
            else:
                schedule.in_vain(seen, outcome.retry_after_s)
            return
        self.problem = None
        if isinstance(outcome, NotDueYet):
            schedule.not_due(outcome.hub_us, seen.now_s)
            # The certificate is good, and the link is down all the same: perhaps since it was revoked.
            if not seen.online and (why := self._refusal()) is not None:
                self._failed(act, Failed(f"the certificate is good by its dates, and {why}", final=True))
            return
        schedule.got(outcome, seen.now_s)
        self.held = outcome
        log.info("joined" if act == "join" else "certificate_renewed", extra={"ends_us": outcome.ends_us})
        self._on_got(act, outcome)

    def _failed(self, act: Act, outcome: Failed) -> None:
        if outcome.final:
            self._on_refused(outcome.reason)
        elif outcome.reason != self.problem:  # one line is enough while the hub is away
            log.warning(f"{act}_failed", extra={"reason": outcome.reason})
        self.problem = outcome.reason

    def _look(self) -> Held | None:
        try:
            self._folder.settle()
            return self._folder.held()
        except (KitError, OSError) as error:
            self.problem = str(error)
            self._on_refused(self.problem)
            return None

    def _seen(self) -> Seen:
        return Seen(time.monotonic(), self._now_us(), self._offered(), self._online())

    def _offered(self) -> str | None:
        try:
            return None if self._asked.token_file is None else print_of(self._asked.token_file.read_text())
        except (OSError, UnicodeDecodeError):
            return None
