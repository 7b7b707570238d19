"""Machines at rest are looked at many at a time, and only those with news are given to whoever acts."""

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

import grpc.aio
import pytest
import sqlalchemy as sa

from tests.service.launcher.test_store import LEASE, launched
from tests.unit.launcher.machines import NOON, minutes
from twinline_kit.errors import Unavailable, Violation
from twinline_launcher.agents import Agents
from twinline_launcher.changes import Changes
from twinline_launcher.lists import Lists
from twinline_launcher.models import Generation, Instance
from twinline_launcher.phases import Phases
from twinline_launcher.providers import InstanceType, LaunchSpec, Machine, Power
from twinline_launcher.rounds import Rounds
from twinline_launcher.runs import Runs
from twinline_launcher.settings import Settings
from twinline_launcher.states import Event, State
from twinline_launcher.store.instances import InstanceStore
from twinline_launcher.store.servers import ServerStore
from twinline_launcher.targets import Targets, stated

LATER = minutes(20)


class Sky:
    """A cloud that says of machines what the test wants."""

    name = "sky"
    instance_types: Sequence[InstanceType] = ()

    def __init__(self) -> None:
        self.machines: dict[str, Machine] = {}
        self.questions: list[int] = []
        self.is_away = False
        self.is_broken = False

    async def obstacles(self, generation: Generation) -> Sequence[Violation]:
        return ()

    async def launch(self, spec: LaunchSpec) -> Machine:
        raise NotImplementedError

    async def describe(self, tokens: Collection[str]) -> Mapping[str, Machine]:
        self.questions.append(len(tokens))
        if self.is_away:
            raise Unavailable("the sky is away")
        if self.is_broken:
            raise ValueError("the sky falls")
        return {token: self.machines[token] for token in tokens if token in self.machines}

    async def terminate(self, token: str) -> Machine:
        raise NotImplementedError

    async def apply_group(self, group: str, open_ports: Sequence[int]) -> None:
        raise NotImplementedError


class Rested:
    """Machines at rest on a sky, each as the executor knows it."""

    def __init__(self, servers: ServerStore, instances: InstanceStore) -> None:
        self.sky = Sky()
        self.changes = Changes()
        self.now = LATER
        self.instances = instances
        self._servers = servers
        channel = grpc.aio.insecure_channel("127.0.0.1:1")  # nobody is called
        settings = Settings.model_construct()
        lists = Lists(Runs(channel), settings)
        phases = Phases({"sky": self.sky}, Targets(channel), Agents(channel), lists, settings)
        self._rounds = Rounds(
            instances, phases, {"sky": self.sky}, every=1, changes=self.changes, clock=lambda: self.now
        )

    def machine(self, number: int = 1, *events: Event, cloud: str = "sky") -> str:
        known = {"cloud_id": f"instance-{number}", "address": "192.0.2.1:22"}
        made = launched(self._servers, self.instances, number, cloud=cloud, **known)
        for event in (Event.RUN, *(events or (Event.FINISH_BOOT,))):
            made = self.instances.apply(made.id, event, at=NOON, cause="")
        made = self.instances.save(made.id, revision=made.revision, target=stated(made))
        self.instances.claim("somebody", at=NOON, lease=LEASE, limit=1)
        self.instances.release(made.id, "somebody", revision=made.revision, due=None)
        self.sky.machines[made.id] = Machine(made.id, Power.RUNNING, address="192.0.2.1:22")
        return made.id

    async def round(self) -> list[str]:
        """The machines that are due after a round."""
        await self._rounds._round()
        return sorted(self.instances.claim("other", at=self.now, lease=LEASE, limit=9).instances)


@pytest.fixture
async def rested(servers: ServerStore, instances: InstanceStore) -> Rested:
    return Rested(servers, instances)


@contextmanager
def written(engine: sa.Engine) -> Iterator[list[str]]:
    """The statements within the block that are no reading."""
    seen: list[str] = []

    def note(*arguments: object) -> None:
        if not str(arguments[2]).startswith("SELECT"):
            seen.append(str(arguments[2]))

    sa.event.listen(engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        sa.event.remove(engine, "before_cursor_execute", note)


async def test_a_cloud_is_asked_once_for_all_and_nothing_is_written_where_nothing_is_new(
    rested: Rested, engine: sa.Engine
) -> None:
    for number in range(1, 6):
        rested.machine(number)
    rested.machine(6, Event.STRAND)
    ticket = rested.changes.ticket()
    with written(engine) as statements:
        assert await rested.round() == []
    assert statements == []
    assert rested.sky.questions == [5, 1]  # by state
    assert not ticket.is_set()


async def test_what_is_gone_and_what_the_cloud_does_not_know_is_due(rested: Rested) -> None:
    gone, lost, _ = [rested.machine(number) for number in (1, 2, 3)]
    rested.sky.machines[gone] = Machine(gone, Power.GONE, end_time=LATER)
    del rested.sky.machines[lost]
    ticket = rested.changes.ticket()
    assert await rested.round() == [gone, lost]
    assert ticket.is_set()


async def test_a_machine_of_which_the_cloud_says_something_new_is_due(rested: Rested) -> None:
    moved = rested.machine()
    rested.sky.machines[moved] = Machine(moved, Power.RUNNING, address="192.0.2.9:22")
    assert await rested.round() == [moved]


async def test_a_machine_that_the_executor_has_not_heard_of_is_due(rested: Rested) -> None:
    unheard = rested.machine()
    rested.instances.save(unheard, revision=rested.instances.get(unheard).revision, target="")
    assert await rested.round() == [unheard]


async def test_a_stranded_decommission_is_due_when_its_time_is_over(rested: Rested) -> None:
    stranded = rested.machine(1, Event.FINISH_BOOT, Event.TERMINATE, Event.STRAND)
    assert await rested.round() == []
    rested.now = minutes(51)
    assert await rested.round() == [stranded]


async def test_a_cloud_that_cannot_be_asked_lets_its_machines_rest_and_keeps_no_other_waiting(rested: Rested) -> None:
    rested.machine(1)
    other = rested.machine(2, cloud="no longer configured")
    rested.sky.is_away = True
    assert await rested.round() == [other]
    rested.sky.is_away = False
    assert await rested.round() == []


async def test_a_stranded_decommission_is_due_in_time_though_its_cloud_tells_nothing(rested: Rested) -> None:
    stranded = rested.machine(1, Event.FINISH_BOOT, Event.TERMINATE, Event.STRAND)
    rested.sky.is_away = True
    assert await rested.round() == []
    rested.now = minutes(51)
    assert await rested.round() == [stranded]


async def test_a_cloud_that_fails_unexpectedly_keeps_no_other_state_or_cloud_waiting(
    rested: Rested, caplog: pytest.LogCaptureFixture
) -> None:
    rested.machine(1)
    others = [rested.machine(2, cloud="no longer configured"), rested.machine(3, Event.STRAND, cloud="nor this one")]
    rested.sky.is_broken = True
    with caplog.at_level(logging.WARNING, "twinline_launcher"):
        assert await rested.round() == others
    (line,) = caplog.records
    assert (line.levelname, line.cloud, line.error) == ("ERROR", "sky", "the sky falls")  # type: ignore[attr-defined]
    assert "mend what keeps the cloud from telling of them" in line.message
    rested.sky.is_broken = False
    assert await rested.round() == []


async def test_machines_at_rest_are_told_page_by_page(rested: Rested) -> None:
    machines = [rested.machine(number) for number in (1, 2, 3)]
    first = rested.instances.at_rest(State.OPERATIONAL, after="", limit=2)
    rest = rested.instances.at_rest(State.OPERATIONAL, after=first[-1].id, limit=2)
    assert [[each.id for each in page] for page in (first, rest)] == [machines[:2], machines[2:]]


async def test_a_machine_that_is_due_already_is_left_so(rested: Rested) -> None:
    machine: Instance = rested.instances.get(rested.machine())
    rested.instances.wake([machine.id], at=minutes(5))
    rested.instances.wake([machine.id], at=minutes(1))
    assert rested.instances.get(machine.id).due_time == minutes(5)
    assert rested.instances.at_rest(State.OPERATIONAL, after="", limit=9) == []
