"""Runs the demo: a suite of its own, the story, the summary, and nothing left behind."""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import yaml

from twinline_cli import home as client_home
from twinline_cli.errors import CliError, ExitCode, exit_code, in_words, say
from twinline_cli.formats import Format
from twinline_kit.errors import Error
from twinline_launcher.providers.local.sshd import check_programs
from twinline_suite import search_path
from twinline_suite.demo import processes
from twinline_suite.demo.failure import DemoFailed
from twinline_suite.demo.narrator import Narrator
from twinline_suite.demo.record import Record
from twinline_suite.demo.story import Story
from twinline_suite.demo.suite_process import SSHD_PROGRAM, SuiteProcess, started

_SETTLE = 5.0


def run(form: Format) -> ExitCode:
    """Tell the story, or print what was found in another format. 0 only if all of it was so.

    Raises SshdMissing before anything is started.
    """
    check_programs(os.environ.get(SSHD_PROGRAM, ""))
    narrator = Narrator(sys.stdout if form is Format.TABLE else None)
    with _terminable():
        try:
            record = asyncio.run(_demo(narrator))
        except DemoFailed as failure:
            say(f"the demo failed to {failure}")
            return ExitCode.FAILED
    if form is not Format.TABLE:
        _print(record.to_data(), form)
    if record.left_processes:
        say(f"the demo left {record.left_processes} processes behind; they were ended by force")
        return ExitCode.FAILED
    return ExitCode.SUCCEEDED


async def _demo(narrator: Narrator) -> Record:
    began, record = time.monotonic(), Record()
    narrator.title("Twinline: two generations of servers, one way to run things on them")
    narrator.say("Everything below is real, on this machine and on loopback only, and thrown away at the end.")
    async with started() as suite:
        narrator.chapter("The suite")
        narrator.fact("home", str(suite.home))
        narrator.fact("API", f"{client_home.client(suite.home).address}, four services in one process")
        await _tell(suite, narrator, record)
        await _stop(suite, narrator, record)
    _summarise(narrator, record, time.monotonic() - began)
    return record


async def _tell(suite: SuiteProcess, narrator: Narrator, record: Record) -> None:
    try:
        async with suite.channel() as channel:
            await Story(channel, narrator, record).tell()
    except (DemoFailed, Error, CliError) as failure:
        if not _is_refusal(failure):
            _show_log(suite)
        if isinstance(failure, DemoFailed):
            raise
        why = in_words(failure) if isinstance(failure, Error) else failure.message
        raise DemoFailed("go on", why) from failure


async def _stop(suite: SuiteProcess, narrator: Narrator, record: Record) -> None:
    """Stop the suite as Ctrl-C would, and count what is left of everything."""
    narrator.chapter("The end")
    try:
        status = await suite.stop()
    except TimeoutError:
        _show_log(suite)
        raise DemoFailed("stop the suite", "it goes on after Ctrl-C") from None
    if status != 0:
        _show_log(suite)
        raise DemoFailed("stop the suite", f"it ended with status {status}: {suite.said()}")
    left = await asyncio.to_thread(lambda: processes.gone(suite.home, within=_SETTLE))
    record.left_processes = len(left)


def _summarise(narrator: Narrator, record: Record, took: float) -> None:
    rows = [("SERVER", "GENERATION", "KEY", "NOW", "COST", "OF IT STRANDED")]
    for server in record.servers:
        stranded = f"${server['stranded_cost']:.6f}" if server["stranded_cost"] else "none"
        now = server["states"][-1]["state"].lower()
        about = (server["name"], server["generation"], server["cloud_key"], now)
        rows.append((*about, f"${server['cost']:.6f}", stranded))
    narrator.table(rows)
    narrator.space()
    for server in record.servers:
        narrator.fact(server["name"], " → ".join(step["state"].lower() for step in server["states"]))
    narrator.space()
    narrator.verdict("web-v4 and web-v5 became operational after two boot scripts each", good=True)
    narrator.verdict("one script gave the same bytes over SSH and over an agent's stream", good=True)
    narrator.verdict(
        "stray-v4 stranded for want of a key, and went on where it stopped, on the same machine", good=True
    )
    narrator.verdict("every server was decommissioned by its script, then terminated", good=True)
    narrator.verdict(f"{record.left_processes} processes left behind", good=not record.left_processes)
    narrator.space()
    narrator.say(f"All of it took {took:.0f} s. Next: `twinline up`, and what it prints.")
    for command in search_path.export():
        narrator.say("It is not on your PATH yet; before it:")
        narrator.command(command)


def _print(data: dict[str, Any], form: Format) -> None:
    if form is Format.YAML:
        yaml.safe_dump(data, sys.stdout, sort_keys=False, allow_unicode=True)
        return
    text = json.dumps(data, indent=2 if form is Format.JSON else None, ensure_ascii=False)
    sys.stdout.write(f"{text}\n")


def _is_refusal(failure: DemoFailed | Error | CliError) -> bool:
    """Whether it says itself what to do, so that nobody needs the log."""
    if isinstance(failure, DemoFailed):
        return False
    code = exit_code(failure) if isinstance(failure, Error) else failure.code
    return code in (ExitCode.USAGE, ExitCode.REFUSED)


def _show_log(suite: SuiteProcess) -> None:
    """The end of the suite's log, for whoever wants to know why."""
    for text in suite.log_tail():
        sys.stderr.write(f"  log: {text[:400]}\n")


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM and SIGHUP end the demo as Ctrl-C does: everything is cleaned up."""

    def interrupt(number: int, frame: object) -> None:
        signal.raise_signal(signal.SIGINT)

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
