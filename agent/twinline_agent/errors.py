"""What ends the agent. Everything else is waited out."""


class Fatal(Exception):
    """Nothing that waiting would cure. The message is the one line that the operator sees."""

    exit_status = 1
    """Of the process."""


class Unusable(Fatal):
    """The host or the configuration cannot be worked with."""

    exit_status = 2


class Refused(Fatal):
    """The gateway knows this agent and does not want it, or does not know it and never will."""

    exit_status = 3
