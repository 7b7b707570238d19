"""A launch is one trace, from the call to the runs of the boot, however much later these are; moves are counted."""

from tests.peers import otlp
from tests.peers.eventually import eventually
from tests.service.launcher.conftest import fill
from tests.service.launcher.world import Launcher, World

LAUNCH = "/twinline.launcher.v1.ServerService/LaunchServer"
START = "/twinline.executor.v1.RunService/StartRun"
STEP = "launcher step"


async def test_the_runs_of_a_boot_join_the_trace_of_its_launch(world: World) -> None:
    async with otlp.receiving() as received:
        variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": received.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "100"}
        async with world.process(world.settings(), **variables) as served:
            launcher = Launcher(served, world)
            await fill(launcher)
            await launcher.server()
            await launcher.operational()
            await eventually(lambda: {LAUNCH, START, STEP} <= {span.name for span in received.spans})
        spans = {span.name: span for span in received.spans}
    assert spans[START].trace_id == spans[LAUNCH].trace_id
    assert spans[STEP].parent_id == spans[LAUNCH].span_id


async def test_moves_are_counted_by_event_and_strandings_by_reason(world: World) -> None:
    await world.script("#!/bin/sh\nexit 1\n", "broken")
    async with otlp.receiving() as received:
        variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": received.endpoint, "OTEL_METRIC_EXPORT_INTERVAL": "100"}
        async with world.process(world.settings(), **variables) as served:
            launcher = Launcher(served, world)
            await fill(launcher)
            await launcher.template(boot=["broken"])
            await launcher.server()
            await launcher.launch()
            stranded = ("twinline.server.transitions", {"event": "strand", "reason": "SCRIPT_FAILED"})
            await eventually(lambda: stranded in received.counted)
    assert ("twinline.server.transitions", {"event": "launch"}) in received.counted
