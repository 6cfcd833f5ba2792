"""``estat init`` writes all of its files or none, and never over another."""

import os

import pytest

from estat.cli import main

FILES = {".env.example", "gunicorn.conf.py", "estat.service", "alerts.yml", "dashboard.json"}


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_it_makes_the_directory_and_says_what_it_wrote_there(tmp_path, capsys):
    target = tmp_path / "new" / "estat"
    assert main.main(["init", str(target)]) == 0
    assert set(contents(target)) == FILES
    assert all(contents(target).values())
    told = capsys.readouterr().out
    assert all(name in told for name in FILES)
    assert f"Wrote in {target}:" in told


@pytest.mark.parametrize("name", sorted(FILES))
def test_it_overwrites_no_file_and_then_writes_none(name, tmp_path, capsys):
    (tmp_path / name).write_text("mine")
    assert main.main(["init", str(tmp_path)]) == 2
    assert contents(tmp_path) == {name: b"mine"}
    assert capsys.readouterr().err == (
        f"estat init: {tmp_path / name}: File exists; nothing was written\n"
    )


def test_it_follows_no_link_that_leads_to_nothing(tmp_path, capsys):
    os.symlink(tmp_path / "elsewhere", tmp_path / "alerts.yml")
    assert main.main(["init", str(tmp_path)]) == 2
    assert os.listdir(tmp_path) == ["alerts.yml"]


def test_it_says_why_a_directory_can_not_be_made(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main.main(["init", str(tmp_path / "file" / "estat")]) == 2
    assert "file/estat: Not a directory; nothing was written" in capsys.readouterr().err
