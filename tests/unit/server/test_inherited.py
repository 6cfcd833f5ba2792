"""What workers get from the arbiter: which settings are in force, at a start and after a reload."""

import logging

import pytest

from estat.server import inherited


@pytest.fixture
def load(monkeypatch, tmp_path):
    """Load the settings as the configuration file does, with these in the environment."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    monkeypatch.setattr(inherited, "_here", inherited._Inherited())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAW_BUCKET", "events")
    monkeypatch.setenv("DLQ_DIR", str(tmp_path / "dlq"))

    def load(**given):
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        return inherited.load_settings()

    yield load
    root.handlers[:] = before
    root.setLevel(level)


def test_a_start_with_bad_settings_tells_all_of_them_and_ends(load, capsys):
    with pytest.raises(SystemExit) as ended:
        load(BATCH_SIZE="none", RAW_BUCKET="")
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert "BATCH_SIZE" in told
    assert "RAW_BUCKET" in told


def test_a_reload_with_a_bad_setting_leaves_the_old_ones_in_force(load, capsys):
    old = load(BATCH_SIZE="7")
    assert load(BATCH_SIZE="none") == inherited.settings() == old
    assert "reload_refused" in capsys.readouterr().err


def test_a_reload_can_not_move_the_server(load, capsys):
    old = load()
    assert load(HTTP_ADDR=":1", METRICS_ADDR=":2", DLQ_DIR="/elsewhere", BATCH_SIZE="7") == old
    assert capsys.readouterr().err.count("reload_refused") == 2


def test_a_server_keeps_its_directory_through_reloads(load, tmp_path):
    load()
    own = inherited.make_directory().path
    assert inherited.settings().dlq_dir == own
    assert inherited.dlq_dir() == str(tmp_path / "dlq")
    reloaded = load(BATCH_SIZE="7")
    assert (reloaded.dlq_dir, reloaded.batch_size) == (own, 7)


def test_a_process_that_the_configuration_did_not_start_has_no_settings(monkeypatch):
    monkeypatch.setattr(inherited, "_here", inherited._Inherited())
    with pytest.raises(SystemExit):
        inherited.settings()
