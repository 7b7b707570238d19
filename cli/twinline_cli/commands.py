"""How nouns and their commands are made. Commands are coroutines."""

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import typer

P = ParamSpec("P")
Function = TypeVar("Function", bound=Callable[..., Coroutine[Any, Any, int | None]])


name_of_command: ContextVar[str] = ContextVar("twinline_command", default="twinline")
"""What is being done, in the words it was asked for and without arguments: those may be secret."""


def noun(text: str = "") -> typer.Typer:
    """What a noun's module hangs its commands on: `text` is the help of a noun with verbs."""
    return typer.Typer(
        help=text or None,
        no_args_is_help=bool(text),
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )


def command(app: typer.Typer, name: str, **settings: Any) -> Callable[[Function], Function]:
    """Make a coroutine function the command `name` of `app`. What it returns is the exit code; None is 0.

    `settings` are typer's.
    """

    def register(function: Function) -> Function:
        @wraps(function)
        def run(*args: Any, **kwargs: Any) -> None:
            of = function.__module__.rpartition(".")[2]
            name_of_command.set(f"twinline {of}" if of == name else f"twinline {of} {name}")
            raise typer.Exit(asyncio.run(function(*args, **kwargs)) or 0)

        app.command(name, **settings)(run)
        return function

    return register
