"""Where the process begins. Nothing is imported here, so that Ctrl-C finds us ready from the first moment on."""

import sys

_INTERRUPTED = 130


def main() -> None:
    """The entry point of the console script."""
    try:
        from twinline_cli import main as command

        command.main()
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
