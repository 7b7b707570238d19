"""What is done with a machine in each state. Everything here may be done again at any time."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from twinline_kit.errors import Conflict, Error, FailedPrecondition, InvalidArgument, Unavailable
from twinline_launcher.agents import Agents
from twinline_launcher.lists import BOOT, DECOMMISSION, Kind, Lists
from twinline_launcher.models import Generation, Instance
from twinline_launcher.providers import Cloud, Clouds, LaunchSpec, Machine, Power
from twinline_launcher.settings import Settings
from twinline_launcher.states import STRANDED, Event, State
from twinline_launcher.stranding import Failure
from twinline_launcher.targets import Targets, stated
from twinline_launcher.turns import Turn

log = logging.getLogger(__name__)

ANSWER = 45.0
"""Seconds that a cloud may take to answer. Less than a look may take, so that the limit of a state is looked at too."""

# The target of the machine before needs a moment to go; a name that stays taken belongs to somebody else.
_NAME_PATIENCE = timedelta(seconds=30)

RESTING = frozenset({State.OPERATIONAL, *STRANDED})
"""States in which nothing is done with a machine until its cloud says something new, or its time is over."""

Phase = Callable[[Turn], Awaitable[float | None]]


class Phases:
    """Acts on machines; the answer is in how many seconds to look again, None for never."""

    def __init__(self, clouds: Clouds, targets: Targets, agents: Agents, lists: Lists, settings: Settings) -> None:
        self._clouds = clouds
        self._targets = targets
        self._agents = agents
        self._lists = lists
        self._settings = settings
        self._phases: Mapping[State, Phase] = {
            State.PENDING: self._pending,
            State.BOOTING: self._booting,
            State.OPERATIONAL: self._resting,
            State.STRANDED_IN_BOOTING: self._resting,
            State.DECOMMISSIONING: self._decommissioning,
            State.STRANDED_IN_DECOMMISSIONING: self._stranded_in_decommissioning,
            State.SHUTTING_DOWN: self._shutting_down,
            State.TERMINATED: self._terminated,
            State.ERROR: self._failed,
        }

    async def act(self, turn: Turn) -> float | None:
        """Do what the machine's state asks for, until that takes time or the state changes."""
        return await self._phases[State(turn.instance.state)](turn)

    def has_work(self, machine: Instance, found: Machine | None, at: datetime) -> bool:
        """Whether a look at a resting machine, of which its cloud says `found`, would do anything."""
        if found is None or found.power is Power.GONE or self.is_over(machine, at):
            return True
        differs = any(getattr(machine, name) != value for name, value in _facts(found).items())
        return differs or machine.target != stated(machine)

    def is_over(self, machine: Instance, at: datetime) -> bool:
        """Whether the machine has been in its state for as long as it may."""
        limit = self._settings.limit(State(machine.state), machine.generation)
        return limit is not None and at - machine.state_time >= limit

    async def _pending(self, turn: Turn) -> float | None:
        try:
            async with asyncio.timeout(ANSWER):
                found = await self._asked_for(turn)
        except (FailedPrecondition, InvalidArgument) as refusal:
            await turn.move(Event.REFUSE, f"{refusal.message} ({refusal.reason})")
            return 0
        except Exception as error:
            if not self.is_over(turn.instance, turn.now()):
                raise
            await turn.move(Event.EXPIRE, f"the cloud could not be asked in time: {str(error) or 'it does not answer'}")
            return 0
        if found.power is Power.GONE:
            await self._vanish(turn, found)
        elif found.power is Power.RUNNING:
            await turn.move(Event.RUN, "the cloud runs it", **_facts(found))
        elif self.is_over(turn.instance, turn.now()):
            await turn.move(Event.EXPIRE, "the cloud did not run it in time")
        return self._settings.tick

    async def _asked_for(self, turn: Turn) -> Machine:
        """The machine, which the cloud may know already from somebody who died before noting it."""
        if found := await self._found(turn):
            return found
        user_data = await self._agents.prepare(turn) if turn.instance.generation == Generation.V5 else b""
        return await self._cloud(turn).launch(_spec(turn, user_data))

    async def _booting(self, turn: Turn) -> float | None:
        return await self._work(turn, BOOT)

    async def _decommissioning(self, turn: Turn) -> float | None:
        if self._lists.is_through(turn, DECOMMISSION):
            # Whether the executor hears of its state is no reason to let it cost money any longer.
            await self._lists.advance(turn, DECOMMISSION)
            return 0
        return await self._work(turn, DECOMMISSION)

    async def _work(self, turn: Turn, kind: Kind) -> float | None:
        try:
            is_there = await self._follow_cloud(turn)
        except Exception:
            # A cloud that tells nothing keeps no list from its limit, and no person from the way out of that.
            if await self._lists.stop_if_over(turn, kind):
                return 0
            raise
        if not is_there or await self._lists.stop_if_over(turn, kind):
            return 0
        try:
            await self._targets.ensure(turn)
        except FailedPrecondition as refusal:
            if turn.age() < _NAME_PATIENCE:
                raise
            await self._lists.strand(turn, kind, Failure(refusal.reason, refusal.message))
            return 0
        await self._lists.advance(turn, kind)
        return self._settings.tick

    async def _resting(self, turn: Turn) -> float | None:
        """Returns None: from here on the rounds look at it."""
        if not await self._follow_cloud(turn):
            return 0
        await self._targets.ensure(turn)
        return None

    async def _stranded_in_decommissioning(self, turn: Turn) -> float | None:
        if self.is_over(turn.instance, turn.now()):
            await turn.move(Event.EXPIRE, "nobody ended it after its decommission stranded: ended by force")
            return 0
        return await self._resting(turn)

    async def _shutting_down(self, turn: Turn) -> float | None:
        # The machine first: it is what costs money. All else is done again once it is gone.
        if not await self._is_ended(turn):
            return self._settings.tick
        await self._lists.cancel(turn)
        await self._let_go_if_possible(turn)
        await turn.move(Event.END, "the cloud says that it is gone")
        return 0

    async def _terminated(self, turn: Turn) -> float | None:
        # A machine that vanished may have left something at its cloud, and a script that nobody waits for.
        is_ended = await self._is_ended(turn)
        await self._lists.cancel(turn)
        await self._let_go(turn)
        return None if is_ended else self._settings.tick

    async def _failed(self, turn: Turn) -> float | None:
        # What may be left of the launch must not cost money while a person makes up their mind.
        if not await self._is_ended(turn):
            return self._settings.tick
        await self._agents.revoke(turn)
        return None

    async def _is_ended(self, turn: Turn) -> bool:
        """Have the cloud end the machine, and note what it says, be it all that is ever told of a launch."""
        told = await self._cloud(turn).terminate(turn.instance.id)
        is_gone = told.power is Power.GONE
        await turn.save(**(_last_facts(turn, told) if is_gone else _facts(told)))
        return is_gone

    async def _follow_cloud(self, turn: Turn) -> bool:
        """Note what the cloud says of the machine, also that it vanished; False when it did."""
        # One that its cloud does not find may run all the same: it is gone when its cloud, told to end it, says so.
        async with asyncio.timeout(ANSWER):
            found = await self._found(turn) or await self._cloud(turn).terminate(turn.instance.id)
        if found.power is Power.GONE:
            await self._vanish(turn, found)
            return False
        await turn.save(**_facts(found))
        return True

    async def _found(self, turn: Turn) -> Machine | None:
        async with asyncio.timeout(ANSWER):
            return (await self._cloud(turn).describe([turn.instance.id])).get(turn.instance.id)

    async def _vanish(self, turn: Turn, found: Machine) -> None:
        cause = "the machine vanished: the cloud says that it is gone, and nobody here ended it"
        await turn.move(Event.VANISH, cause, **_last_facts(turn, found))

    async def _let_go(self, turn: Turn) -> None:
        await self._agents.revoke(turn)
        await self._targets.delete(turn)

    async def _let_go_if_possible(self, turn: Turn) -> None:
        try:
            await self._let_go(turn)
        except Conflict:
            raise
        except Error as error:
            log.warning("machine not let go yet", extra={"server": turn.instance.server_name, "error": str(error)})

    def _cloud(self, turn: Turn) -> Cloud:
        name = turn.instance.cloud
        if cloud := self._clouds.get(name):
            return cloud
        raise Unavailable(f"this launcher has no cloud {name} any more: configure it again", cloud=name)


def _spec(turn: Turn, user_data: bytes) -> LaunchSpec:
    machine = turn.instance
    return LaunchSpec(
        token=machine.id,
        name=machine.server_name,
        generation=Generation(machine.generation),
        image=machine.cloud_image,
        instance_type=machine.instance_type,
        public_key=machine.public_key,
        security_groups=tuple(machine.security_groups),
        user_data=user_data,
    )


def _facts(found: Machine) -> dict[str, Any]:
    """What a cloud says, as it is stored. What it no longer says stays."""
    facts = {
        "cloud_id": found.id,
        "address": found.address,
        "username": found.username,
        "host_key": found.host_key,
        "run_time": found.run_time,
        "terminate_time": found.end_time,
    }
    return {name: value for name, value in facts.items() if value}


def _last_facts(turn: Turn, found: Machine) -> dict[str, Any]:
    """What is stored of a machine that is gone. Its end is what was told first: a cloud may forget it."""
    return {**_facts(found), "terminate_time": turn.instance.terminate_time or found.end_time or turn.now()}
