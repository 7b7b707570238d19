"""`python -m twinline_agent --home DIR --user-data FILE`: runs until SIGTERM, or until it is refused for good."""

import argparse
import asyncio
import fcntl
import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from twinline_agent.enrollment import Enrollment
from twinline_agent.errors import Fatal, Unusable
from twinline_agent.identity import IdentityStore
from twinline_agent.stream import Stream, serve
from twinline_agent.user_data import UserData
from twinline_agent.work import Work

log = logging.getLogger("twinline_agent")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the agent. Exit status: 0 stopped, 2 unusable host or configuration, 3 refused by the gateway."""
    options = _parse(arguments)
    pass_on_no_ignored_signals()
    logging.basicConfig(level=options.log_level.upper(), handlers=[_handler()])
    try:
        user_data = UserData.load(options.user_data)
        with _alone(options.home):
            asyncio.run(_run(options.home, user_data))
    except Fatal as error:
        print(f"twinline-agent: {error}", file=sys.stderr)  # noqa: T201  # the line for the operator
        return error.exit_status
    return 0


def pass_on_no_ignored_signals() -> None:
    """Let scripts be ended by signals that whoever started us ignores, as nohup does.

    An ignored signal stays ignored in every child, and no shell can undo that; one with a handler does not. We
    ourselves go on as if it were ignored.
    """
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


async def _run(home: Path, user_data: UserData) -> None:
    enrollment = Enrollment(user_data, IdentityStore(home, user_data.agent_id))
    work = Work(home / "journal")
    stream = Stream(user_data, enrollment, work)
    try:
        async with asyncio.TaskGroup() as group:
            busy = group.create_task(work.run())
            loop, this = asyncio.get_running_loop(), group.create_task(serve(stream.session))
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, lambda: (this.cancel(), busy.cancel()))
    except BaseExceptionGroup as group:
        # Not `except*`: what is raised there comes out bare or in another group, depending on Python's patch release.
        if fatal := group.subgroup(Fatal):
            raise _first(fatal) from None
        raise


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("twinline_agent", description="Runs tasks of a Twinline gateway on this host.")
    parser.add_argument("--home", type=Path, required=True, help="folder for the key, the certificate and the journal")
    parser.add_argument("--user-data", type=Path, required=True, help="JSON file that the machine was given at launch")
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="info")
    return parser.parse_args(arguments)


class _Lines(logging.Formatter):
    """One line a record: the fixed message, then its fields."""

    _STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {key}={value!r}" for key, value in vars(record).items() if key not in self._STANDARD)
        return super().format(record) + fields


def _handler() -> logging.Handler:
    handler = logging.StreamHandler()
    handler.setFormatter(_Lines("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    return handler


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Hold the lock of `home`: two agents with one identity would fence each other for ever."""
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(home / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise Unusable(f"cannot use {home}: {error.strerror}; give a folder that this user can write") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise Unusable(f"another agent works in {home}: stop it, or give another folder") from None
    finally:
        os.close(lock)


if __name__ == "__main__":
    sys.exit(main())
