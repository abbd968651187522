"""The command itself: where the demo runs, what is shown, and what is left behind."""

import tempfile
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from edge_cli.output import FOUND, emit_json, talk
from edge_models.errors import ConfigError


class BrokerKind(StrEnum):
    """A broker the demo can start."""

    MOSQUITTO = "mosquitto"
    AMQTT = "amqtt"


app = typer.Typer(add_completion=False)


@app.command()
def demo(
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as one JSON object.")] = False,
    keep: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Leave databases, site files and logs in this new folder.")
    ] = None,
    broker: Annotated[
        BrokerKind | None, typer.Option(help="The broker to start; left out: mosquitto where it is installed.")
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(metavar="FILE.svg", help="Also draw the story into this file.")
    ] = None,
    hold: Annotated[bool, typer.Option("--hold", help="Keep it running at the end, and say where to look.")] = False,
) -> None:
    """Run a hub and three sites on this machine, cut a link, ship a release, and balance the books.

    Exits 0 only when every record is at the hub exactly once and every site runs release 2.

    Example: edge-agent demo --keep out
    """
    from edge_cli.demo.screen import Screen, books_table  # noqa: PLC0415 - `demo --help` needs none of it
    from edge_cli.demo.story import Story  # noqa: PLC0415
    from edge_cli.demo.why import why  # noqa: PLC0415

    with ExitStack() as stack:
        folder = _folder(keep, stack)
        screen = Screen(talk)
        story = stack.enter_context(Story(folder, screen, None if broker is None else broker.value))
        with screen.showing():
            story.set_up()
            story.play()
            books = story.settle(stop_sites=not hold)
        ending = (books_table(books), why(story))
        talk.print(*ending, sep="\n")
        if picture is not None:
            picture.write_text(screen.picture(*ending), encoding="utf-8")
        summary = story.summary(books)
        if as_json:
            emit_json(summary)
        verdict = "[bold green]ok[/]" if summary["ok"] else "[bold red]not ok[/]"
        talk.print(f"{verdict} in {summary['seconds']} s" + (f"; everything is in {folder}" if keep else ""))
        if hold:
            talk.print(story.where_to_look())
            with screen.showing():
                story.hold()
    if not summary["ok"]:
        raise typer.Exit(FOUND)


def _folder(keep: Path | None, stack: ExitStack) -> Path:
    if keep is None:
        return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edge-agent-demo-")))
    if keep.exists() and any(keep.iterdir()):
        raise ConfigError(f"{keep} is not empty: name a new folder for --keep")
    keep.mkdir(parents=True, exist_ok=True)
    return keep.resolve()
