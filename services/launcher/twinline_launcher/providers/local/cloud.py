"""The local cloud's own control plane.

A launch is accepted when the machine's record is on disk. Everything after that is caught up with whenever somebody
looks: a machine that was accepted and never started is started, an SSH server that should listen is made to, and a
machine whose body died, or whose host was booted again, is found gone. So the suite may be killed at any point.
"""

import asyncio
import json
import logging
import os
import pwd
import random
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from twinline_kit.clock import Clock
from twinline_kit.errors import Error, Unavailable, Violation
from twinline_launcher.errors import LaunchRefused, RecordUnreadable, SshdMissing
from twinline_launcher.models import Generation
from twinline_launcher.providers import InstanceType, LaunchSpec, Machine, Power
from twinline_launcher.providers.local import processes, sshd
from twinline_launcher.providers.local.folder import LOCK_PATIENCE, Busy, Folder, Record, all_folders, read_json
from twinline_launcher.providers.local.processes import MARKER, UNKNOWN, Children

log = logging.getLogger(__name__)

NAME = "local"
SSH = 22

_TYPES = (
    InstanceType("local-small", 11_600),
    InstanceType("local-medium", 46_400),
    InstanceType("local-large", 92_800),
)
_BODY_V4 = ["/bin/sh", "-c", "while :; do sleep 3600; done", "twinline-machine"]
# Restarts the agent as systemd would; one that was refused for good (3) less often.
_BODY_V5 = ["/bin/sh", "-c", 'while :; do "$@"; [ $? -eq 3 ] && sleep 30; sleep 1; done', "twinline-machine"]
_PORT_ATTEMPTS = 5
# Whoever wants to know how a machine ended has so long to read its console, and a late launch to find that it is over.
_KEPT = timedelta(days=30)
_SWEEP_EVERY = timedelta(days=1)
# For the SSH servers that one piece of work starts, however many they are.
_START_PATIENCE = 5.0
# What waits here waits for a file's lock or for a process: it must not take the threads that everybody else shares.
_THREADS = 8
_BATCH = 20
# A machine has nothing of who runs the cloud, but for where Python finds the agent.
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_INHERITED = ("PYTHONPATH",)

T = TypeVar("T")


class LocalCloud:
    """Machines below `folder`, made of processes of this host."""

    def __init__(self, folder: Path, *, clock: Clock, sshd_program: str = "") -> None:
        self._folder = folder.absolute()
        self._instances = self._folder / "instances"
        self._clock = clock
        self._sshd_program = sshd_program
        self._children = Children()
        self._swept = datetime.min.replace(tzinfo=UTC)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="local-cloud")

    @property
    def name(self) -> str:
        """`local`."""
        return NAME

    @property
    def instance_types(self) -> Sequence[InstanceType]:
        """All alike but for the price."""
        return _TYPES

    async def obstacles(self, generation: Generation) -> Sequence[Violation]:
        """See Cloud."""
        return await asyncio.to_thread(self._obstacles, generation)

    async def launch(self, spec: LaunchSpec) -> Machine:
        """See Cloud."""
        return await self._do(self._locked, spec.token, lambda folder: self._launch(folder, spec))

    async def describe(self, tokens: Collection[str]) -> Mapping[str, Machine]:
        """See Cloud. Waits for nobody: a machine that somebody works at is told as its record has it."""
        return await self._look(tokens, patience=0)

    async def terminate(self, token: str) -> Machine:
        """See Cloud. Now and then it deletes what is left of machines that ended long ago."""
        ended: Machine = await self._do(self._locked, token, self._terminate)
        if self._clock() - self._swept >= _SWEEP_EVERY:
            self._swept = self._clock()
            await self._do(self._sweep)
        return ended

    async def apply_group(self, group: str, open_ports: Sequence[int]) -> None:
        """See Cloud."""
        members = await self._do(self._write_group, group, list(open_ports))
        await self._look(members, patience=LOCK_PATIENCE)

    def close(self) -> None:
        """Let the machines go on without us. What is being done ends by itself, in seconds."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._children.release()

    async def _do(self, work: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(work, *arguments))

    async def _look(self, tokens: Collection[str], *, patience: float) -> Mapping[str, Machine]:
        # In any order: one whose server never starts keeps others waiting, and not always the same ones.
        mixed = random.sample(list(tokens), len(tokens))
        batches = [mixed[start : start + _BATCH] for start in range(0, len(mixed), _BATCH)]
        answers = await asyncio.gather(*(self._do(self._seen, batch, patience) for batch in batches))
        return {token: machine for answer in answers for token, machine in answer.items()}

    def _obstacles(self, generation: Generation) -> list[Violation]:
        try:
            if generation is Generation.V4:
                sshd.check_programs(self._sshd_program)
        except SshdMissing as missing:
            return [Violation(missing.reason, NAME, missing.message)]
        return []

    def _locked(self, token: str, act: Callable[[Folder], T]) -> T:
        folder = Folder.of(self._instances, token)
        with folder.locked():
            return act(folder)

    def _launch(self, folder: Folder, spec: LaunchSpec) -> Machine:
        record = folder.read()
        if record is None:
            record = self._accept(folder, spec)
        return _machine(self._caught_up(folder, record, time.monotonic() + _START_PATIENCE))

    def _seen(self, tokens: Sequence[str], patience: float) -> dict[str, Machine]:
        self._children.reap()
        until = time.monotonic() + patience + _START_PATIENCE
        records = {token: self._record(Folder.of(self._instances, token), patience, until) for token in tokens}
        return {token: _machine(record) for token, record in records.items() if record}

    def _record(self, folder: Folder, patience: float, until: float) -> Record | None:
        """The record, after what can be caught up with now; None when no machine was accepted."""
        if folder.read() is None:
            return None
        try:
            with folder.locked(patience):
                if record := folder.read():
                    return self._caught_up(folder, record, until)
        except Busy:
            pass  # whoever has it catches up, else the next look does
        except (Error, OSError) as error:
            log.warning("machine not caught up with, will retry", extra={"instance": folder.token, "error": str(error)})
        return folder.read()

    def _terminate(self, folder: Folder) -> Machine:
        at = self._clock()
        try:
            record = folder.read()
        except RecordUnreadable as error:
            # Its processes carry its name: it can be ended without what the record knew, and must not cost money.
            log.warning("machine ended without its record", extra={"instance": folder.token, "error": str(error)})
            record = None
        # A launch that comes late finds the record, and that it is over.
        record = record or folder.write(Record(folder.token, launch_time=at, end_time=at))
        return _machine(self._ended(folder, record))

    def _accept(self, folder: Folder, spec: LaunchSpec) -> Record:
        if spec.generation is Generation.V5 and not spec.user_data:
            raise LaunchRefused("a local v5 machine needs user-data for its agent")
        if all(spec.instance_type != each.name for each in _TYPES):
            raise LaunchRefused(f"the local cloud has no instance type {spec.instance_type}")
        for path in (folder.path, folder.home):
            path.mkdir(mode=0o700, exist_ok=True)
        host_key = ""
        if spec.generation is Generation.V4:
            sshd.find_program(self._sshd_program)
            folder.write_file("authorized_keys", f"{spec.public_key}\n".encode())
            host_key = sshd.make_host_key(folder)
        if spec.user_data:
            folder.write_file("user-data.json", spec.user_data)
        record = Record(
            spec.token, spec.name, spec.generation, spec.image, spec.instance_type, spec.security_groups,
            port=sshd.free_port() if host_key else 0, host_key=host_key, launch_time=self._clock(),
        )  # fmt: skip
        return folder.write(record)

    def _caught_up(self, folder: Folder, record: Record, until: float) -> Record:
        """Bring what is there to what the record says, or the record to what is there.

        No SSH server is waited for after `until`, a moment of the monotonic clock.
        """
        if record.end_time:
            return record
        if record.run_time is None:
            return self._started(folder, record, until)
        if record.boot_id != processes.boot_id() or not record.body or not record.body.is_alive():
            return self._ended(folder, record)
        return self._with_sshd(folder, record, until)

    def _started(self, folder: Folder, record: Record, until: float) -> Record:
        # A start that was cut short may have left something.
        self._end_processes(record)
        body = _BODY_V4
        if record.generation == Generation.V5:
            arguments = ["--home", str(folder.path / "agent"), "--user-data", str(folder.user_data)]
            body = [*_BODY_V5, sys.executable, "-m", "twinline_agent", *arguments]
        process = self._children.start(body, env=_environment(folder), folder=folder.home, log=folder.console)
        started = folder.write(record, boot_id=processes.boot_id(), body=process, run_time=self._clock())
        return self._with_sshd(folder, started, until)

    def _with_sshd(self, folder: Folder, record: Record, until: float) -> Record:
        """Let the SSH server listen exactly when a security group opens its port."""
        if record.generation != Generation.V4:
            return record
        wanted = SSH in self._open_ports(record.security_groups)
        if not wanted:
            return self._shut(folder, record)
        listens = record.sshd is not None and record.sshd.is_alive()
        return record if listens else self._open(folder, record, until)

    def _open(self, folder: Folder, record: Record, until: float) -> Record:
        program = sshd.find_program(self._sshd_program)
        # Who watched the server may be dead, and the server alive. Whoever dies here leaves a note that one may be.
        record = folder.write(self._shut(folder, record), sshd=UNKNOWN)
        port, environment = record.port, _environment(folder)
        for _ in range(_PORT_ATTEMPTS):
            if process := sshd.start(program, folder, port, self._children, environment, until=until):
                return folder.write(record, sshd=process, port=port)
            if time.monotonic() >= until:
                break
            port = sshd.free_port()
        raise Unavailable(f"sshd of machine {record.token} does not start: read {folder.console}")

    def _shut(self, folder: Folder, record: Record) -> Record:
        """As a firewall would: nobody new gets in, those who are in stay."""
        if (watcher := record.sshd) is None:
            return record
        sessions = processes.below(processes.servers(record.token, watcher))
        strays = tuple(process for process in {*record.strays, *sessions} if process.is_alive())
        record = folder.write(record, strays=strays)
        sshd.stop(record.token, watcher)
        return folder.write(record, sshd=None)

    def _ended(self, folder: Folder, record: Record) -> Record:
        self._end_processes(record)
        if record.end_time is None:
            # The bill ends when nothing runs any more, and is on disk before the evidence goes.
            record = folder.write(record, end_time=self._clock(), body=None, sshd=None, strays=())
        folder.clear()
        return record

    def _end_processes(self, record: Record) -> None:
        known = record.processes() if record.boot_id == processes.boot_id() else []
        if not processes.end_machine(record.token, known):
            raise Unavailable(f"machine {record.token} has processes that cannot be killed: it is asked again")
        self._children.reap()

    def _sweep(self) -> None:
        for folder in all_folders(self._instances):
            try:
                with folder.locked(patience=0):
                    record = folder.read()
                    if record and record.end_time and self._clock() - record.end_time > _KEPT:
                        folder.delete()
            except (Error, OSError) as error:
                log.warning("machine not swept", extra={"instance": folder.token, "error": str(error)})

    def _write_group(self, group: str, ports: Sequence[int]) -> list[str]:
        """Write what should be; returns the machines that may have to follow."""
        groups = Folder(self._folder / "groups")
        with groups.locked():
            known = self._groups()
            if known.get(group) == list(ports):
                return []
            groups.write_file("groups.json", json.dumps({**known, group: list(ports)}, indent=1).encode())
        return [folder.token for folder in all_folders(self._instances) if _is_member(folder, group)]

    def _open_ports(self, groups: Sequence[str]) -> set[int]:
        known = self._groups()
        return {port for group in groups for port in known.get(group, ())}

    def _groups(self) -> dict[str, list[int]]:
        way_out = "or delete it and start the launcher again, which states all groups anew"
        return read_json(self._folder / "groups" / "groups.json", _ports_of_groups, way_out) or {}


def _ports_of_groups(content: Any) -> dict[str, list[int]]:
    return {str(group): [int(port) for port in ports] for group, ports in dict(content).items()}


def _is_member(folder: Folder, group: str) -> bool:
    """Whether a machine may have to follow a security group. A spoilt record keeps no other one from that."""
    try:
        record = folder.read()
    except RecordUnreadable as error:
        log.warning("machine left out of its group", extra={"instance": folder.token, "error": str(error)})
        return False
    return record is not None and not record.end_time and group in record.security_groups


def _machine(record: Record) -> Machine:
    power = Power.GONE if record.end_time else Power.RUNNING if record.run_time else Power.STARTING
    dialled = record.generation == Generation.V4 and record.port > 0
    return Machine(
        id=record.token,
        power=power,
        address=f"{sshd.HOST}:{record.port}" if dialled else "",
        username=sshd.username() if dialled else "",
        host_key=record.host_key,
        run_time=record.run_time,
        end_time=record.end_time,
    )


def _environment(folder: Folder) -> dict[str, str]:
    account = pwd.getpwuid(os.geteuid())
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    return {
        **inherited,
        "PATH": _PATH,
        "HOME": str(folder.home),
        "USER": account.pw_name,
        "LOGNAME": account.pw_name,
        "SHELL": account.pw_shell or "/bin/sh",
        MARKER: folder.token,
    }
