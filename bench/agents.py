"""One script on many simulated agents: the suite, every result stored, next to the bare stream."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from bench.fleet import Agent, Fleet
from bench.installation import Installation
from bench.processes import Steered, steered
from bench.rounds import Comparison, Cost, compare
from twinline.agent_gateway.v1 import agents_pb2 as pb
from twinline.agent_gateway.v1 import agents_pb2_grpc as rpc
from twinline.agent_gateway.v1 import fleet_pb2, fleet_pb2_grpc
from twinline.common.v1.common_pb2 import GENERATION_V5
from twinline.executor.v1 import targets_pb2

SCRIPT = "echo ok"
PROCESSES = 2
"""The agents are held by so many processes; each interpreter is busy with its own share."""


async def measure(suite: Installation, folder: Path, *, count: int, rounds: int) -> tuple[Comparison, list[str]]:
    """Connect `count` agents to each side, then run in turn. Returns the runs compared, and lines about the storms."""
    agents = await enrolled(suite, count)
    await suite.apply_targets([_target(agent) for agent in agents])
    async with AsyncExitStack() as stack:
        bare = await stack.enter_async_context(steered("bench.bare_stream", _server_files(suite, folder)))
        address = (await bare.answer())["address"]
        bare_fleet = await stack.enter_async_context(fleet(address, suite.authority, agents, folder / "bare"))
        bare_storm = await bare_fleet.storm()
        ours = await stack.enter_async_context(fleet(suite.mesh, suite.authority, agents, folder / "suite"))
        before = suite.cpu_seconds()
        storm = await ours.storm()
        storm_cpu = suite.cpu_seconds() - before
        lines = [
            f"{count} agents connecting at once: none lost",
            f"  suite {storm:.2f} s ({storm_cpu:.2f} s of its cpu), bare {bare_storm:.2f} s",
            f"  ratio    wall {storm / bare_storm:.2f}",
        ]

        async def run_suite() -> Cost:
            return await ours.costing(suite.run(SCRIPT, "generation:v5", count))

        async def run_bare() -> Cost:
            return await bare_fleet.costing(_fan_out(bare))

        title = f"one script on {count} simulated agents, mTLS each"
        return await compare(title, count, suite=run_suite, bare=run_bare, rounds=rounds), lines


async def enrolled(suite: Installation, count: int) -> list[Agent]:
    """Enrol `count` agents as real ones would; they share a key, since making keys is not what is measured."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    csr = request.public_bytes(serialization.Encoding.PEM)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    prepare, enroll = fleet_pb2_grpc.FleetServiceStub(suite.services), rpc.AgentServiceStub(suite.people)
    agents = []
    for number in range(count):
        asked = fleet_pb2.CreateEnrollmentRequest(server=f"bench-{number}", request_id=f"bench-{number}")
        prepared = await prepare.CreateEnrollment(asked)
        answer = await enroll.Enroll(pb.EnrollRequest(token=prepared.token, certificate_request=csr))
        agents.append(Agent(answer.agent_id, answer.certificate.decode(), pem))
    return agents


class Fleets:
    """The processes that hold one side's agents."""

    def __init__(self, processes: list[Steered], count: int) -> None:
        self._processes = processes
        self._count = count
        self._cpu = 0.0

    async def storm(self) -> float:
        """Connect all agents at once; seconds until the last is welcome. Raises when any is lost."""
        for process in self._processes:
            process.tell({"connect": True})
        states = [await process.answer() for process in self._processes]
        welcomed = sum(state["welcomed"] for state in states)
        if welcomed != self._count:
            raise RuntimeError(f"{self._count - welcomed} of {self._count} agents were lost while connecting")
        return max(float(state["seconds"]) for state in states)

    async def costing(self, work: object) -> Cost:
        """Do `work` and add what it cost this side's agents. Raises when an agent was lost."""
        before = await self._spent()
        cost: Cost = await work  # type: ignore[misc]
        return Cost(cost.seconds, cost.cpu, await self._spent() - before)

    async def _spent(self) -> float:
        states = [await process.ask({}) for process in self._processes]
        if lost := sum(state["lost"] for state in states):
            raise RuntimeError(f"{lost} agents were lost in mid-measurement")
        return sum(float(state["cpu"]) for state in states)


@asynccontextmanager
async def fleet(address: str, authority: bytes, agents: list[Agent], folder: Path) -> AsyncIterator[Fleets]:
    """Processes that share `agents`, not yet connected."""
    folder.mkdir()
    async with AsyncExitStack() as stack:
        processes = []
        for number in range(PROCESSES):
            path = folder / f"fleet-{number}.json"
            Fleet(address, authority.decode(), agents[number::PROCESSES]).save(path)
            processes.append(await stack.enter_async_context(steered("bench.fleet", path)))
        yield Fleets(processes, len(agents))


async def _fan_out(bare: Steered) -> Cost:
    answer = await bare.ask({"script": SCRIPT})
    return Cost(answer["seconds"], answer["cpu"])


def _server_files(suite: Installation, folder: Path) -> Path:
    """The suite's own server identity, so that agents trust the bare server as well."""
    files = folder / "server"
    files.mkdir()
    for name in ("suite.pem", "suite.key"):
        shutil.copy(suite.home / "certificates" / name, files / name.replace("suite", "server"))
    (files / "ca.pem").write_bytes(suite.authority)
    return files


def _target(agent: Agent) -> targets_pb2.Target:
    line = targets_pb2.AgentLine(agent_id=agent.agent_id)
    return targets_pb2.Target(id=f"target-{agent.agent_id}", name=agent.agent_id, generation=GENERATION_V5, agent=line)
