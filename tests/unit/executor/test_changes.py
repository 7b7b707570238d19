"""Who is woken by what changes."""

from twinline_executor.changes import Changes, changed


def test_only_those_who_watch_what_changed_are_woken() -> None:
    changes = Changes()
    with changes.of("run-1") as run, changes.of("task-1") as first, changes.of("task-2") as second:
        changes.tell(["run-1", "task-1", "task-nobody-watches"])
        assert [event.is_set() for event in (run, first, second)] == [True, True, False]


async def test_a_change_is_heard_once_and_none_is_not_waited_for_long() -> None:
    changes = Changes()
    with changes.of("run-1") as event:
        changes.tell(["run-1"])
        await changed(event, within=60)
        await changed(event, within=0)
        assert not event.is_set()
