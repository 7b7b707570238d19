"""Run the launcher until SIGTERM or SIGINT: `python -m twinline_launcher`."""

from twinline_kit.app import run_app
from twinline_launcher import app
from twinline_launcher.settings import Settings


def main() -> None:
    """Read the settings from the environment and serve."""
    run_app(Settings, app.build)


if __name__ == "__main__":
    main()
