"""One machine whose record the local cloud cannot read any more."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.peers.eventually import eventually
from tests.service.launcher.conftest import fill
from tests.service.launcher.world import Launcher, World
from twinline_kit.errors import Error
from twinline_launcher.providers.local import processes


@pytest.fixture
async def both(world: World) -> AsyncIterator[Launcher]:
    """With web-1, whose record was cut off, and web-2, both operational."""
    async with world.launcher(decommission_limit_v4=0.5, limit_grace=0.1) as launcher:
        await fill(launcher)
        for name in ("web-1", "web-2"):
            await launcher.server(name)
            await launcher.launch(name)
        for name in ("web-1", "web-2"):
            await launcher.becomes("OPERATIONAL", name)
        file = await record(launcher, "web-1")
        file.write_bytes(file.read_bytes()[:-20])
        yield launcher


async def record(launcher: Launcher, name: str) -> Path:
    return launcher.world.instances / (await launcher.get(name)).current.id / "machine.json"


async def test_the_spoilt_one_is_told_with_the_way_out_and_every_other_is_looked_at(
    both: Launcher, caplog: pytest.LogCaptureFixture
) -> None:
    spoilt, other = await record(both, "web-1"), await record(both, "web-2")
    processes.end_machine(other.parent.name)
    await both.becomes("TERMINATED", "web-2")
    told = await eventually(lambda: next(vars(each) for each in caplog.records if "error" in vars(each)))
    assert (told["message"], told["server"]) == ("machine not moved, will retry", "web-1")
    assert f"{spoilt} is spoilt (JSONDecodeError: " in told["error"]
    assert "restore it, or delete it: the machine then counts as vanished" in told["error"]
    await both.becomes("OPERATIONAL", "web-1")


async def test_every_other_machine_follows_its_security_group(both: Launcher) -> None:
    other = json.loads((await record(both, "web-2")).read_text())
    await both.group(80)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", other["port"])


async def test_the_spoilt_one_is_looked_at_again_once_it_is_mended(both: Launcher) -> None:
    spoilt, other = await record(both, "web-1"), await record(both, "web-2")
    processes.end_machine(other.parent.name)
    await both.becomes("TERMINATED", "web-2")
    content = json.loads(other.read_text()) | {"token": spoilt.parent.name}
    spoilt.write_text(json.dumps(content))
    await both.becomes("TERMINATED", "web-1")


async def test_the_spoilt_one_can_be_ended(both: Launcher) -> None:
    machine = (await record(both, "web-1")).parent.name
    await both.terminate("web-1")
    await both.becomes("STRANDED_IN_DECOMMISSIONING", "web-1")
    await both.terminate("web-1")
    ended = await both.becomes("TERMINATED", "web-1")
    assert ended.current.HasField("terminate_time")
    assert not processes.of_machine(machine)


async def test_a_spoilt_record_that_was_deleted_ends_its_machine(both: Launcher) -> None:
    spoilt = await record(both, "web-1")
    spoilt.unlink()
    await both.becomes("TERMINATED", "web-1")
    await eventually(lambda: not processes.of_machine(spoilt.parent.name))


async def test_groups_that_cannot_be_read_hide_no_machine_and_say_so(launcher: Launcher) -> None:
    await launcher.server()
    await launcher.operational()
    groups = launcher.world.folder / "cloud" / "groups" / "groups.json"
    groups.write_text('{"open": 22}')
    with pytest.raises(Error, match=r"groups.json is spoilt .*, or delete it and start the launcher again"):
        await launcher.group(22, 80)
    await launcher.becomes("OPERATIONAL")
    processes.end_machine((await record(launcher, "web-1")).parent.name)
    await launcher.becomes("TERMINATED")
