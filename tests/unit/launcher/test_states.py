"""The table: complete, and refusing all that is not in it."""

import itertools

import pytest

from twinline.launcher.v1 import servers_pb2
from twinline_launcher import states
from twinline_launcher.errors import IllegalTransition
from twinline_launcher.inputs import ORIGINS
from twinline_launcher.states import Event, State
from twinline_launcher.steps import StepState

PAIRS = list(itertools.product(State, Event))
REFUSED = [(state, event) for state, event in PAIRS if event not in states.TRANSITIONS[state]]


def test_every_state_has_a_row_and_a_number_in_the_contract() -> None:
    assert set(states.TRANSITIONS) == set(State)
    numbered = set(servers_pb2.ServerState.keys()) - {"SERVER_STATE_UNSPECIFIED"}
    assert numbered == {f"SERVER_STATE_{state.name}" for state in State}


def test_every_event_and_step_and_origin_has_a_number_in_the_contract() -> None:
    assert servers_pb2.Transition.Event.keys() == ["EVENT_UNSPECIFIED", *(f"EVENT_{each.name}" for each in Event)]
    assert servers_pb2.Step.State.keys() == ["STATE_UNSPECIFIED", *(f"STATE_{each.name}" for each in StepState)]
    assert servers_pb2.Input.Origin.keys() == ["ORIGIN_UNSPECIFIED", *(f"ORIGIN_{each.upper()}" for each in ORIGINS)]


def test_every_event_happens_somewhere() -> None:
    assert {event for row in states.TRANSITIONS.values() for event in row} == set(Event)


@pytest.mark.parametrize("state", State)
def test_every_state_reaches_terminated(state: State) -> None:
    reached, waiting = {state}, [state]
    while waiting:
        new = set(states.TRANSITIONS[waiting.pop()].values()) - reached
        reached |= new
        waiting.extend(new)
    assert State.TERMINATED in reached


@pytest.mark.parametrize(("state", "event"), REFUSED)
def test_a_pair_that_is_not_in_the_table_is_refused_and_told_what_is_possible(state: State, event: Event) -> None:
    with pytest.raises(IllegalTransition) as refusal:
        states.after(state, event, server="web-2")
    allowed = ", ".join(each.replace("_", "-") for each in states.TRANSITIONS[state] if each in states.ASKED)
    said = {"server": "web-2", "state": state.name, "event": event.name, "allowed": allowed}
    assert refusal.value.metadata == said


@pytest.mark.parametrize(
    ("state", "event", "text"),
    [
        (State.OPERATIONAL, Event.LAUNCH, "cannot launch web-2: it is operational; possible now: terminate"),
        (
            State.STRANDED_IN_BOOTING,
            Event.LAUNCH,
            "cannot launch web-2: it is stranded in booting; possible now: resume, force-operational, terminate",
        ),
        (
            State.SHUTTING_DOWN,
            Event.FORCE_OPERATIONAL,
            "cannot force-operational web-2: it is shutting down; possible now: nothing, it moves on by itself",
        ),
    ],
)
def test_a_refusal_names_the_server_and_only_what_a_person_can_ask_for(state: State, event: Event, text: str) -> None:
    with pytest.raises(IllegalTransition) as refusal:
        states.after(state, event, server="web-2")
    assert refusal.value.message == text


@pytest.mark.parametrize(("state", "event"), [pair for pair in PAIRS if pair not in REFUSED])
def test_a_pair_in_the_table_is_followed(state: State, event: Event) -> None:
    assert states.after(state, event, server="web-2") is states.TRANSITIONS[state][event]


def test_a_machine_that_never_finished_its_boot_is_not_decommissioned() -> None:
    never = {State.PENDING, State.BOOTING, State.STRANDED_IN_BOOTING, State.ERROR}
    assert {states.after(state, Event.TERMINATE, server="web-2") for state in never} == {State.SHUTTING_DOWN}
    assert states.after(State.OPERATIONAL, Event.TERMINATE, server="web-2") is State.DECOMMISSIONING


@pytest.mark.parametrize("state", sorted(states.REACHABLE | {State.PENDING, State.SHUTTING_DOWN}))
def test_a_machine_may_vanish_wherever_it_may_run(state: State) -> None:
    event = Event.END if state is State.SHUTTING_DOWN else Event.VANISH
    assert states.after(state, event, server="web-2") is State.TERMINATED


def test_a_machine_is_there_from_the_launch_until_the_cloud_says_that_it_is_gone() -> None:
    assert set(State) - states.WITH_MACHINE == {State.INACTIVE, State.TERMINATED}
    assert states.MOVING | states.REACHABLE | {State.ERROR} == states.WITH_MACHINE


def test_a_moving_state_has_a_limit_unless_it_must_never_give_up() -> None:
    assert set(states.LIMITS) == states.MOVING - {State.SHUTTING_DOWN} | {State.STRANDED_IN_DECOMMISSIONING}
    assert all(Event.EXPIRE in states.TRANSITIONS[state] for state in states.LIMITS)
