"""How a demo ends that does not show what it should."""


class DemoFailed(Exception):
    """Something was not so. `step` says what the demo was about, the message why it went wrong."""

    def __init__(self, step: str, why: str) -> None:
        super().__init__(f"{step}: {why}")
        self.step = step
        self.why = why
