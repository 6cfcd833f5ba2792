"""What commands print: harmless, without secrets, in one place, and progress on a terminal only."""

import ast
import io
import json
import logging
import sys
from pathlib import Path

import pytest

import estat
from estat.cli import output
from estat.errors import DiskError, EstatError, SettingsError

FOREIGN = "a\x1b]0;x\x07\r\nforged\u202e\x9b \udcff Authorization: Bearer abcdefgh"
CLEAR = "\r\x1b[K"


def written(capsys):
    out, err = capsys.readouterr()
    return out + err


@pytest.mark.parametrize(
    "tell",
    [
        lambda: output.say(f"stored {FOREIGN}"),
        lambda: output.complain("dlq", EstatError(FOREIGN)),
        lambda: output.complain("dlq", SettingsError([FOREIGN])),
        lambda: output.complain("dlq", output.CommandError(FOREIGN)),
        lambda: output.complain("dlq", DiskError("open", FOREIGN, OSError(FOREIGN))),
        lambda: logging.getLogger("stores").warning("at %s", FOREIGN),
    ],
)
def test_what_others_wrote_is_one_harmless_line_without_secrets(tell, capsys, monkeypatch):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(logging, "lastResort", logging.lastResort)
    output.be_careful("dlq")
    tell()
    text = written(capsys)
    assert text.count("\n") == 1
    assert text.rstrip("\n").isprintable()
    assert "abcdefgh" not in text


def test_a_crash_is_printed_like_everything_else(capsys, monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(logging, "lastResort", logging.lastResort)
    output.be_careful("check")
    try:
        raise RuntimeError(FOREIGN)
    except RuntimeError as exc:
        sys.excepthook(type(exc), exc, exc.__traceback__)
    text = written(capsys)
    assert "RuntimeError: a" in text
    assert text.replace("\n", "").isprintable()
    assert "abcdefgh" not in text


@pytest.mark.parametrize(
    "line", ['{"a":\t"\u202e\x9b\u2028","b":"한국 \\u001b"}\n', '{"key":"\U000e0001"}\r\n']
)
def test_an_event_is_printed_as_it_is_but_for_what_acts_on_a_terminal(line, capsys):
    output.say_event(line)
    text = written(capsys)
    assert json.loads(text) == json.loads(line)
    assert text.rstrip("\n").isprintable()


def test_what_the_terminal_has_no_letter_for_is_escaped(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    output.say("한")
    stream.flush()
    assert stream.buffer.getvalue() == b"\\ud55c\n"


def test_nothing_else_in_the_package_prints():
    for path in (Path(estat.__file__).parent / "cli").glob("*.py"):
        if path.name == "output.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            assert not (isinstance(node, ast.Name) and node.id == "print"), path
            if isinstance(node, ast.Attribute) and node.attr in ("write", "writelines", "buffer"):
                assert ast.unparse(node.value).split(".")[-1] not in ("stdout", "stderr"), path


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def on_terminal(monkeypatch):
    """Draw on a terminal from now on; the time is in ``now``."""
    stream = Terminal()
    stream.now = 0.0
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(output.time, "monotonic", lambda: stream.now)
    monkeypatch.setattr(output, "progress", output.Progress())
    return stream


def test_nothing_is_drawn_if_the_stream_is_no_terminal(capsys):
    progress = output.Progress()
    progress.update(50, 100, lambda: "text")
    progress.clear()
    assert written(capsys) == ""


def test_the_share_of_a_known_total_is_drawn_before_the_text(monkeypatch):
    terminal = on_terminal(monkeypatch)
    output.progress.update(50, 200, lambda: "1,234/s\x1b")
    assert terminal.getvalue() == f"{CLEAR} 25% 1,234/s\\x1b"


def test_without_a_total_the_text_stands_alone(monkeypatch):
    terminal = on_terminal(monkeypatch)
    output.progress.update(0, None, lambda: "1,234/s")
    assert terminal.getvalue() == f"{CLEAR}1,234/s"


def test_it_is_drawn_at_most_ten_times_a_second(monkeypatch):
    terminal = on_terminal(monkeypatch)
    for hundredth in range(100):
        terminal.now = hundredth / 100
        output.progress.update(0, None, lambda: "x")
    assert 9 <= terminal.getvalue().count("x") <= 10


def test_what_is_printed_takes_the_place_of_the_line(monkeypatch):
    terminal = on_terminal(monkeypatch)
    output.progress.update(0, None, lambda: "x")
    output.complain("dlq", "no")
    assert terminal.getvalue().endswith(f"x{CLEAR}estat dlq: no\n")
