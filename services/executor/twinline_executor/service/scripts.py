"""Scripts: check, act, answer."""

import hashlib
from asyncio import to_thread

from twinline.executor.v1 import scripts_pb2 as pb
from twinline.executor.v1 import scripts_pb2_grpc as rpc
from twinline_executor import convert, headers
from twinline_executor.store.scripts import ScriptStore
from twinline_kit import pages
from twinline_kit.clock import Clock
from twinline_kit.errors import InvalidArgument
from twinline_kit.interceptors import Context

LONGEST_NAME = 255


class ScriptService(rpc.ScriptServiceServicer):
    """Scripts and their revisions."""

    def __init__(self, scripts: ScriptStore, *, clock: Clock) -> None:
        self._scripts = scripts
        self._clock = clock

    async def PushScript(self, request: pb.PushScriptRequest, context: Context) -> pb.Script:
        header = await to_thread(headers.read, request.source)
        name = (request.name or header.name).strip()
        if not name or len(name) > LONGEST_NAME or not name.isprintable():
            raise InvalidArgument("the script has no name of at most 255 printable characters; give one", field="name")
        stored = await to_thread(
            self._scripts.push, name, source=request.source, digest=_digest(request.source),
            description=header.description, inputs=header.inputs, at=self._clock(),
        )  # fmt: skip
        return convert.script(stored)

    async def GetScript(self, request: pb.GetScriptRequest, context: Context) -> pb.Script:
        return convert.script(await to_thread(self._scripts.get, request.name, request.revision))

    async def ListScripts(self, request: pb.ListScriptsRequest, context: Context) -> pb.ListScriptsResponse:
        size = pages.page_size(request.page_size)
        rows = await to_thread(self._scripts.newest, after=pages.after(request.page_token), limit=size + 1)
        page, following = pages.slice(rows, size, lambda row: row.name)
        return pb.ListScriptsResponse(scripts=[convert.script(row) for row in page], next_page_token=following)

    async def LintScript(self, request: pb.LintScriptRequest, context: Context) -> pb.LintScriptResponse:
        findings = await to_thread(headers.lint, request.source)
        header = headers.Header()
        if not any(found.error for found in findings):
            header = await to_thread(headers.read, request.source)
        script = convert.read_script(header, request.source, _digest(request.source))
        return pb.LintScriptResponse(script=script, findings=[convert.finding(found) for found in findings])


def _digest(source: bytes) -> str:
    return hashlib.sha256(source).hexdigest()
