"""What each command says of itself, and of arguments that it does not know."""

import re
import shlex

import pytest

from estat.cli import main

COMMANDS = ["serve", "demo", "check", "health", "send", "audit", "dlq"]
COMMANDS += [f"dlq {name}" for name in ("ls", "show", "verify", "export", "replay", "rm")]


def answer(
    typed: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> tuple[object, str]:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as ended:
        main.main(typed.split())
    printed = capsys.readouterr()
    return ended.value.code, printed.out + printed.err


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_fits_the_terminal_and_explains_every_argument(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, text = answer(f"{command} --help", capsys, monkeypatch)
    assert code == 0
    assert max(map(len, text.splitlines())) <= 80
    # an argument's explanation stands behind it, or on the next line
    table = re.split(r"^(?:options|positional arguments):$", text, maxsplit=1, flags=re.MULTILINE)
    arguments = re.findall(r"^ {2,4}([^ \n].*(?:\n {10,}.*)*)", table[1], re.MULTILINE)
    assert [one for one in arguments if not re.search(r" {2}|\n|COMMAND|^{", one)] == []
    assert any(one.startswith("-h, --help") for one in arguments)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_example_of_a_command_can_be_typed(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, text = answer(f"{command} --help", capsys, monkeypatch)
    (example,) = re.findall(r"^Example: (.+)$", text, re.MULTILINE)
    words = shlex.split(example)
    arguments = words[words.index("estat") + 1 :]
    assert arguments[: len(command.split())] == command.split()[: len(arguments)]
    assert callable(main.parse_arguments(arguments).run)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_wrong_argument_is_answered_with_the_usage_of_that_command(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, text = answer(f"{command} --no-such", capsys, monkeypatch)
    assert code == 2
    assert text.startswith(f"usage: estat {command} ")
    assert f"\nestat {command}: error: " in text
