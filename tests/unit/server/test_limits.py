"""How many connections fit into a limit of open files."""

import pytest

from estat.config import loading
from estat.server import limits


@pytest.mark.parametrize(
    ("open_files", "uploads", "fit"),
    [
        (1_048_576, 4, 4096),
        (4296, 4, 4096),
        (4295, 4, 4095),
        (1024, 4, 824),
        (256, 4, 128),
        (64, 4, 20),
        (128, 20, 52),
        (44, 4, 0),
    ],
)
def test_connections_never_take_the_files_that_the_rest_needs(open_files, uploads, fit):
    given = {"RAW_BUCKET": "events", "UPLOAD_CONCURRENCY": str(uploads)}
    assert limits.fitting(open_files, loading.load(given, env_file="")) == fit
