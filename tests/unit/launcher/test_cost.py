"""Money: the price of an hour, by the seconds billed."""

from datetime import timedelta

from tests.unit.launcher.machines import NOON, machine, minutes, step
from twinline_launcher import cost
from twinline_launcher.states import State

STRANDED = step(State.BOOTING, State.STRANDED_IN_BOOTING, minutes(10))
RESUMED = step(State.STRANDED_IN_BOOTING, State.BOOTING, minutes(25))


def test_a_machine_that_never_ran_costs_nothing() -> None:
    it = cost.of(machine(), [], at=minutes(60))
    assert (it.micros, it.billed, it.hourly_micros) == (0, timedelta(), 3_600_000)


def test_a_running_machine_costs_by_the_second_until_now() -> None:
    it = cost.of(machine(run_time=NOON), [], at=NOON + timedelta(seconds=90))
    assert (it.micros, it.stranded_micros) == (90_000, 0)


def test_an_ended_machine_costs_no_more() -> None:
    it = cost.of(machine(run_time=NOON, terminate_time=minutes(30)), [], at=minutes(500))
    assert (it.micros, it.billed) == (1_800_000, timedelta(minutes=30))


def test_stranded_time_is_counted_apart_from_its_transition_to_the_next() -> None:
    it = cost.of(machine(run_time=NOON), [STRANDED, RESUMED], at=minutes(60))
    assert (it.stranded, it.stranded_micros) == (timedelta(minutes=15), 900_000)


def test_stranded_time_goes_on_until_now_and_adds_up() -> None:
    again = step(State.DECOMMISSIONING, State.STRANDED_IN_DECOMMISSIONING, minutes(40))
    it = cost.of(machine(run_time=NOON), [STRANDED, RESUMED, again], at=minutes(60))
    assert it.stranded == timedelta(minutes=35)


def test_stranded_time_ends_with_the_bill() -> None:
    gone = step(State.STRANDED_IN_BOOTING, State.SHUTTING_DOWN, minutes(50))
    it = cost.of(machine(run_time=NOON, terminate_time=minutes(20)), [STRANDED, gone], at=minutes(60))
    assert it.stranded == timedelta(minutes=10)


def test_fractions_of_a_millionth_are_not_charged() -> None:
    it = cost.of(machine(run_time=NOON, hourly_micros=11_600), [], at=NOON + timedelta(seconds=1))
    assert it.micros == 3
