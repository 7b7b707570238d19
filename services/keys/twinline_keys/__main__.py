"""Run the keys service until SIGTERM or SIGINT: `python -m twinline_keys`."""

from twinline_keys import app
from twinline_keys.settings import Settings
from twinline_kit.app import run_app


def main() -> None:
    """Read the settings from the environment and serve."""
    run_app(Settings, app.build)


if __name__ == "__main__":
    main()
