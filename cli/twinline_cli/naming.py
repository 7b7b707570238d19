"""Help for whoever misspelt a name."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from difflib import get_close_matches

from twinline_cli.errors import CliError, exit_code
from twinline_kit.errors import Error, NotFound


def near(name: str, known: Iterable[str]) -> str:
    """`; did you mean X?` when something known is spelt nearly like `name`, and not the same; else nothing."""
    matches = get_close_matches(name, list(known), n=1)
    return f"; did you mean {matches[0]}?" if matches and matches[0] != name else ""


@asynccontextmanager
async def suggesting(
    name: str, known: Callable[[], Awaitable[Iterable[str]]], *, hint: str = ""
) -> AsyncIterator[None]:
    """Within the block, `name` not being found names the nearest of the `known` ones, or gives `hint` instead."""
    try:
        yield
    except NotFound as error:
        raise CliError(f"{error.message}{hint or await _nearest(name, known)}", exit_code(error)) from error


async def _nearest(name: str, known: Callable[[], Awaitable[Iterable[str]]]) -> str:
    try:
        return near(name, await known())
    except Error:
        return ""
