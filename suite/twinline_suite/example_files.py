"""The examples that people read, the docs use and the demo runs; they travel with the package."""

from pathlib import Path

FOLDER = Path(__file__).parent / "examples"


def shown_folder() -> str:
    """The folder as a person in the present folder would type it."""
    here = Path.cwd()
    if (here / "examples").resolve() == FOLDER.resolve():
        return "examples"
    return str(FOLDER.relative_to(here) if FOLDER.is_relative_to(here) else FOLDER)
