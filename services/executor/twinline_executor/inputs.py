"""Inputs: what a script gets as environment variables. Their value syntax is the kit's `values`.

What depends on a server, such as `env:`, is resolved by whoever owns the server.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

from twinline_executor.errors import InputMalformed, InputMissing, InputTooLarge, InputUnknown
from twinline_kit import values
from twinline_kit.errors import Violation

MAX_ENV = values.LARGEST_TOTAL - 4096  # what both lines carry, less what each task adds of its own


@dataclass(frozen=True)
class Declaration:
    """An input that a script says it takes."""

    name: str
    category: str = ""
    description: str = ""
    required: bool = False
    advanced: bool = False
    default: str = ""  # in value syntax; empty: none
    possible_values: tuple[str, ...] = ()
    detected: bool = False


@dataclass
class Problems:
    """Everything wrong with a set of inputs, said at once."""

    missing: list[Violation] = field(default_factory=list)
    malformed: list[Violation] = field(default_factory=list)
    unknown: list[Violation] = field(default_factory=list)

    def raise_if_any(self) -> None:
        """Raise for what is malformed, then for what is not known, then for what is missing."""
        if self.malformed:
            first = self.malformed[0]
            raise InputMalformed(first.message, violations=self.malformed, input=first.subject)
        if self.unknown:
            first = self.unknown[0]
            raise InputUnknown(first.message, violations=self.unknown, input=first.subject)
        if self.missing:
            names = ", ".join(problem.subject for problem in self.missing)
            raise InputMissing(
                f"required inputs have no value: {names}; give each as NAME=text:VALUE",
                violations=self.missing,
                inputs=names,
            )


def resolve(declarations: Sequence[Declaration], given: Mapping[str, str], *, complete: bool = False) -> dict[str, str]:
    """The inputs of a run in value syntax, defaults filled in. `complete`: no other inputs than these are taken.

    Raises InputMalformed, InputUnknown or InputMissing with all of it.
    """
    problems = Problems()
    if complete:
        declared = {declaration.name for declaration in declarations}
        problems.unknown = [_unknown(name, declared) for name in sorted(given.keys() - declared)]
    resolved = dict(given)
    for declaration in declarations:
        value = resolved.setdefault(declaration.name, declaration.default)
        if not value:
            del resolved[declaration.name]
        if declaration.required and value in ("", "ignore"):
            problems.missing.append(
                Violation("INPUT_MISSING", declaration.name, f"input {declaration.name} is required")
            )
        elif value and declaration.possible_values and value not in declaration.possible_values:
            choices = ", ".join(declaration.possible_values)
            _malformed(problems, declaration.name, f"is none of {choices}")
    problems.malformed += [Violation("INPUT_MALFORMED", name, fault) for name, fault in values.faults(resolved)]
    problems.raise_if_any()
    return resolved


def check_size(env: Mapping[str, str]) -> None:
    """Raise InputTooLarge for variables that no line carries or no host takes."""
    sizes = {name: len(name) + len(value.encode()) for name, value in env.items()}
    if over := sorted(name for name, size in sizes.items() if size + len("=\0") > values.LARGEST):
        raise InputTooLarge(
            f"input {over[0]} is larger than 128 KiB with its credentials opened; let the script fetch its data",
            input=over[0],
        )
    if values.size(env) > MAX_ENV:
        raise InputTooLarge(
            "the inputs are larger than 1 MiB together with their credentials opened; let the script fetch its data"
        )


def _unknown(name: str, declared: Collection[str]) -> Violation:
    near = get_close_matches(name, declared, n=1)
    hint = f"did you mean {near[0]}?" if near else f"it takes {', '.join(sorted(declared)) or 'none'}"
    return Violation("INPUT_UNKNOWN", name, f"the script has no input {name!r}; {hint}")


def _malformed(problems: Problems, name: str, what: str) -> None:
    problems.malformed.append(Violation("INPUT_MALFORMED", name, f"input {name!r} {what}"))
