"""Run the executor until SIGTERM or SIGINT: `python -m twinline_executor`."""

from twinline_executor import app
from twinline_executor.settings import Settings
from twinline_kit.app import run_app


def main() -> None:
    """Read the settings from the environment and serve."""
    run_app(Settings, app.build)


if __name__ == "__main__":
    main()
