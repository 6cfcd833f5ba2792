"""Progress shows itself on a terminal only."""

import io

from estat.cli.progress import ProgressBar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_nothing_is_drawn_if_the_stream_is_no_terminal() -> None:
    stream = io.StringIO()
    bar = ProgressBar(stream)
    bar.update(50, 100, lambda: "text")
    bar.close()
    assert stream.getvalue() == ""


def test_the_share_of_a_known_total_is_drawn_before_the_text() -> None:
    stream = Terminal()
    ProgressBar(stream, Clock()).update(50, 200, lambda: "1,234/s")
    assert stream.getvalue() == "\r\x1b[K 25% 1,234/s"


def test_without_a_total_the_text_stands_alone() -> None:
    stream = Terminal()
    ProgressBar(stream, Clock()).update(0, None, lambda: "1,234/s")
    assert stream.getvalue() == "\r\x1b[K1,234/s"


def test_it_is_drawn_at_most_ten_times_a_second() -> None:
    stream, clock = Terminal(), Clock()
    bar = ProgressBar(stream, clock)
    for hundredth in range(100):
        clock.now = hundredth / 100
        bar.update(0, None, lambda: "x")
    assert 9 <= stream.getvalue().count("x") <= 10


def test_closing_clears_the_line() -> None:
    stream = Terminal()
    bar = ProgressBar(stream, Clock())
    bar.update(0, None, lambda: "x")
    bar.close()
    assert stream.getvalue().endswith("x\r\x1b[K")
