"""The agent as a process on a host: its identity, its files, its sockets, how it ends."""

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.peers.authority import Certificates
from tests.peers.eventually import eventually
from tests.peers.serving import Served
from tests.service.agent.processes import AgentProcess, running_agent
from tests.service.agent_gateway.executors import Executor
from tests.service.agent_gateway.running import Gateway, gateway_settings, running_gateway
from twinline.agent_gateway.v1 import fleet_pb2

LISTENING = "0A"


def listening_inodes() -> set[str]:
    """Inodes of all TCP sockets that listen, as /proc tells."""
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()]
    return {fields[9] for fields in lines if fields[3] == LISTENING}


def socket_inodes(pid: int) -> set[str]:
    """Inodes of the sockets that a process has open."""
    targets = [str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir() if entry.is_symlink()]
    return {target[len("socket:[") : -1] for target in targets if target.startswith("socket:[")}


async def test_an_agent_has_connections_and_listens_nowhere(agent: AgentProcess, executor: Executor) -> None:
    await executor.run(agent.agent_id, "sleep 1")
    assert socket_inodes(agent.pid)
    assert not socket_inodes(agent.pid) & listening_inodes()


async def test_keys_and_journal_are_for_their_owner_only(agent: AgentProcess) -> None:
    files = list((agent.home / "identity" / agent.agent_id).iterdir())
    assert sorted(file.name for file in files) == ["certificate.json", "key.pem"]
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    assert agent.home.stat().st_mode & 0o777 == 0o700


async def test_a_second_machine_with_the_same_user_data_ends_with_one_line(agent: AgentProcess, tmp_path: Path) -> None:
    second = agent.on_another_machine(tmp_path / "second")
    await second.start()
    assert await second.exit_status() == 3
    assert second.log.splitlines()[-1].startswith("twinline-agent: the gateway refused: the enrolment token")
    assert "Traceback" not in second.log


async def test_a_second_agent_in_the_same_home_ends_with_one_line(agent: AgentProcess) -> None:
    second = AgentProcess(agent.home, agent.user_data, agent.agent_id)
    await second.start()
    assert await second.exit_status() == 2
    assert "another agent works in" in second.log


async def test_a_revoked_agent_ends_and_its_tasks_do_not(
    gateway: Gateway, agent: AgentProcess, executor: Executor, tmp_path: Path
) -> None:
    done = tmp_path / "done"
    task = await executor.run(agent.agent_id, f"echo up; sleep 1; touch {done}")
    await eventually(lambda: executor.stored(task).output == b"up\n")
    await gateway.fleet.RevokeAgent(fleet_pb2.RevokeAgentRequest(agent_id=agent.agent_id))
    assert await agent.exit_status() == 3
    assert "was revoked" in agent.log.splitlines()[-1]
    await eventually(done.exists)


async def test_without_openssl_it_says_what_to_install(gateway: Gateway, tmp_path: Path) -> None:
    async with running_agent(tmp_path / "agent", await gateway.enrollment()) as agent:
        await agent.stop()
        bare = agent.on_another_machine(tmp_path / "bare")
        await bare.start(PATH=str(tmp_path))
        assert await bare.exit_status() == 2
        assert "install the openssl package" in bare.log


async def test_user_data_that_is_not_whole_is_refused_without_showing_it(tmp_path: Path) -> None:
    (tmp_path / "user-data").write_text('{"token": "secret-token", "agent_id": "agent-1"}')
    agent = AgentProcess(tmp_path / "agent", tmp_path / "user-data", "agent-1")
    await agent.start()
    assert await agent.exit_status() == 2
    assert "no text for enroll_address, connect_address, authority" in agent.log
    assert "secret-token" not in agent.log


async def test_it_stops_on_sigterm_with_status_0(agent: AgentProcess) -> None:
    assert await agent.stop() == 0


async def test_an_agent_waits_for_a_gateway_that_is_not_there_yet(
    authority: Certificates, keys: Served, tmp_path: Path
) -> None:
    settings = gateway_settings(authority, tmp_path / "gateway", keys, f"sqlite:///{tmp_path / 'gateway.db'}")
    async with running_gateway(authority, settings) as gateway:
        enrollment = await gateway.enrollment()
    async with running_agent(tmp_path / "agent", enrollment) as agent:
        await eventually(lambda: "stream lost" in agent.log)
        async with (
            running_gateway(authority, settings) as gateway,
            Executor().connected(gateway.served.as_service("executor")) as executor,
        ):
            await eventually(lambda: agent.agent_id in executor.present, within=30)


@asynccontextmanager
async def short_lived(
    authority: Certificates, keys: Served, folder: Path, lifetime: float
) -> AsyncIterator[AgentProcess]:
    """An agent whose certificates live for so many seconds."""
    database = f"sqlite:///{folder / 'gateway.db'}"
    settings = gateway_settings(authority, folder / "gateway", keys, database, certificate_lifetime=lifetime)
    async with running_gateway(authority, settings) as gateway:
        enrollment = await gateway.enrollment()
        async with running_agent(folder / "agent", enrollment) as agent:
            yield agent


async def test_a_certificate_is_renewed_at_half_life_and_the_stream_stays(
    authority: Certificates, keys: Served, tmp_path: Path
) -> None:
    async with short_lived(authority, keys, tmp_path, 4.0) as agent:
        await eventually(lambda: agent.log.count("certificate renewed") >= 2, within=20)
        assert agent.log.count("connected") == 1


async def test_an_agent_whose_certificate_ran_out_while_it_was_off_comes_back(
    authority: Certificates, keys: Served, tmp_path: Path
) -> None:
    async with short_lived(authority, keys, tmp_path, 2.0) as agent:
        await eventually(lambda: "connected" in agent.log, within=20)
        await agent.kill()
        certificate = (agent.home / "identity" / agent.agent_id / "certificate.json").read_text()
        await eventually(lambda: _expired(certificate))
        await agent.start()
        await eventually(lambda: agent.log.count("connected") >= 2, within=20)
        assert agent.log.count("enrolled") == 2


def _expired(certificate: str) -> bool:
    expires: float = json.loads(certificate)["expires"]
    return time.time() > expires
