"""From a plan to the machine's first row, with everything frozen that a launch freezes."""

from dataclasses import asdict
from datetime import datetime

from twinline_kit import telemetry
from twinline_kit.ids import new_id
from twinline_launcher import steps
from twinline_launcher.models import Instance
from twinline_launcher.plan import Plan
from twinline_launcher.states import State


def cause(plan: Plan, who: str, *, force: bool) -> str:
    """Why the machine is launched, in words."""
    against = plan.overridden() if force else []
    return f"launched by {who}" + (f", in spite of {', '.join(against)}" if against else "")


def instance(plan: Plan, *, at: datetime) -> Instance:
    """A new machine as `plan` says. Only for plans without a fatal problem."""
    server, image, key, sold = plan.server, plan.image, plan.key, plan.instance_type
    if image is None or key is None or sold is None:
        raise ValueError("a plan with fatal problems was launched")
    return Instance(
        id=new_id("instance"), server_id=server.id, server_name=server.name,
        state=State.PENDING, state_time=at, cause="",
        deployment=server.deployment, tags=server.tags, template=server.template, image=image.name,
        cloud=image.cloud, cloud_image=image.cloud_image,
        generation=plan.generation, generation_assumed=plan.generation_assumed,
        instance_type=sold.name, hourly_micros=sold.hourly_micros, currency=sold.currency,
        cloud_key=key.id, cloud_key_name=key.name, public_key=key.public_key,
        security_groups=server.security_groups, inputs=[asdict(each) for each in plan.inputs],
        traceparent=telemetry.current_traceparent(), launch_time=at,
        boot=steps.dump(plan.boot), decommission=steps.dump(plan.decommission),
    )  # fmt: skip
