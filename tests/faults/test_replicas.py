"""Two executors and two gateways, each a process of its own, on PostgreSQL: any one of them may go."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.peers import databases
from tests.peers.authority import Certificates
from tests.peers.counting import MUCH, Counting
from tests.peers.eventually import eventually
from tests.peers.postgres import Server
from tests.peers.replicas import Balancer, Replica
from tests.peers.runs import Runs
from tests.peers.sshd import Sshd, running_sshd
from tests.service.agent.processes import running_agent
from twinline.agent_gateway.v1 import fleet_pb2, fleet_pb2_grpc
from twinline.common.v1 import common_pb2
from twinline.executor.v1 import targets_pb2, targets_pb2_grpc
from twinline.keys.v1 import cloud_keys_pb2, cloud_keys_pb2_grpc

pytestmark = pytest.mark.timeout(180)

QUICK_EXECUTOR = {"beat_interval": 0.2, "beat_limit": 1.5}
QUICK_GATEWAY = {"tick": 0.2, "replica_limit": 1.5}


@dataclass
class Installation:
    """All replicas by name. `executor a` speaks to gateway a, `executor b` to whichever lives."""

    certificates: Certificates
    folder: Path
    replicas: dict[str, Replica] = field(default_factory=dict)
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    def add(self, name: str, **values: object) -> Replica:
        """Prepare a replica; `executor a` is one of the executor."""
        service = name.rpartition(" ")[0] or name
        replica = Replica(service, self.certificates, self.folder / name.replace(" ", "-"), **values)
        self.replicas[name] = replica
        self.stack.callback(replica.kill)
        return replica

    async def balancer(self, *ports: int) -> str:
        """The address of something that leads to the first of these ports that answers."""
        balancer = Balancer(ports)
        await balancer.start()
        self.stack.push_async_callback(balancer.stop)
        return f"127.0.0.1:{balancer.port}"

    async def runs(self, name: str) -> Runs:
        """Runs through one executor."""
        return Runs(await self.stack.enter_async_context(self.replicas[name].as_service("launcher")))

    async def holder(self, agent_id: str) -> str:
        """Which gateway holds the agent's stream."""
        async with self.replicas["agent_gateway a"].as_service("launcher") as channel:
            stub = fleet_pb2_grpc.FleetServiceStub(channel)
            agent = await stub.GetAgent(fleet_pb2.GetAgentRequest(agent_id=agent_id))
        return agent.replica if agent.state == fleet_pb2.Agent.STATE_CONNECTED else ""


async def prepared(it: Installation) -> None:
    keys = it.add(
        "keys",
        kek_file=it.folder / "kek", authority_folder=it.certificates.folder,
        admin_token_file=it.folder / "admin", observer_token_file=it.folder / "observer",
    )  # fmt: skip
    a, b = (
        it.add(
            f"agent_gateway {name}", keys_address=keys.mesh, replica=f"gateway-{name}",
            enrollment_key_file=it.folder / "enrollment", **QUICK_GATEWAY,
        )
        for name in "ab"
    )  # fmt: skip
    either = await it.balancer(b.mesh_port, a.mesh_port)
    for name, gateway in (("a", a.mesh), ("b", either)):
        it.add(f"executor {name}", keys_address=keys.mesh, gateway_address=gateway, **QUICK_EXECUTOR)


@pytest.fixture
async def installation(authority: Certificates, tmp_path: Path, postgres_server: Server) -> AsyncIterator[Installation]:
    it = Installation(authority, tmp_path)
    async with it.stack:
        variables = it.stack.enter_context(databases.of_every_service(postgres_server))
        await prepared(it)
        for replica in it.replicas.values():
            replica.start(variables)
        for replica in it.replicas.values():
            await replica.serves()
        yield it


@pytest.fixture
async def host(installation: Installation, tmp_path: Path) -> AsyncIterator[Sshd]:
    """`web-1`, a v4 host that lets a cloud key in."""
    token = (tmp_path / "admin").read_text().strip()
    async with running_sshd(tmp_path / "host") as sshd:
        async with installation.replicas["keys"].as_person(token) as channel:
            stub = cloud_keys_pb2_grpc.CloudKeyServiceStub(channel)
            key = await stub.CreateCloudKey(cloud_keys_pb2.CreateCloudKeyRequest(name="launch-key"))
        sshd.authorize([key.public_key])
        line = targets_pb2.SshLine(host="127.0.0.1", port=sshd.port, username=sshd.username, cloud_key=key.id)
        await applied(installation, targets_pb2.Target(name="web-1", generation=common_pb2.GENERATION_V4, ssh=line))
        yield sshd


@pytest.fixture
async def agent_id(installation: Installation, tmp_path: Path) -> AsyncIterator[str]:
    """`web-2`, a v5 host whose agent is held by gateway b as long as that lives."""
    a, b = (installation.replicas[f"agent_gateway {name}"] for name in "ab")
    async with b.as_service("launcher") as channel:
        request = fleet_pb2.CreateEnrollmentRequest(server="web-2", request_id="web-2")
        enrollment = await fleet_pb2_grpc.FleetServiceStub(channel).CreateEnrollment(request)
    enrollment.connect_address = await installation.balancer(b.mesh_port, a.mesh_port)
    line = targets_pb2.AgentLine(agent_id=enrollment.agent_id)
    await applied(installation, targets_pb2.Target(name="web-2", generation=common_pb2.GENERATION_V5, agent=line))
    async with running_agent(tmp_path / "agent", enrollment):

        async def connected() -> bool:
            return await installation.holder(enrollment.agent_id) == "gateway-b"

        is_connected: bool = await eventually(connected, within=30)
        assert is_connected
        yield enrollment.agent_id


async def applied(installation: Installation, target: targets_pb2.Target) -> None:
    target.id = f"target-{target.name}"
    async with installation.replicas["executor a"].as_service("launcher") as channel:
        stub = targets_pb2_grpc.TargetServiceStub(channel)
        await stub.ApplyTargets(targets_pb2.ApplyTargetsRequest(targets=[target]))


@pytest.mark.parametrize("victims", [("executor a",), ("agent_gateway b", "executor a")], ids=" and then ".join)
@pytest.mark.usefixtures("host")
async def test_a_run_started_at_one_executor_goes_on_without(
    installation: Installation, agent_id: str, counting: Counting, victims: tuple[str, ...]
) -> None:
    run = await counting.start(await installation.runs("executor a"), "name:web-*")
    assert await installation.holder(agent_id) == "gateway-b"
    others = await installation.runs("executor b")
    for victim in victims:
        installation.replicas[victim].kill()
        await others.grows(run, by=MUCH)
    counting.stop()
    await counting.holds(others, run)
    assert await installation.holder(agent_id) == ("gateway-a" if "agent_gateway b" in victims else "gateway-b")
