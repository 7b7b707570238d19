"""Doing the same to several servers: what fails is told by its name, and hides nothing of what was done."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from twinline.launcher.v1 import servers_pb2 as pb
from twinline_cli.errors import ExitCode, exit_code, in_words, say
from twinline_kit.errors import Error


@dataclass
class Acted:
    """The servers as they are after what was done to them, and how the others failed."""

    servers: list[pb.Server] = field(default_factory=list)
    failures: set[ExitCode] = field(default_factory=set)

    def code(self, afterwards: ExitCode = ExitCode.SUCCEEDED) -> ExitCode:
        """What the failures, and what came `afterwards`, have in common; FAILED when they have nothing in common."""
        codes = self.failures | ({afterwards} - {ExitCode.SUCCEEDED})
        if not codes:
            return ExitCode.SUCCEEDED
        return next(iter(codes)) if len(codes) == 1 else ExitCode.FAILED


async def act_on_each(servers: Sequence[pb.Server], act: Callable[[pb.Server], Awaitable[pb.Server]]) -> Acted:
    """Do `act` to each of `servers`. A failure of one is said, and the others go on; of the only one, it is raised."""
    done = Acted()
    for server in servers:
        try:
            done.servers.append(await act(server))
        except Error as error:
            if len(servers) == 1:
                raise
            say(f"{server.name}: {in_words(error)}")
            done.failures.add(exit_code(error))
    return done
