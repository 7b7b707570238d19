"""Boot and decommission lists: one run a step, in order, until one does not succeed.

What was done is on the machine's row before the next thing is asked for, and everything asked for is named by instance,
list, step and attempt. So whoever takes over after a crash asks for the same run again and finds it.
"""

import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from twinline_kit.errors import Error, FailedPrecondition, InvalidArgument, NotFound
from twinline_launcher import steps, stranding
from twinline_launcher.runs import GoingOn, Limits, Runs
from twinline_launcher.settings import Settings
from twinline_launcher.states import Event, State
from twinline_launcher.steps import UNDER_WAY, Step, StepState
from twinline_launcher.stranding import Failure, Reason
from twinline_launcher.turns import Turn

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kind:
    """One of the two lists."""

    column: str
    state: State
    finish: Event
    finished: str


BOOT = Kind("boot", State.BOOTING, Event.FINISH_BOOT, "the boot list has finished")
DECOMMISSION = Kind(
    "decommission", State.DECOMMISSIONING, Event.FINISH_DECOMMISSION, "the decommission list has finished"
)


class Lists:
    """Moves a machine through a list."""

    def __init__(self, runs: Runs, settings: Settings) -> None:
        self._runs = runs
        self._settings = settings

    def is_through(self, turn: Turn, kind: Kind) -> bool:
        """Whether every step has succeeded, or there is none."""
        return steps.current(_load(turn, kind)) is None

    async def advance(self, turn: Turn, kind: Kind) -> None:
        """Do what can be done now: returns when a run goes on, or the list is over."""
        while turn.instance.state == kind.state:
            done = _load(turn, kind)
            index = steps.current(done)
            if index is None:
                await turn.move(kind.finish, kind.finished)
            elif not await self._step(turn, kind, index):
                return

    async def stop_if_over(self, turn: Turn, kind: Kind) -> bool:
        """Strand the list once it is over its limit, whoever does not answer meanwhile; says whether it was."""
        index = steps.current(_load(turn, kind))
        if index is None or self._left(turn, kind).total_seconds() > -self._settings.limit_grace:
            return False
        await self._overrun(turn, kind, index)
        return True

    async def strand(self, turn: Turn, kind: Kind, failure: Failure, *, event: Event = Event.STRAND) -> None:
        """Stop the list at its present step."""
        failure = stranding.said(turn.instance, failure)
        done = _load(turn, kind)
        index = steps.current(done) or 0
        step = done[index] if done else Step("", 0)
        facts: dict[str, Any] = {kind.column: steps.dump(steps.with_step(done, index, state=StepState.FAILED))}
        if kind is BOOT:
            newest = await self._runs.newest_revision(step.script) if failure.reason in stranding.MENDED_BY_PUSH else 0
            rest = [each.title for each in done[index + 1 :]]
            why = stranding.boot(turn.instance, failure, step, newest=newest, rest=rest)
        else:
            force_after = timedelta(seconds=self._settings.stranded_decommission_limit)
            why = stranding.decommission(turn.instance, failure, step, force_after=force_after)
        await turn.move(event, f"{failure.message} ({failure.reason})", stranding=why, **facts)

    async def cancel(self, turn: Turn) -> None:
        """Stop whatever script still runs, as far as the executor can be told now: its machine is gone."""
        for kind in (BOOT, DECOMMISSION):
            for index, step in enumerate(_load(turn, kind)):
                if step.state not in UNDER_WAY:
                    continue
                if step.run:
                    await self._cancel(turn, step)
                await _note(turn, kind, index, state=StepState.CANCELED)

    async def _step(self, turn: Turn, kind: Kind, index: int) -> bool:
        """Take one step further; False when there is nothing to do but to wait."""
        step = _load(turn, kind)[index]
        if step.state is StepState.WAITING:
            await _again(turn, kind, index, step)
        elif step.state is StepState.FAILED:
            await self._retry(turn, kind, index, step)
        elif not step.run:
            await self._start(turn, kind, index, step)
        else:
            return await self._follow(turn, kind, index, step)
        return True

    async def _start(self, turn: Turn, kind: Kind, index: int, step: Step) -> None:
        try:
            run = await self._runs.start(turn.instance, kind.column, index, step, self._limits(turn, kind))
        except (FailedPrecondition, InvalidArgument, NotFound) as refusal:
            await self.strand(turn, kind, Failure(refusal.reason, refusal.message))
        else:
            await _note(turn, kind, index, run=run)

    async def _follow(self, turn: Turn, kind: Kind, index: int, step: Step) -> bool:
        seen = await self._runs.result(step)
        if isinstance(seen, GoingOn):
            if seen.lost and step.state is not StepState.UNKNOWN:  # once one is waited for, a person knows
                await self.strand(turn, kind, seen.lost)
                return True
            await _note(turn, kind, index, state=seen.state, reason=seen.reason)
            return False
        if seen.failure is None:
            await _note(turn, kind, index, state=StepState.SUCCEEDED)
        elif step.given_up:
            await _again(turn, kind, index, step)
        else:
            await self.strand(turn, kind, seen.failure)
        return True

    async def _retry(self, turn: Turn, kind: Kind, index: int, step: Step) -> None:
        """After a resume: again, unless the failed attempt turns out to have succeeded, or may be at work still."""
        seen = await self._runs.result(step) if step.run else GoingOn()
        if isinstance(seen, GoingOn):
            # Without a run, the same attempt is asked for: it may have been taken, and the answer lost.
            await _note(turn, kind, index, state=seen.state, reason=seen.reason)
        elif seen.failure is None:
            await _note(turn, kind, index, state=StepState.SUCCEEDED)
        else:
            await _again(turn, kind, index, step)

    async def _overrun(self, turn: Turn, kind: Kind, index: int) -> None:
        step = _load(turn, kind)[index]
        if step.run:
            await _note(turn, kind, index, given_up=True)
            await self._cancel(turn, step)
        reason = Reason.BOOT_OVERRAN if kind is BOOT else Reason.DECOMMISSION_OVERRAN
        text = f"the {kind.column} list was not through within its limit; {step.title} was at work"
        await self.strand(turn, kind, Failure(reason, text), event=Event.EXPIRE)

    async def _cancel(self, turn: Turn, step: Step) -> None:
        try:
            await self._runs.cancel(step.run)
        except Error as error:
            # It ends with its machine, or by its own limit on the host.
            fields = {"run": step.run, "server": turn.instance.server_name, "error": str(error)}
            log.warning("run not canceled", extra=fields)

    def _left(self, turn: Turn, kind: Kind) -> timedelta:
        limit = self._settings.limit(kind.state, turn.instance.generation)
        return (limit or timedelta.max) - turn.age()

    def _limits(self, turn: Turn, kind: Kind) -> Limits:
        left = self._left(turn, kind)
        reach = timedelta(seconds=self._settings.reach_window(turn.instance.generation))
        return Limits(left, reach if kind is BOOT else min(reach, left))


def _load(turn: Turn, kind: Kind) -> list[Step]:
    return steps.load(getattr(turn.instance, kind.column))


async def _again(turn: Turn, kind: Kind, index: int, step: Step) -> None:
    """Ask for the step's next attempt. Only of one whose attempt before is over for good, or that had none."""
    await _note(turn, kind, index, state=StepState.PENDING, attempt=step.attempt + 1, run="", given_up=False)


async def _note(turn: Turn, kind: Kind, index: int, **changes: Any) -> None:
    await turn.save(**{kind.column: steps.dump(steps.with_step(_load(turn, kind), index, **changes))})
