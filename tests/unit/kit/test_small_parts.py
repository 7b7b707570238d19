"""Ids, pages, logs, settings, loops and telemetry."""

import asyncio
import contextlib
import io
import json
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError
from pydantic_settings import SettingsConfigDict

from twinline_kit import clock, logs, loops, pages, telemetry
from twinline_kit.errors import InvalidArgument, Unavailable
from twinline_kit.ids import new_id, new_ids, request_id, required_request_id
from twinline_kit.pages import BadPageToken
from twinline_kit.settings import ServiceSettings


def test_ids_are_short_and_differ() -> None:
    made = {new_id("run") for _ in range(10_000)}
    assert len(made) == 10_000
    assert all(re.fullmatch(r"run-[a-z0-9]{16}", each) for each in made)


def test_ids_made_together_are_in_order_and_differ_from_all_others() -> None:
    made = [each for _ in range(20) for each in new_ids("task", 500)]
    assert len(set(made)) == 10_000
    assert all(re.fullmatch(r"task-[a-z2-7]{16}", each) for each in made)
    assert made[:500] == sorted(made[:500])
    many = new_ids("task", (1 << 20) + 2)
    assert len(set(many)) == len(many)


@pytest.mark.parametrize("given", ["0f0e0d0c-0b0a-0908-0706-050403020100", "again", "grüße 2", "x" * 128])
def test_a_request_id_is_any_printable_text_of_a_moderate_length(given: str) -> None:
    assert request_id(given) == required_request_id(given) == given


@pytest.mark.parametrize("given", ["x" * 129, "a\0b", "a\nb"])
def test_what_cannot_be_stored_or_shown_is_no_request_id(given: str) -> None:
    for check in (request_id, required_request_id):
        with pytest.raises(InvalidArgument, match="printable text of at most 128 characters"):
            check(given)


def test_only_where_effects_must_be_known_as_repeats_a_request_id_is_required() -> None:
    assert request_id("") is None
    with pytest.raises(InvalidArgument, match="request_id is empty"):
        required_request_id("")


def test_now_is_aware() -> None:
    assert clock.now().tzname() == "UTC"


def test_a_page_token_gives_back_its_position() -> None:
    token = pages.encode("2026-05-01", "näme/+?", filter="state=up")
    assert pages.decode(token, filter="state=up", parts=2) == ("2026-05-01", "näme/+?")
    assert re.fullmatch(r"[A-Za-z0-9_-]+", token)
    assert pages.decode("") == ()


@pytest.mark.parametrize("token", ["x", "!!", "W10", "W10=", "bnVsbA", "WzEsIngiXQ", "é", "WzIsIiIsImEiXQ", "9" * 9999])
def test_a_token_that_is_not_ours_is_refused(token: str) -> None:
    with pytest.raises(BadPageToken):
        pages.decode(token)


@pytest.mark.parametrize("position", ["a\0b", "\ud800", "\x1b"])
def test_a_token_with_what_no_database_takes_is_refused(position: str) -> None:
    with pytest.raises(BadPageToken, match="not one of ours"):
        pages.decode(pages.encode(position))


def test_a_token_of_another_list_is_refused() -> None:
    with pytest.raises(BadPageToken, match="another filter"):
        pages.decode(pages.encode("a", filter="x"), filter="y")
    with pytest.raises(BadPageToken, match="another list"):
        pages.decode(pages.encode("a"), parts=2)


def test_rows_are_cut_into_pages_and_the_last_one_has_no_token() -> None:
    page, token = pages.slice(["a", "b", "c"], 2, str, filter="x")
    assert (page, pages.after(token, filter="x")) == (["a", "b"], "b")
    assert pages.slice(["c"], 2, str) == (["c"], "")
    assert pages.slice(["b", "c"], 2, str) == (["b", "c"], "")
    _, token = pages.slice([("a", "1"), ("a", "2")], 1, lambda row: row)
    assert pages.decode(token, parts=2) == ("a", "1")
    assert pages.after("") == ""


def test_page_sizes_have_a_default_and_a_limit() -> None:
    assert [pages.page_size(n) for n in (0, 1, 5000)] == [100, 1, 1000]
    with pytest.raises(InvalidArgument):
        pages.page_size(-1)


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What is logged as the service "test" does, and the logging of before afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    logs.setup("test", "debug", stream)
    yield stream
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(False)


def test_a_log_line_is_json_with_its_fields(lines: io.StringIO) -> None:
    logs.rpc.set({"rpc": "/p.S/M", "peer": "ipv4:127.0.0.1:1", "trace_id": "ab"})
    logging.getLogger("some.where").warning("disk is full", extra={"path": Path("/x"), "free": 0, "why": None})
    line = json.loads(lines.getvalue())
    assert line.pop("ts").endswith("+00:00")
    assert line == {
        "level": "warning", "logger": "some.where", "msg": "disk is full", "service": "test",
        "rpc": "/p.S/M", "peer": "ipv4:127.0.0.1:1", "trace_id": "ab", "path": "/x", "free": 0, "why": None,
    }  # fmt: skip


def test_a_traceback_is_in_its_line(lines: io.StringIO) -> None:
    try:
        raise ZeroDivisionError("oh")
    except ZeroDivisionError:
        logging.getLogger("x").exception("failed")
    assert "ZeroDivisionError: oh" in json.loads(lines.getvalue())["exception"]


@pytest.mark.parametrize(
    "text",
    [
        "authorization: Bearer s3cr3t.x",
        "postgresql://me:s3cr3t@host/name",
        "-----BEGIN PRIVATE KEY-----\ns3cr3t\n-----END PRIVATE KEY-----",
        "-----BEGIN EC PRIVATE KEY-----\ns3cr3t and cut",
    ],
)
def test_what_looks_like_a_secret_is_hidden(lines: io.StringIO, text: str) -> None:
    logging.getLogger("x").info(text, extra={"value": text, "admin_token": "s3cr3t", "token": "s3cr3t"})
    assert "s3cr3t" not in lines.getvalue()
    assert "[hidden]" in lines.getvalue()


class Settings(ServiceSettings):
    """Settings of a service that is not there."""

    model_config = SettingsConfigDict(env_prefix="TWINLINE_SAMPLE_")


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_URL", "CERTIFICATE_FILE", "KEY_FILE", "CA_FILE"):
        monkeypatch.setenv(f"TWINLINE_SAMPLE_{name}", f"/{name}")
    settings = Settings()
    assert settings.database_url == "/DATABASE_URL"
    assert settings.key_file == Path("/KEY_FILE")
    assert settings.service_name() == "sample"
    with pytest.raises(ValidationError):
        settings.keys_address = "other"  # type: ignore[misc]
    with pytest.raises(ValidationError):
        Settings(colour="blue")  # type: ignore[call-arg]


def test_settings_name_every_variable_that_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWINLINE_SAMPLE_CA_FILE", "/ca.pem")
    monkeypatch.setenv("TWINLINE_SAMPLE_KEY_FILE", "/key")
    with pytest.raises(InvalidArgument) as refused:
        Settings.read()
    names = ("TWINLINE_SAMPLE_DATABASE_URL", "TWINLINE_SAMPLE_CERTIFICATE_FILE")
    assert refused.value.message == f"{names[0]} is not set, {names[1]} is not set; set them in the environment"
    assert refused.value.metadata["variable"] == ", ".join(names)
    with pytest.raises(InvalidArgument, match=r"_URL is not set; set it in the environment"):
        Settings.read(certificate_file="/pem")


async def test_a_loop_goes_on_after_a_failure_and_is_woken(caplog: pytest.LogCaptureFixture) -> None:
    runs, wake = 0, asyncio.Event()
    seen: asyncio.Queue[int] = asyncio.Queue()

    async def step() -> None:
        nonlocal runs
        runs += 1
        seen.put_nowait(runs)
        if runs == 2:
            raise Unavailable("not now")

    task = asyncio.ensure_future(loops.forever("test", step, every=3600, wake=wake))
    assert await seen.get() == 1
    wake.set()
    assert [await seen.get() for _ in range(2)] == [2, 3]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [record.message for record in caplog.records] == ["step failed, will retry"]


async def test_what_must_be_done_is_tried_until_it_answers(caplog: pytest.LogCaptureFixture) -> None:
    failures = [Unavailable("not now")]

    async def step() -> str:
        if failures:
            raise failures.pop()
        return "done"

    assert await loops.until_done("test", step, run="run-1") == "done"
    (told,) = [vars(record) for record in caplog.records]
    assert (told["step"], told["run"], told["failures"], told["error"]) == ("test", "run-1", 1, "not now")


async def test_what_wakes_a_loop_during_its_step_counts() -> None:
    runs, wake, done = 0, asyncio.Event(), asyncio.Event()

    async def step() -> None:
        nonlocal runs
        runs += 1
        (wake if runs == 1 else done).set()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(loops.forever("test", step, every=3600, wake=wake))
        await asyncio.wait_for(done.wait(), 5)
        task.cancel()


@pytest.mark.parametrize("turns", range(4))
async def test_a_loop_that_is_woken_and_cancelled_at_once_ends(turns: int) -> None:
    wake, ran = asyncio.Event(), asyncio.Event()

    async def step() -> None:
        ran.set()

    task = asyncio.ensure_future(loops.forever("test", step, every=3600, wake=wake))
    await ran.wait()
    await asyncio.sleep(0)
    wake.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    done, _ = await asyncio.wait({task}, timeout=1)
    task.cancel()
    assert done == {task}


async def test_a_cancellation_that_comes_with_a_failure_in_a_group_is_heard() -> None:
    async def step() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(3600))
            await asyncio.sleep(0)
            asyncio.get_running_loop().call_soon(task.cancel)
            raise Unavailable("not now")

    async def loop() -> None:
        with contextlib.suppress(ExceptionGroup):
            await step()
        loops.end_if_cancelled()

    task = asyncio.ensure_future(loop())
    await asyncio.wait({task})
    assert task.cancelled()


def test_pauses_grow_and_stay_below_half_a_minute() -> None:
    for failures, longest in ((1, 0.5), (2, 1.0), (5, 8.0), (10_000, 30.0)):
        assert longest / 2 <= loops.backoff(failures) <= longest


def test_without_an_endpoint_telemetry_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in telemetry.ENDPOINTS:
        monkeypatch.delenv(name, raising=False)
    telemetry.start("test")
    carrier: dict[str, str] = {}
    with telemetry.tracer().start_as_current_span("x"):
        telemetry.inject(carrier)
        assert (telemetry.is_on(), telemetry.current_traceparent(), carrier) == (False, "", {})
    telemetry.stop()


def test_without_an_endpoint_the_sdk_is_not_even_imported() -> None:
    code = (
        "import sys; from twinline_kit import server, telemetry; telemetry.start('x'); "
        "sys.exit('opentelemetry.sdk' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(filter(None, sys.path))})
