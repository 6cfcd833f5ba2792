"""How commands say what went wrong: on standard error, each line behind the command's name."""

import sys
from collections.abc import Iterable

from estat.errors import EstatError, SettingsError


class CommandError(EstatError):
    """A command can't do what was asked; ``code`` is its exit status."""

    def __init__(self, problem: str, code: int = 2) -> None:
        super().__init__(problem)
        self.code = code


def complain(command: str, problems: Iterable[str]) -> None:
    """Print the problems of a command; without its name, of the server."""
    name = f"estat {command}".rstrip()
    for problem in problems:
        print(f"{name}: {printable(problem)}", file=sys.stderr)


def problems_of(error: EstatError) -> list[str]:
    """Return what there is to say about an error, a line for each problem."""
    if isinstance(error, SettingsError):
        return error.problems
    if isinstance(error, CommandError):
        return str(error).splitlines()
    return [str(error)]


def printable(text: str) -> str:
    """Return text on one line, without what a terminal would act upon."""
    shown = "".join(char if char.isprintable() else " " for char in text)
    return " ".join(shown.split())
