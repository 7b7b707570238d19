"""What the suite adds to the command line. Light: it is loaded for every `twinline --help`."""

from pathlib import Path
from typing import Annotated

import typer

from twinline_cli import home
from twinline_cli.errors import ExitCode
from twinline_cli.formats import Format


def up(
    folder: Annotated[
        Path | None,
        typer.Option("--home", envvar=home.VARIABLE, help="Holds all the suite keeps.", show_default="data folder"),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65534,
            help="For people. At the first start the next one is for services and agents; 0: free ones.",
        ),
    ] = None,
    mesh_port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="For services and agents. Agents keep the one they were launched with."),
    ] = None,
) -> None:
    """Run the whole suite in one process, until Ctrl-C."""
    from twinline_suite.up import run

    run(folder or home.folder(), port, mesh_port)


def demo(
    output: Annotated[
        Format, typer.Option("--output", "-o", help="json prints one object at the end instead of the story.")
    ] = Format.TABLE,
) -> ExitCode:
    """Show the main job on throw-away data, then exit."""
    from twinline_suite.demo.run import run

    raise typer.Exit(run(output))
