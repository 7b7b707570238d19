"""What a launch would be made of, and everything that would go wrong with it."""

from dataclasses import dataclass, field
from enum import StrEnum

from twinline.keys.v1 import cloud_keys_pb2
from twinline_kit.errors import Violation
from twinline_launcher.errors import PreflightRefused
from twinline_launcher.inputs import Input
from twinline_launcher.models import Deployment, Generation, Image, SecurityGroup, Server, Template
from twinline_launcher.providers import Cloud, InstanceType
from twinline_launcher.steps import Step


class Finding(StrEnum):
    """What preflight looks for. Clouds add what stands in their own way, with reasons of their own."""

    CLOUD_UNKNOWN = "CLOUD_UNKNOWN"
    KEY_MATERIAL_MISSING = "KEY_MATERIAL_MISSING"
    PUBLIC_KEY_MISSING = "PUBLIC_KEY_MISSING"
    CLOUD_KEY_UNSET = "CLOUD_KEY_UNSET"
    CLOUD_KEY_NOT_FOUND = "CLOUD_KEY_NOT_FOUND"
    PORT_22_CLOSED = "PORT_22_CLOSED"
    MACHINE_PORT_22_CLOSED = "MACHINE_PORT_22_CLOSED"
    IMAGE_UNSET = "IMAGE_UNSET"
    TEMPLATE_UNSET = "TEMPLATE_UNSET"
    INSTANCE_TYPE_UNKNOWN = "INSTANCE_TYPE_UNKNOWN"
    SCRIPT_NOT_FOUND = "SCRIPT_NOT_FOUND"
    INPUT_MISSING = "INPUT_MISSING"
    INPUT_MALFORMED = "INPUT_MALFORMED"
    INPUT_UNUSED = "INPUT_UNUSED"
    CREDENTIAL_NOT_FOUND = "CREDENTIAL_NOT_FOUND"
    GENERATION_ASSUMED = "GENERATION_ASSUMED"


@dataclass(frozen=True)
class Problem:
    """Something that would go wrong. `blocking` refuses a launch that is not forced, `fatal` any."""

    reason: str
    subject: str
    message: str
    blocking: bool = True
    fatal: bool = False


@dataclass
class Plan:
    """What a launch of `server` would freeze, as far as it could be found."""

    server: Server
    image: Image | None = None
    template: Template | None = None
    deployment: Deployment | None = None
    groups: list[SecurityGroup] = field(default_factory=list)
    cloud: Cloud | None = None
    instance_type: InstanceType | None = None
    key: cloud_keys_pb2.CloudKey | None = None
    boot: list[Step] = field(default_factory=list)
    decommission: list[Step] = field(default_factory=list)
    inputs: list[Input] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    @property
    def generation(self) -> Generation:
        """The one that the image states, else v4."""
        return Generation.V5 if self.image and self.image.generation == Generation.V5 else Generation.V4

    @property
    def generation_assumed(self) -> bool:
        """Whether the image does not state it."""
        return bool(self.image and self.image.generation == Generation.UNSPECIFIED)

    def note(self, reason: str, subject: str, message: str) -> None:
        """Note what a person should know before a launch, and refuses none."""
        self.problems.append(Problem(reason, subject, message, blocking=False))

    def find(self, reason: str, subject: str, message: str) -> None:
        """Note what refuses a launch."""
        self.problems.append(Problem(reason, subject, message))

    def find_fatal(self, reason: str, subject: str, message: str) -> None:
        """Note what leaves nothing to launch."""
        self.problems.append(Problem(reason, subject, message, fatal=True))

    def refuse(self, *, force: bool) -> None:
        """PreflightRefused with all that stands in the way of a launch, else nothing."""
        against = [each for each in self.problems if each.fatal or (each.blocking and not force)]
        if not against:
            return
        violations = [Violation(each.reason, each.subject, each.message) for each in against]
        reasons = ", ".join(dict.fromkeys(each.reason for each in against))
        # What is found is said by the violations alone: whoever shows the message shows them too.
        way_out = (
            "mend what follows" if any(each.fatal for each in against) else "mend what follows, or force the launch"
        )
        text = f"{self.server.name} would not boot as it is; {way_out}"
        raise PreflightRefused(text, violations=violations, server=self.server.name, reasons=reasons)

    def overridden(self) -> list[str]:
        """The reasons that a forced launch does not mind."""
        return list(dict.fromkeys(each.reason for each in self.problems if each.blocking))
