"""What servers are made from."""

import pytest

from tests.service.launcher.world import Launcher
from twinline.launcher.v1 import catalog_pb2 as pb
from twinline.launcher.v1 import servers_pb2
from twinline_kit.errors import Error, InvalidArgument, NotFound
from twinline_launcher.errors import DeploymentNotFound


async def test_the_same_apply_twice_changes_nothing(launcher: Launcher) -> None:
    image = pb.Image(name="debian", cloud="local", cloud_image="debian-12", generation=5)  # type: ignore[arg-type]
    first = await launcher.catalog.ApplyImage(pb.ApplyImageRequest(image=image))
    assert await launcher.catalog.ApplyImage(pb.ApplyImageRequest(image=image)) == first
    image.cloud_image = "debian-13"
    changed = await launcher.catalog.ApplyImage(pb.ApplyImageRequest(image=image))
    assert (changed.cloud_image, changed.update_time != first.update_time) == ("debian-13", True)


async def test_lists_go_through_all_by_name(launcher: Launcher) -> None:
    for name in ("c", "a", "b"):
        await launcher.catalog.ApplyDeployment(pb.ApplyDeploymentRequest(deployment=pb.Deployment(name=name)))
    found, request = [], pb.ListDeploymentsRequest(page_size=2)
    while True:
        page = await launcher.catalog.ListDeployments(request)
        found.append([each.name for each in page.deployments])
        request.page_token = page.next_page_token
        if not page.next_page_token:
            break
    assert found == [["a", "b"], ["c"]]
    assert {each.name for each in (await launcher.catalog.ListImages(pb.ListImagesRequest())).images} == {"v4", "v5"}
    groups = (await launcher.catalog.ListSecurityGroups(pb.ListSecurityGroupsRequest())).security_groups
    assert [(each.name, list(each.open_ports)) for each in groups] == [("open", [22])]
    templates = (await launcher.catalog.ListTemplates(pb.ListTemplatesRequest())).templates
    assert [each.script for template in templates for each in template.boot] == ["hello"]


async def test_a_page_token_of_another_list_is_refused(launcher: Launcher) -> None:
    token = (await launcher.catalog.ListImages(pb.ListImagesRequest(page_size=1))).next_page_token
    with pytest.raises(InvalidArgument):
        await launcher.catalog.ListTemplates(pb.ListTemplatesRequest(page_token=token))


async def test_a_description_holds_no_nul(launcher: Launcher) -> None:
    given = pb.Deployment(name="site", description="a\0b")
    with pytest.raises(InvalidArgument, match=r"deployment.description holds a NUL"):
        await launcher.catalog.ApplyDeployment(pb.ApplyDeploymentRequest(deployment=given))


async def test_a_template_with_unknown_scripts_is_refused_with_all_of_them(launcher: Launcher) -> None:
    with pytest.raises(NotFound) as refusal:
        await launcher.template("new", boot=["hello", "no-1"], operational=["no-2"], decommission=["no-1"])
    assert refusal.value.reason == "SCRIPT_NOT_FOUND"
    assert [each.subject for each in refusal.value.violations] == ["no-1", "no-2"]


async def test_a_missing_revision_of_a_script_is_not_taken_for_a_missing_script(launcher: Launcher) -> None:
    references = [pb.ScriptReference(script="hello", revision=7), pb.ScriptReference(script="no-1")]
    with pytest.raises(NotFound) as refusal:
        await launcher.catalog.ApplyTemplate(
            pb.ApplyTemplateRequest(template=pb.ServerTemplate(name="new", boot=references))
        )
    assert refusal.value.message == (
        "no script hello with revision 7: name one that was pushed, or leave it out for the newest; "
        "no script no-1: push it first"
    )


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("template", "none", "TEMPLATE_NOT_FOUND"),
        ("image", "none", "IMAGE_NOT_FOUND"),
        ("deployment", "none", "DEPLOYMENT_NOT_FOUND"),
        ("security_groups", ["none"], "SECURITY_GROUP_NOT_FOUND"),
        ("inputs", {"A": "bare"}, "INVALID_ARGUMENT"),
        ("inputs", {"UID": "text:0"}, "INVALID_ARGUMENT"),
        ("cloud_key", "a b/../c", "INVALID_ARGUMENT"),
        ("tags", ["a b"], "INVALID_ARGUMENT"),
        ("name", "a b", "INVALID_ARGUMENT"),
        ("name", "a\0b", "INVALID_ARGUMENT"),
        ("name", "server-aaaaaaaaaaaaaaaa", "INVALID_ARGUMENT"),
    ],
)
async def test_a_server_of_things_that_are_not_there_is_refused(
    launcher: Launcher, field: str, value: object, reason: str
) -> None:
    with pytest.raises(Error) as refusal:
        await launcher.server(**{field: value})  # type: ignore[arg-type]
    assert refusal.value.reason == reason


async def test_servers_of_a_deployment_that_is_not_there_are_not_listed_as_none(launcher: Launcher) -> None:
    await launcher.catalog.ApplyDeployment(pb.ApplyDeploymentRequest(deployment=pb.Deployment(name="shop")))
    await launcher.server(deployment="shop")
    shop = await launcher.servers.ListServers(servers_pb2.ListServersRequest(deployment="shop"))
    assert [each.name for each in shop.servers] == ["web-1"]
    with pytest.raises(DeploymentNotFound):
        await launcher.servers.ListServers(servers_pb2.ListServersRequest(deployment="shpo"))


async def test_what_makes_no_sense_is_refused(launcher: Launcher) -> None:
    image = pb.Image(name="a", cloud="moon", cloud_image="a")
    with pytest.raises(Error) as refusal:
        await launcher.catalog.ApplyImage(pb.ApplyImageRequest(image=image))
    assert refusal.value.reason == "CLOUD_UNKNOWN"
    with pytest.raises(InvalidArgument):
        await launcher.image("a", 3)
    with pytest.raises(InvalidArgument):
        await launcher.group(70000)
    with pytest.raises(InvalidArgument):
        await launcher.template(boot=[""])
