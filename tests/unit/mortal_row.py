"""A row of the shared page whose writer can be killed at any of its writes."""


class Killed(Exception):
    """The writer is gone."""


class Cells(list[int]):
    """The cells of a row whose writer is killed after so many writes."""

    writes_left = 0

    def __setitem__(self, index: int, value: int) -> None:  # type: ignore[override]
        if not self.writes_left:
            raise Killed
        self.writes_left -= 1
        super().__setitem__(index, value)

    def tolist(self) -> list[int]:
        return list(self)
