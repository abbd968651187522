"""What a person sees of the demo: the story so far, and the fleet as a live table."""

import io
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from edge_cli.demo.books import Balance
from edge_cli.demo.fleet import SiteView

PICTURE_COLUMNS = 104


@dataclass(frozen=True, slots=True)
class Line:
    """One site's line of the table."""

    view: SiteView
    cut: bool


class Screen:
    """Tells the story on a console; on anything but a terminal it prints each step once, with the table after it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = time.monotonic()
        self._story: list[Text] = []
        self._lines: list[Line] = []
        self._tables: list[tuple[int, list[Line]]] = []
        """After how many lines of the story a step ended, and the fleet then."""
        self._live: Live | None = None

    @contextmanager
    def showing(self) -> Iterator[None]:
        """The live part."""
        if not self._console.is_terminal:
            yield
            return
        with Live(console=self._console, auto_refresh=False, transient=False) as live:
            self._live = live
            try:
                yield
            finally:
                self._live = None

    def step(self, number: int, title: str, detail: str = "") -> None:
        """The next step of the story."""
        self._say(Text())
        self._say(Text.assemble((f"{self._clock()} ", "dim"), (f"{number}. {title}", "bold"), (f"  {detail}", "")))

    def note(self, text: str) -> None:
        """Something that happened in this step."""
        self._say(Text.assemble((f"{self._clock()} ", "dim"), f"   {text}"))

    def show(self, lines: Iterable[Line]) -> None:
        """The fleet now."""
        self._lines = list(lines)
        self._draw()

    def turn_page(self) -> None:
        """What was told stays where it is; from here on only the fleet is shown."""
        self._story, self._tables = [], []

    def snapshot(self) -> None:
        """Where there is no terminal to draw on: the table once, as it is."""
        self._tables.append((len(self._story), self._lines))
        if self._live is None and self._lines:
            self._console.print(table(self._lines))

    def picture(self, *after: RenderableType) -> str:
        """The whole story as an SVG without anything from elsewhere, each step's table below it."""
        paper = Console(record=True, file=io.StringIO(), width=PICTURE_COLUMNS, highlight=False)
        shown = 0
        for upto, lines in self._tables:
            paper.print(*self._story[shown:upto], sep="\n")
            paper.print(table(lines))
            shown = upto
        paper.print(*self._story[shown:], *after, sep="\n")
        plain = re.sub(r"@font-face \{\{.*?\}\}|<!--.*?-->", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
        return paper.export_svg(title="edge-agent demo", code_format=plain)

    def _say(self, text: Text) -> None:
        self._story.append(text)
        if self._live is None:
            self._console.print(text, soft_wrap=True)
        self._draw()

    def _draw(self) -> None:
        if self._live is not None:
            parts: list[RenderableType] = [*self._story, Text(), table(self._lines)]
            self._live.update(Group(*parts), refresh=True)

    def _clock(self) -> str:
        return f"{time.monotonic() - self._started:5.1f} s"


def books_table(books: Mapping[str, Balance]) -> Table:
    """Every site's books, balanced or not."""
    made = Table(box=None, pad_edge=False, header_style="dim")
    made.add_column("site", style="bold")
    for column in ("seen", "decided", "acted", "while cut", "at the site", "at the hub", "lost", "double"):
        made.add_column(column, justify="right")
    for site, each in books.items():
        counts = (each.observations, each.decisions, each.actions, each.decisions_while_cut)
        ends = (Text(str(n), "bold red" if n else "bold green") for n in (each.lost, each.duplicated))
        made.add_row(site, *(f"{n:,}" for n in (*counts, each.records_at_site, each.records_at_hub)), *ends)
    return made


def table(lines: Iterable[Line]) -> Table:
    """The fleet as a table."""
    made = Table(box=None, pad_edge=False, header_style="dim")
    made.add_column("site", style="bold")
    made.add_column("link")
    for column in ("decisions", "acts", "backlog", "at the hub"):
        made.add_column(column, justify="right", min_width=9)
    made.add_column("release", justify="right")
    made.add_column("state")
    for line in lines:
        view = line.view
        link = Text("cut", "bold red") if line.cut else Text("up" if view.online else "…", "green")
        backlog = Text(f"{view.backlog:,}", "yellow" if line.cut else "")
        made.add_row(
            view.site,
            link,
            f"{view.decisions:,}",
            f"{view.actions:,}",
            backlog,
            f"{view.hub_records:,}",
            Text(str(view.release), "bold green" if view.release > 1 else ""),
            view.state,
        )
    return made
