"""People, as other services and they themselves are told of them."""

from twinline.keys.v1 import people_pb2 as pb
from twinline.keys.v1 import people_pb2_grpc as rpc
from twinline_keys import convert
from twinline_kit.auth import TokenVerifier, caller


class PeopleService(rpc.PeopleServiceServicer):
    """Tells other services, and people themselves, whose token it is."""

    def __init__(self, tokens: TokenVerifier) -> None:
        self._tokens = tokens

    async def Authenticate(self, request: pb.AuthenticateRequest, context: object) -> pb.Person:
        return convert.person(await self._tokens.verify(request.token))

    async def WhoAmI(self, request: pb.WhoAmIRequest, context: object) -> pb.Person:
        return convert.person(caller())
