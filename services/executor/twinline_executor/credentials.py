"""Opens the credentials of runs for their scripts, and keeps the values out of their output."""

import asyncio
from collections.abc import Collection, Mapping, Sequence

import grpc.aio

from twinline.keys.v1 import credentials_pb2 as pb
from twinline.keys.v1 import credentials_pb2_grpc as rpc
from twinline_executor.active import ActiveRun
from twinline_executor.errors import CredentialMalformed
from twinline_executor.reasons import TaskReason
from twinline_executor.recorder import Recorder
from twinline_executor.rows import Run
from twinline_executor.signer import is_refusal
from twinline_executor.store.runs import RunStore
from twinline_kit import values
from twinline_kit.errors import Error, NotFound, Violation
from twinline_kit.loops import backoff

CHECKING = 5.0
"""Seconds that whoever starts a run waits for the keys service to name its credentials."""
LISTED_AT_ONCE = 1000


class Credentials:
    """The executor's side of the keys service's credentials."""

    def __init__(self, keys: grpc.aio.Channel, runs: RunStore, recorder: Recorder, *, unknown_after: float) -> None:
        """`unknown_after` is how many seconds a running task may be out of sight before its state is UNKNOWN."""
        self._keys = rpc.CredentialServiceStub(keys)
        self._runs = runs
        self._recorder = recorder
        self._unknown_after = unknown_after

    async def check(self, run: Run) -> None:
        """Refuse a run whose inputs name credentials that are not set.

        Opens nothing. While the keys service cannot say, nothing is refused: the run's tasks wait for it.
        """
        missing = _names(run)
        request = pb.ListCredentialsRequest(page_size=LISTED_AT_ONCE)
        try:
            async with asyncio.timeout(CHECKING):
                while missing:
                    page = await self._keys.ListCredentials(request)
                    missing -= {credential.name for credential in page.credentials}
                    request.page_token = page.next_page_token
                    if missing and not request.page_token:
                        raise _not_found(sorted(missing))
        except TimeoutError:
            pass
        except Error as error:
            if is_refusal(error):
                raise

    async def open(self, run: ActiveRun) -> Mapping[str, str] | None:
        """The values that a run's inputs need, masked in its output from now on; None when nothing is left to do.

        Raises CredentialNotFound, CredentialMalformed, and whatever else the keys service refuses for good.
        """
        opened = await self._answer(run, _names(run.run))
        if opened is None:
            return None
        await self._mask(run, [opened])
        return {name: _text(name, value) for name, value in opened.values.items()}

    async def mask(self, run: ActiveRun) -> None:
        """Mask all that can be opened still, where nothing will be delivered any more but output is followed."""
        opened: list[pb.OpenCredentialsResponse] = []
        lost: list[str] = []
        for name in sorted(_names(run.run)):
            try:
                answer = await self._answer(run, {name})
            except Error:
                lost.append(name)
            else:
                if answer is None:
                    return
                opened.append(answer)
        await self._mask(run, opened, lost)

    async def _mask(
        self, run: ActiveRun, opened: Collection[pb.OpenCredentialsResponse], lost: Collection[str] = ()
    ) -> None:
        run.share_secrets([value for answer in opened for value in answer.values.values()])
        versions = {name: at.ToJsonString() for answer in opened for name, at in answer.update_times.items()}
        # Noted before anything is delivered: a replica that follows the run later must know which value it hides.
        first = await asyncio.to_thread(self._runs.first_opened, run.run.id, versions) if versions else {}
        changed = [name for name, version in versions.items() if first[name] != version]
        if lost or changed:
            run.mask_everything("output is masked whole from where it was followed anew: " + _why(lost, changed))

    async def _answer(self, run: ActiveRun, names: Collection[str]) -> pb.OpenCredentialsResponse | None:
        """These credentials; None when the time to reach hosts, or the run, was over before the service answered."""
        failures = 0
        while names:
            try:
                return await self._keys.OpenCredentials(pb.OpenCredentialsRequest(names=sorted(names)))
            except Error as error:
                if is_refusal(error):
                    raise
                self._unavailable(run, error)
                if run.settled():
                    return None
                failures += 1
                await asyncio.sleep(backoff(failures))
        return pb.OpenCredentialsResponse()

    def _unavailable(self, run: ActiveRun, error: Error) -> None:
        message = f"the keys service does not answer: {error.message}"
        for task in list(run.tasks.values()):
            if not task.settled and task.out_of_reach(
                TaskReason.KEYS_UNAVAILABLE, message, unknown_after=self._unknown_after
            ):
                self._recorder.note(task)


def _names(run: Run) -> set[str]:
    parsed = [values.parse(text) for text in run.inputs.values()]
    return {name for value in parsed if value is not None for name in value.credentials()}


def _not_found(names: Sequence[str]) -> Error:
    violations = [Violation("CREDENTIAL_NOT_FOUND", name, f"no credential {name}") for name in names]
    message = f"no credential {', '.join(names)}: set it before the run"
    error = NotFound(message, violations=violations, credentials=" ".join(names))
    error.reason = "CREDENTIAL_NOT_FOUND"  # the class is the keys service's
    return error


def _why(lost: Collection[str], changed: Collection[str]) -> str:
    reasons = []
    if lost:
        reasons.append(f"credential {', '.join(lost)} cannot be opened")
    if changed:
        reasons.append(f"credential {', '.join(changed)} was set anew meanwhile, and the value before is not known")
    return "; ".join(reasons)


def _text(name: str, value: bytes) -> str:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise CredentialMalformed(
            f"credential {name} is not text; store it encoded, such as in base64", credential=name
        )
    return text
