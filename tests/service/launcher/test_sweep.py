"""What the local cloud keeps of machines that ended."""

import os
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from twinline_kit import clock
from twinline_launcher.providers import Power
from twinline_launcher.providers.local import LocalCloud
from twinline_launcher.providers.local.folder import Busy, Folder

TOKENS = [f"swept-{os.getpid()}-{number}" for number in range(3)]


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Callable[[datetime], LocalCloud]]:
    """Makes the cloud as it is at a moment."""
    made: list[LocalCloud] = []

    def make(moment: datetime) -> LocalCloud:
        made.append(LocalCloud(tmp_path, clock=lambda: moment))
        return made[-1]

    yield make
    for each in made:
        each.close()


def kept(folder: Path) -> list[str]:
    return sorted(each.name for each in (folder / "instances").iterdir())


async def test_what_is_left_of_a_machine_goes_a_month_after_its_end_and_its_lock_too(
    at: Callable[[datetime], LocalCloud], tmp_path: Path
) -> None:
    first, second, third = TOKENS
    for token, age in ((first, 31), (second, 29)):
        await at(clock.now() - timedelta(days=age)).terminate(token)
    now = at(clock.now())
    await now.terminate(third)
    assert kept(tmp_path) == sorted(name for token in (second, third) for name in (token, f".{token}.lock"))
    assert (await now.describe(TOKENS)).keys() == {second, third}
    assert (await now.terminate(first)).power is Power.GONE


async def test_a_machine_that_somebody_works_at_is_left_for_another_day(
    at: Callable[[datetime], LocalCloud], tmp_path: Path
) -> None:
    await at(clock.now() - timedelta(days=31)).terminate(TOKENS[0])
    folder = Folder.of(tmp_path / "instances", TOKENS[0])
    with folder.locked():
        await at(clock.now()).terminate(TOKENS[1])
        assert folder.read()
        with pytest.raises(Busy), folder.locked(patience=0):
            pass


def test_a_lock_whose_file_was_deleted_is_nobody_s(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path, TOKENS[0])
    with folder.locked():
        folder.delete()
        with folder.locked(patience=0), pytest.raises(Busy), folder.locked(patience=0):
            pass
