"""When a certificate is good and when it is renewed, by a clock that may be wrong."""

import pytest

from twinline_agent.enrollment import until_renewal
from twinline_agent.identity import Certificate

DAY = 86400.0


def certificate(obtained: float, lifetime: float = DAY) -> Certificate:
    return Certificate("PEM", obtained, obtained + lifetime)


@pytest.mark.parametrize("clock", [0.0, 1_700_000_000.0])
def test_a_certificate_is_renewed_at_about_half_life_whatever_the_clock_says(clock: float) -> None:
    assert 0.4 * DAY <= until_renewal(certificate(clock), clock) <= 0.5 * DAY


@pytest.mark.parametrize(("lifetime", "pause"), [(DAY, 60.0), (300.0, 30.0), (0.0, 1.0), (-DAY, 1.0)])
def test_a_renewal_that_is_due_waits_a_minute_or_a_tenth_of_a_short_life(lifetime: float, pause: float) -> None:
    assert until_renewal(certificate(0.0, lifetime), 10 * DAY) == pause


def test_a_certificate_of_a_clock_that_was_set_back_is_not_used() -> None:
    kept = certificate(10 * DAY)
    assert [kept.is_valid(now) for now in (9 * DAY, 10.5 * DAY, 11 * DAY)] == [False, True, False]
