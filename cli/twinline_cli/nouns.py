"""Which nouns there are. A noun's module is loaded when it is used, so that `--help` is there at once."""

import inspect
from importlib import import_module, metadata
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from twinline_cli.commands import noun

GROUP = "twinline.commands"
"""Other distributions add commands with entry points of this group: functions, named as the command."""

NOUNS = {
    "apply": "Make everything as a YAML file says.",
    "servers": "Servers, and the machine that each may have now.",
    "run": "Run a script or a command on servers.",
    "runs": "What was run where, and what came of it.",
    "scripts": "What runs on servers, and its revisions.",
    "keys": "SSH key pairs that servers are launched with.",
    "credentials": "Secret values that scripts get as inputs.",
    "agents": "What runs on v5 servers and dials out to us.",
    "doctor": "Check that all is there, and explain what is not.",
}


class Nouns(TyperGroup):
    """The root command: shows every noun, loads one."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, text in (_added() | NOUNS).items():
            self.add_command(TyperCommand(name, help=text, rich_markup_mode=None))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Put the real command in the place of the one that only has a name and a help text."""
        if args and args[0] in self.commands:
            self.add_command(_load(args[0]), args[0])
        return super().resolve_command(ctx, args)


def _load(name: str) -> Any:
    if name in NOUNS:
        app: typer.Typer = import_module(f"twinline_cli.{name}").app
    else:
        (entry,) = metadata.entry_points(group=GROUP, name=name)
        app = noun()
        app.command(name)(entry.load())
    return typer.main.get_command(app)


def _added() -> dict[str, str]:
    """Commands of other distributions and the first line of their docstrings, in the order of their help."""
    entries = sorted(metadata.entry_points(group=GROUP), key=lambda entry: entry.name, reverse=True)
    return {entry.name: (inspect.getdoc(entry.load()) or "").partition("\n")[0] for entry in entries}
