"""Steps whose end cannot be told for a while: whatever a person asks for meanwhile, no script starts a second time."""

import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

from tests.peers.authority import Certificates
from tests.peers.eventually import eventually
from tests.peers.serving import Served
from tests.service.launcher.conftest import fill
from tests.service.launcher.world import Launcher, World, outcomes, running_world
from twinline_launcher.providers.local import processes
from twinline_launcher.providers.local.processes import Process

QUICK = {"unknown_after": 0.3, "restate_after": 0.3, "ssh_keepalive": 0.3, "ssh_connect_timeout": 0.5}


@pytest.fixture
async def world(authority: Certificates, keys: Served, tmp_path: Path) -> AsyncIterator[World]:
    """One that notices a silent host at once."""
    async with running_world(authority, tmp_path, keys, executor=QUICK, heartbeat=0.3) as world:
        source = f"#!/bin/sh\necho begun >> {begun(world)}\nuntil test -e {go(world)}; do sleep 0.05; done\n"
        await world.script(source, "slow")
        yield world


def begun(world: World) -> Path:
    return world.folder / "begun"


def go(world: World) -> Path:
    return world.folder / "go"


def times_begun(world: World) -> int:
    return len(begun(world).read_text().splitlines())


@contextmanager
def frozen(machine: str) -> Iterator[None]:
    """Stop what carries scripts to a machine and news from it, while its scripts go on."""
    carriers, _ = split(machine)
    assert carriers
    for each in carriers:
        os.kill(each.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for each in carriers:
            with suppress(ProcessLookupError):
                os.kill(each.pid, signal.SIGCONT)


def split(machine: str) -> tuple[list[Process], list[Process]]:
    """The processes that carry scripts to a machine, and those of its scripts."""
    everyone = processes.of_machine(machine)
    carriers = [each for each in everyone if _carries(each.pid)]
    return carriers, [each for each in everyone if each not in carriers]


def _carries(pid: int) -> bool:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False  # one of the script's own, and gone
    return b"twinline_agent" in command or b"sshd" in command


async def boots_slowly(launcher: Launcher, world: World, image: str) -> str:
    """Launch a server; returns its machine once the script of its boot list is at work."""
    await fill(launcher)
    await launcher.template(boot=["slow"])
    await launcher.server(image=image)
    machine = (await launcher.launch()).current.id
    await eventually(lambda: times_begun(world), within=20)
    await until_step_is(launcher, "running")
    return machine


async def until_step_is(launcher: Launcher, *states: str) -> None:
    async def check() -> bool:
        return outcomes(await launcher.get())["slow"] in states

    is_so: bool = await eventually(check, within=20)
    assert is_so


async def has_stranded(launcher: Launcher, times: int) -> bool:
    return (await launcher.history()).count("STRANDED_IN_BOOTING") == times


@pytest.mark.parametrize("image", ["v4", "v5"])
async def test_a_resume_waits_for_the_end_that_cannot_be_told_and_starts_nothing(world: World, image: str) -> None:
    async with world.launcher() as launcher:
        with frozen(await boots_slowly(launcher, world, image)):
            stranded = await launcher.becomes("STRANDED_IN_BOOTING")
            assert stranded.current.stranding.reason == "OUTCOME_UNKNOWN"
            await launcher.resume()
            await until_step_is(launcher, "unknown")
            [step] = (await launcher.get()).current.steps
            assert step.reason in ("AGENT_OFFLINE", "PORT_UNREACHABLE", "CONNECTION_LOST")
        await until_step_is(launcher, "running")
        go(world).touch()
        assert outcomes(await launcher.becomes("OPERATIONAL")) == {"slow": "succeeded"}
    assert (times_begun(world), await world.run_names()) == (1, ["slow"])


async def test_another_attempt_waits_until_the_one_that_was_given_up_is_over(world: World) -> None:
    async with world.launcher(boot_limit=3.0, limit_grace=0.1) as launcher:
        with frozen(await boots_slowly(launcher, world, "v5")):
            await launcher.becomes("STRANDED_IN_BOOTING")
            await launcher.resume()
            again: bool = await eventually(partial(has_stranded, launcher, 2))
            assert again
            assert (await launcher.get()).current.stranding.reason == "BOOT_OVERRAN"
            await launcher.resume()
            await until_step_is(launcher, "unknown")
            assert (times_begun(world), await world.run_names()) == (1, ["slow"])
            go(world).touch()
        assert outcomes(await launcher.becomes("OPERATIONAL")) == {"slow": "succeeded"}
    assert (times_begun(world), await world.run_names()) == (2, ["slow", "slow"])


async def test_what_was_killed_on_its_machine_will_never_be_known_and_is_run_again(world: World) -> None:
    async with world.launcher() as launcher:
        _, scripts = split(await boots_slowly(launcher, world, "v5"))
        for each in scripts:
            processes.kill(each)
        stranded = await launcher.becomes("STRANDED_IN_BOOTING")
        assert stranded.current.stranding.reason == "OUTCOME_UNKNOWN"
        go(world).touch()
        await launcher.resume()
        await launcher.becomes("OPERATIONAL")
    assert (times_begun(world), await world.run_names()) == (2, ["slow", "slow"])
