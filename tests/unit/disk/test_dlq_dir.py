"""What the start says of the place on which DLQ_DIR lies, or is to be made."""

from pathlib import Path

import pytest

from estat.disk.dlq_dir import mount_warnings


@pytest.mark.skipif(not Path("/dev/shm").is_mount(), reason="no file system in memory")
def test_a_directory_in_memory_is_told_before_it_is_made() -> None:
    (told,) = mount_warnings("/dev/shm/not/made", synced=True)
    assert "tmpfs" in told


def test_a_directory_that_the_system_cleans_is_told() -> None:
    assert any("cleaned by the system" in told for told in mount_warnings("/tmp/dlq", synced=True))
