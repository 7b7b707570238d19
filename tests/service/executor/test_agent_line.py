"""Scripts on v5 hosts: a real gateway, real agents."""

import hashlib
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.peers.authority import Certificates
from tests.peers.eventually import eventually
from tests.peers.relay import Relay, running_relay
from tests.peers.serving import Served
from tests.peers.sshd import Sshd
from tests.service.agent.processes import AgentProcess, running_agent
from tests.service.agent_gateway.running import Gateway, gateway_settings, running_gateway
from tests.service.executor.conftest import Executor, Run, Start, Task
from tests.service.executor.left_runs import leave_run
from tests.service.executor.processes import Process
from tests.service.executor.test_ssh_faults import COUNTED, COUNTING, came_back
from twinline.agent_gateway.v1 import fleet_pb2
from twinline.common.v1 import common_pb2
from twinline.executor.v1 import runs_pb2, targets_pb2
from twinline_agent.work import STARTERS
from twinline_executor import agent_outbox
from twinline_executor.states import Line
from twinline_executor.store.owners import OwnerStore
from twinline_kit import db

SOON = {"seconds": 1}


@dataclass
class Fleet:
    """An executor that reaches agents through a gateway, with a relay in between."""

    executor: Executor
    gateway: Gateway
    relay: Relay
    folder: Path

    async def add(self, agent_id: str, name: str = "app-1") -> None:
        """Register an agent as a v5 target."""
        agent = targets_pb2.AgentLine(agent_id=agent_id)
        target = targets_pb2.Target(id=f"target-{name}", name=name, generation=common_pb2.GENERATION_V5, agent=agent)
        await self.executor.targets.ApplyTargets(targets_pb2.ApplyTargetsRequest(targets=[target]))

    async def add_many(self, count: int) -> list[str]:
        """Register the agent of app-1 under that many names, and return them: so many tasks are for one agent."""
        listed = await self.executor.targets.GetTarget(targets_pb2.GetTargetRequest(target="app-1"))
        for number in range(count):
            await self.add(listed.agent.agent_id, f"name-{number}")
        return [f"name-{number}" for number in range(count)]

    async def passed(self, run: Run, seconds: float) -> None:
        """Wait until a run is so old, by its own clock."""
        await eventually(lambda: time.time() - run.create_time.ToNanoseconds() / 1e9 > seconds)

    @asynccontextmanager
    async def agent(self, name: str = "app-1") -> AsyncIterator[AgentProcess]:
        """A connected agent, registered under that name."""
        enrollment = await self.gateway.enrollment()
        await self.add(enrollment.agent_id, name)
        async with running_agent(self.folder / name, enrollment) as process:
            connected: bool = await eventually(lambda: self._is_connected(process.agent_id), within=20)
            assert connected
            yield process

    async def _is_connected(self, agent_id: str) -> bool:
        return await self.gateway.state(agent_id) == "CONNECTED"


@pytest.fixture
async def gateway(authority: Certificates, tmp_path: Path, keys: Served) -> AsyncIterator[Gateway]:
    """The gateway that agents dial."""
    settings = gateway_settings(authority, tmp_path / "gateway", keys, f"sqlite:///{tmp_path / 'gateway.db'}")
    async with running_gateway(authority, settings) as running:
        yield running


@asynccontextmanager
async def running_fleet(
    start_executor: Start, gateway: Gateway, folder: Path, database_url: str = "", **settings: Any
) -> AsyncIterator[Fleet]:
    """An executor before that gateway."""
    port = int(gateway.served.bound.mesh.rpartition(":")[2])
    async with (
        running_relay(port) as relay,
        start_executor(database_url, gateway_address=f"127.0.0.1:{relay.port}", **settings) as executor,
    ):
        yield Fleet(executor, gateway, relay, folder)


@pytest.fixture
async def fleet(start_executor: Start, gateway: Gateway, tmp_path: Path) -> AsyncIterator[Fleet]:
    """An executor before that gateway, on SQLite."""
    # Never: what was lost with a line must be stated when that is back, not when nothing was heard for long.
    async with running_fleet(start_executor, gateway, tmp_path, restate_after=3000) as running:
        yield running


@pytest.mark.parametrize(
    ("command", "state", "status", "signal"),
    [("true", "SUCCEEDED", 0, 0), ("exit 137", "FAILED", 137, 0), ("kill -9 $$", "FAILED", 137, 9)],
)
async def test_an_end_is_told_exactly(fleet: Fleet, command: str, state: str, status: int, signal: int) -> None:
    async with fleet.agent():
        task = await fleet.executor.run(command, "app-1")
    assert (Task.State.Name(task.state), task.exit_status, task.signal) == (f"STATE_{state}", status, signal)
    assert (task.line, task.reason) == (Task.LINE_AGENT, "")


async def test_five_mebibytes_come_back_equal_with_inputs_and_secrets(fleet: Fleet) -> None:
    await fleet.executor.set_credential("PASSWORD", b"hunter2-hunter2")
    command = 'printf "%s %s " "$GREETING" "$P"; head -c 5242880 /dev/zero | tr "\\0" "\\377"'
    async with fleet.agent():
        inputs = {"GREETING": "text:it's $HOME", "P": "cred:PASSWORD"}
        task = await fleet.executor.run(command, "app-1", inputs=inputs)
        expected = b"it's $HOME " + b"*" * 15 + b" " + b"\xff" * 5242880
        assert task.state == Task.STATE_SUCCEEDED
        assert task.output_sha256 == hashlib.sha256(expected).hexdigest()
        assert await fleet.executor.output(task) == expected


async def test_one_run_reaches_many_agents_and_both_generations(fleet: Fleet, host: Sshd) -> None:
    await fleet.executor.add_host(host, "web-1")
    async with fleet.agent("app-1"), fleet.agent("app-2"):
        run = await fleet.executor.start('echo "$TWINLINE_SERVER"', selector="name:*-*")
        assert (await fleet.executor.ended(run.id)).counts.succeeded == 3
        tasks = await fleet.executor.tasks(run.id)
        assert [await fleet.executor.output(task) for task in tasks] == [b"app-1\n", b"app-2\n", b"web-1\n"]


async def test_a_cut_line_to_the_gateway_loses_and_repeats_nothing(fleet: Fleet) -> None:
    async with fleet.agent():
        run = await fleet.executor.start(COUNTING.replace("$HOME", str(fleet.folder)), "app-1")
        await fleet.executor.task_becomes(run.id, Task.STATE_RUNNING)
        for seen in (1, 2):
            assert fleet.relay.cut() > 0
            await eventually(partial(came_back, fleet.relay, seen))
        await fleet.executor.ended(run.id)
        assert await fleet.executor.output(await fleet.executor.task(run.id)) == COUNTED
    assert (fleet.folder / "runs").read_text() == "run\n"


async def test_a_killed_agent_loses_and_repeats_nothing(fleet: Fleet) -> None:
    async with fleet.agent() as agent:
        run = await fleet.executor.start(COUNTING.replace("$HOME", str(fleet.folder)), "app-1")
        await fleet.executor.task_becomes(run.id, Task.STATE_RUNNING)
        await agent.kill()
        await agent.start()
        assert (await fleet.executor.ended(run.id)).state == Run.STATE_SUCCEEDED
        assert await fleet.executor.output(await fleet.executor.task(run.id)) == COUNTED
    assert (fleet.folder / "runs").read_text() == "run\n"


async def test_a_running_task_is_canceled(fleet: Fleet) -> None:
    async with fleet.agent():
        run = await fleet.executor.start("echo begun; sleep 100", "app-1")
        await fleet.executor.task_becomes(run.id, Task.STATE_RUNNING)
        await fleet.executor.runs.CancelRun(runs_pb2.CancelRunRequest(run=run.id))
        assert (await fleet.executor.ended(run.id)).state == Run.STATE_CANCELED


async def test_an_agent_that_never_came_is_unreachable_in_the_end(fleet: Fleet) -> None:
    await fleet.add((await fleet.gateway.enrollment()).agent_id)
    run = await fleet.executor.start("true", "app-1", reach_timeout=SOON)
    await fleet.executor.task_becomes(run.id, Task.STATE_PENDING, "AGENT_NEVER_ENROLLED")
    await fleet.executor.ended(run.id)
    task = await fleet.executor.task(run.id)
    assert (task.state, task.reason) == (Task.STATE_UNREACHABLE, "AGENT_NEVER_ENROLLED")


async def test_a_task_waits_for_its_agent(fleet: Fleet) -> None:
    async with fleet.agent() as agent:
        await agent.stop()
        run = await fleet.executor.start("echo back", "app-1")
        await fleet.executor.task_becomes(run.id, Task.STATE_PENDING, "AGENT_OFFLINE")
        await agent.start()
        await fleet.executor.ended(run.id)
        assert await fleet.executor.output(await fleet.executor.task(run.id)) == b"back\n"


async def test_a_waiting_task_is_canceled_at_once(fleet: Fleet) -> None:
    async with fleet.agent() as agent:
        await agent.stop()
        run = await fleet.executor.start("echo back", "app-1")
        await fleet.executor.task_becomes(run.id, Task.STATE_PENDING, "AGENT_OFFLINE")
        canceled = await fleet.executor.runs.CancelRun(runs_pb2.CancelRunRequest(run=run.id))
        assert canceled.state == Run.STATE_CANCELED
        await agent.start()


@asynccontextmanager
async def slow_agent(fleet: Fleet, gate: Path) -> AsyncIterator[AgentProcess]:
    """An agent on a host that takes no task in before `gate` is there: its dd waits for it."""
    slow = fleet.folder / "slow" / "dd"
    slow.parent.mkdir()
    wait = f"case $* in *of=task*) until [ -e {gate} ]; do sleep 0.05; done ;; esac"
    slow.write_text(f'#!/bin/sh\n{wait}\nexec {shutil.which("dd")} "$@"\n')
    slow.chmod(0o700)
    async with fleet.agent() as agent:
        await agent.stop()
        await agent.start(PATH=f"{slow.parent}:{os.environ['PATH']}")
        yield agent


async def test_what_waits_on_its_host_is_never_said_not_to_start_and_then_starts(fleet: Fleet) -> None:
    gate, trace = fleet.folder / "gate", fleet.folder / "trace"
    async with slow_agent(fleet, gate):
        run = await fleet.executor.start(f"echo ran >>{trace}", *await fleet.add_many(20), reach_timeout=SOON)
        await eventually(lambda: len(list(fleet.folder.rglob("tasks/task-*"))) == STARTERS)
        await fleet.passed(run, 3.0)
        gate.touch()
        counts = (await fleet.executor.ended(run.id)).counts
        assert (counts.total, counts.succeeded + counts.unreachable) == (20, 20)
        assert counts.unreachable >= 20 - STARTERS
        assert trace.read_text().count("ran") == counts.succeeded


async def test_a_cancel_waits_for_no_start(fleet: Fleet) -> None:
    gate, trace = fleet.folder / "gate", fleet.folder / "trace"
    async with slow_agent(fleet, gate):
        run = await fleet.executor.start(f"echo ran >>{trace}; sleep 100", *await fleet.add_many(20))
        await eventually(lambda: len(list(fleet.folder.rglob("tasks/task-*"))) == STARTERS)
        await fleet.executor.runs.CancelRun(runs_pb2.CancelRunRequest(run=run.id))
        await eventually(lambda: len(list(fleet.folder.rglob("tasks/task-*/exit"))) == 20)
        gate.touch()
        assert (await fleet.executor.ended(run.id)).counts.canceled == 20
    assert not trace.exists()


async def test_what_a_host_took_in_and_never_started_is_started_once_more(fleet: Fleet, tmp_path: Path) -> None:
    broken, trace = tmp_path / "bin" / "setsid", tmp_path / "trace"
    broken.parent.mkdir()
    broken.write_text(
        f'#!/bin/sh\n[ -e {tmp_path}/failed ] && exec {shutil.which("setsid")} "$@"\ntouch {tmp_path}/failed\n'
    )
    broken.chmod(0o700)
    async with fleet.agent() as agent:
        await agent.stop()
        await agent.start(PATH=f"{broken.parent}:{os.environ['PATH']}")
        task = await fleet.executor.run(f"echo ran >>{trace}", "app-1")
    assert task.state == Task.STATE_SUCCEEDED
    assert trace.read_text() == "ran\n"


async def test_a_revoked_agent_is_refused(fleet: Fleet) -> None:
    async with fleet.agent() as agent:
        await fleet.gateway.fleet.RevokeAgent(fleet_pb2.RevokeAgentRequest(agent_id=agent.agent_id))
        task = await fleet.executor.run("true", "app-1")
        assert (task.state, task.reason) == (Task.STATE_REFUSED, "AGENT_REVOKED")


async def test_an_owner_that_slept_does_not_give_up_what_another_has_started(
    start_executor: Start, gateway: Gateway, authority: Certificates, keys: Served, shared_database: str, tmp_path: Path
) -> None:
    silent = f"echo run >> {tmp_path}/runs; while [ ! -e {tmp_path}/go ]; do sleep 0.05; done"
    environ = {"TWINLINE_EXECUTOR_GATEWAY_ADDRESS": gateway.served.bound.mesh}
    async with AsyncExitStack() as stack:
        running = running_fleet(start_executor, gateway, tmp_path, shared_database, restate_after=0.5)
        fleet = await stack.enter_async_context(running)
        agent = await stack.enter_async_context(fleet.agent("web-1"))
        await agent.stop()
        owner = Process(authority, keys, shared_database, tmp_path / "owner", **environ)
        stack.callback(owner.kill)
        started = await owner.start_run(silent, reach_timeout={"seconds": 8})
        late = time.monotonic() + 8
        await fleet.executor.task_becomes(started.id, Task.STATE_PENDING, "AGENT_OFFLINE")
        owner.process.send_signal(signal.SIGSTOP)
        await eventually(lambda: replicas(shared_database) == 1)
        await agent.start()
        await fleet.executor.task_becomes(started.id, Task.STATE_RUNNING)
        await eventually(lambda: time.monotonic() > late)
        owner.process.send_signal(signal.SIGCONT)
        await eventually(lambda: replicas(shared_database) == 2)
        await owner.stop()  # so all that it had to say is stored
        assert (await fleet.executor.task(started.id)).state == Task.STATE_RUNNING
        (tmp_path / "go").touch()
        assert (await fleet.executor.ended(started.id)).state == Run.STATE_SUCCEEDED
    assert (tmp_path / "runs").read_text() == "run\n"


def replicas(database_url: str) -> int:
    """How many executors say that they live."""
    engine = db.open(database_url)
    try:
        return len(OwnerStore(engine).beats())
    finally:
        engine.dispose()


def forgotten(agent: AgentProcess) -> int:
    return len(list(agent.home.rglob("forgotten")))


async def test_an_agent_may_forget_with_its_next_delivery_and_others_are_let_alone(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_outbox, "LAZY", 3600.0)
    async with fleet.agent("app-1") as first, fleet.agent("app-2") as second:
        await fleet.executor.ended((await fleet.executor.start("true", selector="name:app-*")).id)
        await fleet.executor.run("true", "app-1")
        await eventually(lambda: forgotten(first) == 1)
        assert forgotten(second) == 0
        monkeypatch.setattr(agent_outbox, "LAZY", 0.0)
        await eventually(lambda: (forgotten(first), forgotten(second)) == (2, 1))


async def test_without_a_gateway_v5_targets_are_refused(executor: Executor) -> None:
    agent = targets_pb2.AgentLine(agent_id="agent-1")
    target = targets_pb2.Target(id="t1", name="app-1", generation=common_pb2.GENERATION_V5, agent=agent)
    await executor.targets.ApplyTargets(targets_pb2.ApplyTargetsRequest(targets=[target]))
    assert (await executor.run("true", "app-1")).reason == "GATEWAY_NOT_CONFIGURED"


async def test_without_a_gateway_what_may_have_been_sent_before_is_unknown(
    start_executor: Start, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'left.db'}"
    async with start_executor(url, replica="a") as executor:
        leave_run(url, owner="a", line=Line.AGENT)
        await executor.task_becomes("run-1", Task.STATE_UNKNOWN, "GATEWAY_NOT_CONFIGURED")
