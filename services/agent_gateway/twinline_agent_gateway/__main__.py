"""Run the agent gateway until SIGTERM or SIGINT: `python -m twinline_agent_gateway`."""

from twinline_agent_gateway import app
from twinline_agent_gateway.settings import Settings
from twinline_kit.app import run_app


def main() -> None:
    """Read the settings from the environment and serve."""
    run_app(Settings, app.build)


if __name__ == "__main__":
    main()
