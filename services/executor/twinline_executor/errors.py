"""What the executor refuses, each with its own reason."""

from twinline_kit.errors import FailedPrecondition, InvalidArgument, NotFound


class SelectionEmpty(FailedPrecondition):
    """A run would have no target."""

    reason = "SELECTION_EMPTY"


class SelectorMalformed(InvalidArgument):
    """A selector cannot be read; metadata has its column."""

    reason = "SELECTOR_MALFORMED"


class ScriptNotFound(NotFound):
    """No script, or no revision of it, has this name."""

    reason = "SCRIPT_NOT_FOUND"


class ScriptHeaderMalformed(InvalidArgument):
    """A script's metadata comment cannot be read; metadata has the line."""

    reason = "SCRIPT_HEADER_MALFORMED"


class ScriptTooLarge(InvalidArgument):
    """A script is larger than what travels to hosts."""

    reason = "SCRIPT_TOO_LARGE"


class InputMissing(FailedPrecondition):
    """Required inputs have no value; each is a violation."""

    reason = "INPUT_MISSING"


class InputMalformed(InvalidArgument):
    """Inputs have names or values that cannot be used; each is a violation."""

    reason = "INPUT_MALFORMED"


class InputUnknown(InvalidArgument):
    """Inputs have names that the script's header does not declare; each is a violation."""

    reason = "INPUT_UNKNOWN"


class InputTooLarge(InvalidArgument):
    """With its credentials opened, an input, or all together, are larger than what hosts take."""

    reason = "INPUT_TOO_LARGE"


class TargetNotFound(NotFound):
    """No target has this name or id."""

    reason = "TARGET_NOT_FOUND"


class TargetDeleted(FailedPrecondition):
    """The id belonged to a target that was deleted, and is never used again."""

    reason = "TARGET_DELETED"


class TargetNameTaken(FailedPrecondition):
    """Another target has this name."""

    reason = "TARGET_NAME_TAKEN"


class RunNotFound(NotFound):
    """No run has this id."""

    reason = "RUN_NOT_FOUND"


class TaskNotFound(NotFound):
    """No task has this id."""

    reason = "TASK_NOT_FOUND"


class IllegalTransition(FailedPrecondition):
    """A task in this state cannot go this way."""

    reason = "TASK_STATE_ILLEGAL"


class CredentialMalformed(FailedPrecondition):
    """A credential cannot be the value of an environment variable."""

    reason = "CREDENTIAL_MALFORMED"
