"""Targets: what a figure may be at most, and whether the one that was found is."""

from typing import NamedTuple


class Target(NamedTuple):
    """What a measurement is held to."""

    what: str
    most: float
    unit: str = ""
    digits: int = 2

    def met(self, found: float) -> bool:
        """Tell whether a figure is within the target."""
        return found <= self.most

    def line(self, name: str, found: float) -> str:
        """Say what was found of whom, and what it means."""
        digits = self.digits
        # 1.5004 must not read as 1.50 where that would be within
        while self.met(round(found, digits)) != self.met(found):
            digits += 1
        return (
            f"- Target: {self.what} at most {self.most:.4g}{self.unit}. "
            f"{name}: {found:,.{digits}f}{self.unit}, {verdict(self.met(found))}"
        )


def verdict(met: bool) -> str:
    """Return the word for a table; bold where something is wrong."""
    return "met" if met else "**not met**"


def none(why: str) -> str:
    """Say that there is no target, and what the table is for."""
    return f"- Target: none; {why}"
