"""What a launch would be made of, and what would go wrong, before money is spent.

Everything is looked at, so that all of it can be mended at once. A launch may be forced in spite of what is blocking;
not in spite of what leaves nothing to launch.
"""

import difflib
from asyncio import to_thread
from collections.abc import Iterable, Mapping, Sequence

import grpc.aio

from twinline.executor.v1 import scripts_pb2, scripts_pb2_grpc
from twinline.keys.v1 import cloud_keys_pb2, cloud_keys_pb2_grpc, credentials_pb2, credentials_pb2_grpc
from twinline_kit.errors import NotFound
from twinline_kit.values import faults
from twinline_launcher import inputs, providers
from twinline_launcher.errors import no_script
from twinline_launcher.inputs import Declaration
from twinline_launcher.models import Deployment, Generation, Image, Instance, SecurityGroup, Server, Template
from twinline_launcher.plan import Finding, Plan
from twinline_launcher.providers import Clouds
from twinline_launcher.states import REACHABLE
from twinline_launcher.steps import Step
from twinline_launcher.store.catalog import CatalogStore

SSH = 22


class Preflight:
    """Makes plans, and asks keys and the executor for what they need."""

    def __init__(
        self, catalog: CatalogStore, clouds: Clouds, *, keys: grpc.aio.Channel, executor: grpc.aio.Channel
    ) -> None:
        self._catalog = catalog
        self._clouds = clouds
        self._keys = cloud_keys_pb2_grpc.CloudKeyServiceStub(keys)
        self._credentials = credentials_pb2_grpc.CredentialServiceStub(keys)
        self._scripts = scripts_pb2_grpc.ScriptServiceStub(executor)

    async def look(self, server: Server, given: Mapping[str, str]) -> Plan:
        """The plan of a launch of `server` with the inputs `given`, and its problems."""
        plan = await to_thread(self._read_catalog, server)
        self._look_at_image(plan)
        await self._look_at_cloud(plan)
        await self._look_at_key(plan)
        self._look_at_groups(plan)
        await self._look_at_scripts(plan, given)
        return plan

    async def look_at_machine(self, plan: Plan, machine: Instance | None) -> None:
        """Note when scripts cannot reach the machine that the server has now, whose groups no definition changes."""
        if machine is None or machine.generation == Generation.V5 or machine.state not in REACHABLE:
            return
        groups = await to_thread(self._catalog.find, SecurityGroup, machine.security_groups)
        if any(SSH in each.open_ports for each in groups.values()):
            return
        name, way_out = plan.server.name, "terminate it, and launch again with a group that opens port 22"
        if groups:
            way_out = f"open it in {' or '.join(machine.security_groups)}, or {way_out}"
        text = (
            f"the present machine of {name} was launched without a group that opens port 22, and keeps its groups: "
            f"{way_out}"
        )
        plan.note(Finding.MACHINE_PORT_22_CLOSED, name, text)

    def _read_catalog(self, server: Server) -> Plan:
        return Plan(
            server,
            self._catalog.find(Image, [server.image]).get(server.image),
            self._catalog.find(Template, [server.template]).get(server.template),
            self._catalog.find(Deployment, [server.deployment]).get(server.deployment),
            list(self._catalog.find(SecurityGroup, server.security_groups).values()),
        )

    def _look_at_image(self, plan: Plan) -> None:
        server, image = plan.server, plan.image
        if image is None:
            plan.find_fatal(Finding.IMAGE_UNSET, server.name, f"server {server.name} has no image: give it one")
            return
        if plan.generation_assumed:
            text = f"image {image.name} does not state its generation: treated as v4; state v4 or v5 on the image"
            plan.note(Finding.GENERATION_ASSUMED, image.name, text)
        plan.cloud = self._clouds.get(image.cloud)
        if plan.cloud is None:
            plan.find_fatal(
                Finding.CLOUD_UNKNOWN, image.cloud, f"this launcher has no cloud {image.cloud}: choose another image"
            )
            return
        plan.instance_type = providers.instance_type(plan.cloud, server.instance_type)
        if plan.instance_type is None:
            sold = ", ".join(each.name for each in plan.cloud.instance_types)
            text = f"cloud {image.cloud} has no instance type {server.instance_type}: choose one of {sold}"
            plan.find_fatal(Finding.INSTANCE_TYPE_UNKNOWN, server.instance_type, text)

    @staticmethod
    async def _look_at_cloud(plan: Plan) -> None:
        for each in await plan.cloud.obstacles(plan.generation) if plan.cloud else ():
            plan.find_fatal(each.reason, each.subject, each.message)

    async def _look_at_key(self, plan: Plan) -> None:
        wanted = plan.server.cloud_key
        if not wanted:
            text = f"server {plan.server.name} has no cloud key: clouds want one for either generation; choose one"
            plan.find_fatal(Finding.CLOUD_KEY_UNSET, plan.server.name, text)
            return
        try:
            key = plan.key = await self._keys.GetCloudKey(cloud_keys_pb2.GetCloudKeyRequest(key=wanted))
        except NotFound:
            text = f"no cloud key {wanted}: create or import it, or choose another one for the server"
            plan.find_fatal(Finding.CLOUD_KEY_NOT_FOUND, wanted, text)
            return
        if plan.generation is Generation.V5:
            return  # a v5 machine is given the key, and nothing uses it
        if not key.has_material:
            text = (
                f"the private half of cloud key {key.name} is not here, so nothing could log in to a v4 server: "
                f"`twinline keys upload-material {key.name} FILE`"
            )
            plan.find(Finding.KEY_MATERIAL_MISSING, key.name, text)
        if not key.public_key:
            text = f"only the fingerprint of cloud key {key.name} is known, and machines need more: upload its material"
            plan.find(Finding.PUBLIC_KEY_MISSING, key.name, text)

    @staticmethod
    def _look_at_groups(plan: Plan) -> None:
        if plan.image is None or plan.generation is Generation.V5:
            return
        if any(SSH in each.open_ports for each in plan.groups):
            return
        name, groups = plan.server.name, plan.server.security_groups
        if groups:
            text = f"no security group of server {name} opens port 22: open it in {' or '.join(groups)}"
        else:
            text = f"server {name} has no security group: give it one that opens port 22"
        plan.find(Finding.PORT_22_CLOSED, name, f"{text}; scripts reach a v4 server through it")

    async def _look_at_scripts(self, plan: Plan, given: Mapping[str, str]) -> None:
        if plan.template is None:
            plan.find_fatal(
                Finding.TEMPLATE_UNSET, plan.server.name, f"server {plan.server.name} has no template: give it one"
            )
            return
        lists = (plan.template.boot, plan.template.operational, plan.template.decommission)
        boot, operational, decommission = [await self._read(plan, each) for each in lists]
        plan.boot = [_step(script) for script in boot] or [Step("", 0)]
        plan.decommission = [_step(script) for script in decommission]
        layers = {
            inputs.TEMPLATE: plan.template.inputs,
            inputs.DEPLOYMENT: plan.deployment.inputs if plan.deployment else {},
            inputs.SERVER: plan.server.inputs,
            inputs.LAUNCH: given,
        }
        scripts = {script.name: _declared(script) for script in (*boot, *decommission)}
        plan.inputs = inputs.resolve([each for declared in scripts.values() for each in declared], layers)
        values = {each.name: each.value for each in plan.inputs if each.origin != inputs.SCRIPT}
        for script, declared in scripts.items():
            _look_at_inputs(plan, script, declared, values)
        if len([*boot, *operational, *decommission]) == sum(map(len, lists)):
            asked = {each.name: script.name for script in operational for each in script.inputs}
            _look_for_unused(plan, given, {each.name for declared in scripts.values() for each in declared}, asked)
        await self._look_at_credentials(plan)

    async def _read(self, plan: Plan, references: Iterable[Mapping[str, str | int]]) -> list[scripts_pb2.Script]:
        found = []
        for reference in references:
            name, revision = str(reference["script"]), int(reference["revision"])
            try:
                found.append(await self._scripts.GetScript(scripts_pb2.GetScriptRequest(name=name, revision=revision)))
            except NotFound:
                plan.find_fatal(Finding.SCRIPT_NOT_FOUND, name, f"{no_script(name, revision)}, or change the template")
        return found

    async def _look_at_credentials(self, plan: Plan) -> None:
        wanted = inputs.credentials(each.value for each in plan.inputs)
        if not wanted:
            return
        request = credentials_pb2.ListCredentialsRequest(page_size=1000)
        while wanted:
            page = await self._credentials.ListCredentials(request)
            wanted -= {credential.name for credential in page.credentials}
            request.page_token = page.next_page_token
            if not page.next_page_token:
                break
        for name in sorted(wanted):
            text = f"an input refers to credential {name}, which is not set: `twinline credentials set {name}`"
            plan.find(Finding.CREDENTIAL_NOT_FOUND, name, text)


def _look_at_inputs(plan: Plan, script: str, declared: Sequence[Declaration], values: Mapping[str, str]) -> None:
    for name in inputs.missing(declared, values):
        plan.find(Finding.INPUT_MISSING, name, f"script {script} needs input {name}: give it as {name}=text:VALUE")
    for name, choices in inputs.impossible(declared, values):
        plan.find(Finding.INPUT_MALFORMED, name, f"script {script} takes as input {name} one of {choices}")
    taken = {each.name: values[each.name] for each in declared if each.name in values}
    for name, fault in faults(taken):
        plan.find(Finding.INPUT_MALFORMED, name, f"script {script} cannot be given what it takes: {fault}")


def _look_for_unused(plan: Plan, given: Mapping[str, str], declared: set[str], asked: Mapping[str, str]) -> None:
    """Values that nothing takes, most often for a slip in the name. A deployment's are for many servers: left out.

    `asked`: the inputs of operational scripts, each with its script, which are given with every run alone.
    """
    template = plan.template.inputs if plan.template else {}
    for name in sorted({*template, *plan.server.inputs, *given} - declared):
        near = difflib.get_close_matches(name, sorted(declared), n=1)
        if name in asked:
            hint = f"operational script {asked[name]} is given its inputs with each run"
        else:
            hint = f"did you mean {near[0]}?" if near else "leave it out, or let one of them declare it"
        plan.note(Finding.INPUT_UNUSED, name, f"no boot or decommission script takes {name}; {hint}")


def _declared(script: scripts_pb2.Script) -> list[Declaration]:
    return [Declaration(each.name, each.required, each.default, tuple(each.possible_values)) for each in script.inputs]


def _step(script: scripts_pb2.Script) -> Step:
    return Step(script.name, script.revision, tuple(each.name for each in script.inputs))
