"""What the demo does, chapter by chapter, through the same calls that anybody can make."""

import asyncio
import hashlib
import time
import uuid
from collections.abc import Sequence

import grpc.aio
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from twinline.executor.v1 import runs_pb2, runs_pb2_grpc
from twinline.keys.v1 import cloud_keys_pb2, cloud_keys_pb2_grpc
from twinline.launcher.v1 import servers_pb2 as pb
from twinline.launcher.v1 import servers_pb2_grpc as rpc
from twinline_cli.apply import apply_all
from twinline_cli.following import follow
from twinline_cli.manifests import load
from twinline_cli.paging import every
from twinline_cli.results import ending, line, read, task_state, tasks_of
from twinline_cli.server_view import dollars
from twinline_cli.terminal import DIM, GREEN, RED, YELLOW, one_line
from twinline_kit.errors import FailedPrecondition
from twinline_suite import example_files
from twinline_suite.demo.failure import DemoFailed
from twinline_suite.demo.narrator import Narrator
from twinline_suite.demo.record import Record, Stranded
from twinline_suite.demo.watcher import Watcher, watching

V4, V5, STRAY = SERVERS = ("web-v4", "web-v5", "stray-v4")
HELD, FOUND = "held-key", "found-key"
KEY_OF = {V4: HELD, V5: FOUND, STRAY: FOUND}
SCRIPT = "greet-visitor"
SELECTOR = "deployment:demo and state:operational"
MISSING = "KEY_MATERIAL_MISSING"

BOOT_LIMIT = 120.0
RUN_LIMIT = 60.0
END_LIMIT = 240.0
_COST_LIMIT = 20.0
_PAUSE = 0.2


class Story:
    """One telling. Each method is a chapter; DemoFailed when something is not as it should be."""

    def __init__(self, channel: grpc.aio.Channel, narrator: Narrator, record: Record) -> None:
        self._channel = channel
        self._keys = cloud_keys_pb2_grpc.CloudKeyServiceStub(channel)
        self._servers = rpc.ServerServiceStub(channel)
        self._runs = runs_pb2_grpc.RunServiceStub(channel)
        self._tell = narrator
        self._record = record
        self._found_pair = Ed25519PrivateKey.generate()

    async def tell(self) -> None:
        """All of it."""
        await self._make_keys()
        await self._define()
        async with watching(self._channel, SERVERS, self._tell.came_to) as watcher:
            await self._launch(watcher)
            await self._show_stranding(watcher)
            await self._run_on_both_lines()
            await self._resume(watcher)
            await self._end_all(watcher)
        await self._look_back()

    async def _make_keys(self) -> None:
        self._tell.chapter("Two keys")
        made = await self._keys.CreateCloudKey(
            cloud_keys_pb2.CreateCloudKeyRequest(name=HELD, request_id=str(uuid.uuid4()))
        )
        public = self._found_pair.public_key().public_bytes(
            serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        )
        found = await self._keys.ImportCloudKey(
            cloud_keys_pb2.ImportCloudKeyRequest(name=FOUND, public_key=public.decode(), request_id=str(uuid.uuid4()))
        )
        self._require("make the keys", made.has_material and not found.has_material, "the halves are not as asked for")
        self._tell.fact(HELD, "made here; its private half is sealed and never leaves the keys service", code=GREEN)
        self._tell.fact(FOUND, "made elsewhere; only its public half is known", code=YELLOW)

    async def _define(self) -> None:
        self._tell.chapter("One template, three servers")
        documents = load(example_files.FOLDER / "catalog.yaml", example_files.FOLDER / "demo.yaml")
        async for _ in apply_all(self._channel, documents):
            pass
        self._tell.fact(V4, f"v4 image, {HELD}: scripts travel over SSH")
        self._tell.fact(V5, f"v5 image, {FOUND}: scripts travel on the agent's own outbound stream")
        self._tell.fact(STRAY, f"v4 image, {FOUND}: nobody can log in")

    async def _launch(self, watcher: Watcher) -> None:
        self._tell.chapter("Launch")
        for name in SERVERS:
            found = await self._servers.PreflightServer(pb.PreflightServerRequest(server=name))
            self._tell_preflight(name, found.violations)
        await self._refuse(STRAY)
        self._tell.space()
        for name in SERVERS:
            request = pb.LaunchServerRequest(server=name, request_id=str(uuid.uuid4()), force=name == STRAY)
            watcher.note(await self._servers.LaunchServer(request))
        wanted = {
            V4: pb.SERVER_STATE_OPERATIONAL,
            V5: pb.SERVER_STATE_OPERATIONAL,
            STRAY: pb.SERVER_STATE_STRANDED_IN_BOOTING,
        }
        await watcher.until("boot the servers", wanted, BOOT_LIMIT)
        for name in (V4, V5):
            steps = (await self._get(name)).current.steps
            self._require(
                "boot the servers",
                len(steps) == 2 and all(step.state == pb.Step.STATE_SUCCEEDED for step in steps),
                f"{name} is operational without two boot scripts that succeeded",
            )

    def _tell_preflight(self, name: str, violations: Sequence[pb.Violation]) -> None:
        if not violations:
            self._tell.fact(name, "preflight finds nothing in the way", code=GREEN)
            return
        self._record.add_preflight(name, violations)
        for each in violations:
            refuses = "refuses: " if each.blocking else "warns: "
            self._tell.fact(
                name, f"preflight {refuses}{each.reason}, {each.message}", code=RED if each.blocking else YELLOW
            )

    async def _refuse(self, name: str) -> None:
        """Launch without --force, which must be refused for the key's sake."""
        step = "refuse the launch"
        try:
            await self._servers.LaunchServer(pb.LaunchServerRequest(server=name, request_id=str(uuid.uuid4())))
        except FailedPrecondition as refusal:
            reasons = {each.reason for each in refusal.violations}
            self._require(step, MISSING in reasons, f"{name} is refused, but not for {MISSING}: {refusal.message}")
            self._tell.fact(name, "its launch is refused; it is launched with --force all the same", code=DIM)
            return
        raise DemoFailed(step, f"{name} was launched although its key has no private half")

    async def _show_stranding(self, watcher: Watcher) -> None:
        self._tell.chapter("Stranded, and it costs money")
        why = watcher.latest[STRAY].current.stranding
        self._require("strand", why.reason == MISSING, f"{STRAY} is stranded for {why.reason}, not for {MISSING}")
        self._record.stranded = Stranded(STRAY, why.reason, why.failed_step)
        self._tell.fact(STRAY, f"{why.reason} at {why.failed_step}: {why.message}", code=RED)
        cost = await self._cost_that_runs()
        price, so_far = dollars(cost.hourly_micros, cost.currency), dollars(cost.stranded_micros, cost.currency)
        self._tell.fact("cost", f"{price} an hour; {so_far} so far for nothing, and counting", code=YELLOW)
        self._tell.fact("way out", why.way_out)

    async def _cost_that_runs(self) -> pb.Cost:
        """What the stranded server cost, once that was seen to grow."""
        first = (await self._get(STRAY)).current.cost.stranded_micros
        deadline = time.monotonic() + _COST_LIMIT
        while time.monotonic() < deadline:
            cost = (await self._get(STRAY)).current.cost
            if cost.stranded_micros > first:
                return cost
            await asyncio.sleep(_PAUSE)
        raise DemoFailed("show the cost", f"the cost of {STRAY} does not grow while it is stranded")

    async def _run_on_both_lines(self) -> None:
        step = "run on both lines"
        self._tell.chapter("One script, both lines")
        self._tell.say(f"twinline run {SCRIPT} --on '{SELECTOR}' --input VISITOR=text:Ada")
        self._tell.space()
        started = await self._runs.StartRun(
            runs_pb2.StartRunRequest(
                request_id=str(uuid.uuid4()), script=SCRIPT, selector=SELECTOR, inputs={"VISITOR": "text:Ada"}
            )
        )
        try:
            async with asyncio.timeout(RUN_LIMIT):
                run = await follow(self._channel, started.id, live=False)
        except TimeoutError:
            raise DemoFailed(step, f"{started.id} has not ended within {RUN_LIMIT:g} s") from None
        tasks = sorted(await tasks_of(self._channel, run.id), key=lambda task: SERVERS.index(task.target_name))
        outputs = [await read(self._channel, task) for task in tasks]
        self._record.add_run(run, tasks, outputs)
        self._check_run(step, tasks, outputs)
        titles = [f"{task.target_name} · {line(task)} · {ending(task)}" for task in tasks]
        self._tell.side_by_side(titles, outputs)
        self._tell.space()
        self._tell.verdict(f"equal, byte for byte (SHA-256 {tasks[0].output_sha256[:16]}…)", good=True)

    def _check_run(self, step: str, tasks: Sequence[runs_pb2.Task], outputs: Sequence[bytes]) -> None:
        carried = [(task.target_name, line(task)) for task in tasks]
        self._require(step, carried == [(V4, "ssh"), (V5, "agent")], f"it ran on {carried}")
        for task, output in zip(tasks, outputs, strict=True):
            ended = f"{task.target_name} {task_state(task)} {ending(task)} {task.message}"
            self._require(step, task.state == runs_pb2.Task.STATE_SUCCEEDED and task.exit_status == 0, ended)
            is_same = hashlib.sha256(output).hexdigest() == task.output_sha256
            self._require(step, is_same, f"the stored output of {task.target_name} is not what its digest says")
        self._require(step, bool(outputs[0]) and outputs[0] == outputs[1], "the two outputs differ")

    async def _resume(self, watcher: Watcher) -> None:
        step = "resume the stranded server"
        self._tell.chapter("The missing half turns up")
        private = self._found_pair.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )
        key = await self._keys.UploadCloudKeyMaterial(
            cloud_keys_pb2.UploadCloudKeyMaterialRequest(key=FOUND, private_key=private)
        )
        self._require(step, key.has_material, f"{FOUND} has no private half after its upload")
        self._tell.fact(FOUND, "its private half is uploaded, found to belong to it, and sealed", code=GREEN)
        self._tell.space()
        before = watcher.latest[STRAY].current.id
        request = pb.ResumeServerRequest(server=STRAY, request_id=str(uuid.uuid4()))
        watcher.note(await self._servers.ResumeServer(request))
        await watcher.until(step, {STRAY: pb.SERVER_STATE_OPERATIONAL}, BOOT_LIMIT)
        self._require(step, watcher.latest[STRAY].current.id == before, f"{STRAY} was launched anew")
        if self._record.stranded is not None:
            self._record.stranded.resumed = True

    async def _end_all(self, watcher: Watcher) -> None:
        step = "end the servers"
        self._tell.chapter("Decommission and terminate")
        for name in SERVERS:
            request = pb.TerminateServerRequest(server=name, request_id=str(uuid.uuid4()))
            watcher.note(await self._servers.TerminateServer(request))
        await watcher.until(step, dict.fromkeys(SERVERS, pb.SERVER_STATE_TERMINATED), END_LIMIT)
        runs = await every(self._runs.ListRuns, runs_pb2.ListRunsRequest(), "runs")
        retired = [run for run in runs if run.script == "retire-site" and run.state == runs_pb2.Run.STATE_SUCCEEDED]
        self._require(step, len(retired) == len(SERVERS), f"only {len(retired)} decommission scripts succeeded")
        self._tell.space()
        for run in retired:
            (task,) = await tasks_of(self._channel, run.id)
            said = one_line((await read(self._channel, task)).decode(errors="replace"))
            self._tell.fact(task.target_name, f"{run.script} over {line(task)}: {said}", code=GREEN)

    async def _look_back(self) -> None:
        for name in SERVERS:
            history = await every(self._servers.ListTransitions, pb.ListTransitionsRequest(server=name), "transitions")
            self._record.add_server(await self._get(name), KEY_OF[name], history)

    async def _get(self, name: str) -> pb.Server:
        return await self._servers.GetServer(pb.GetServerRequest(server=name))

    def _require(self, step: str, is_so: bool, otherwise: str) -> None:
        if not is_so:
            raise DemoFailed(step, otherwise)
