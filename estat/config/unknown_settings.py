"""Names that stand where settings stand and are none: mostly misspelt ones. A rule without I/O.

A ``.env`` file is for this server, so every name in it that nobody knows is told. An
environment is everybody's: there only a name is told that is nearly a setting's. Never a
value, for it may be a secret.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from typing import NamedTuple

#: Beginnings of other programs' names: boto3's, Python's, gunicorn's, gevent's, the platform's.
_OTHERS = (
    "AWS_", "BUILDAH_", "COMPOSE_", "CURL_", "DOCKER_", "ECS_", "GEVENT", "GUNICORN_",
    "KUBERNETES_", "LC_", "LD_", "MALLOC_", "OTEL_", "PIP_", "PODMAN_", "PYTHON", "REQUESTS_",
    "SSL_", "SYSTEMD_", "VIRTUAL_ENV", "XDG_",
)  # fmt: skip
_OTHERS_WHOLE = {
    "ALL_PROXY", "FTP_PROXY", "GID", "HOME", "HOSTNAME", "HTTPS_PROXY", "HTTP_PROXY", "IMAGE",
    "LANG", "LANGUAGE", "LOGNAME", "NO_COLOR", "NO_PROXY", "PATH", "PORT", "PWD", "SENDFILE",
    "SHELL", "TERM", "TMPDIR", "TZ", "UID", "USER",
}  # fmt: skip

#: How alike two names are (of difflib, 1: the same): one letter more, less or another in seven.
_NEARLY, _SOMEHOW = 0.85, 0.6

# A line of a key that lost its quotes may look like an assignment (its base64 ends in "="): what
# is nearly no setting's name is told only if it is written as variables are.
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]{0,39}")

_REFERENCE = re.compile(r"\$\{([^}:]+)")


class Misspelt(NamedTuple):
    """A name that is no setting, and the setting's that is nearest; empty if none is near."""

    variable: str
    nearest: str

    def __str__(self) -> str:
        meant = f"; did you mean {self.nearest}?" if self.nearest else ""
        return f"{self.variable} is no setting{meant}"


def find(
    from_file: Mapping[str, str], environ: Collection[str], settings: Collection[str]
) -> list[Misspelt]:
    """Return what is no setting, each name once.

    ``from_file`` has the values as they are written, for a name that others refer to
    (``${NAME}``) is of use.
    """
    referred = {name for value in from_file.values() for name in _REFERENCE.findall(value)}
    names = [name for name in from_file if name not in referred]
    found = dict(_told(names, settings, _SOMEHOW, with_unlike=True))
    found |= dict(_told(environ, settings, _NEARLY, with_unlike=False))
    return [Misspelt(name, nearest) for name, nearest in found.items()]


def _told(
    names: Collection[str], settings: Collection[str], likeness: float, *, with_unlike: bool
) -> Iterator[tuple[str, str]]:
    for name in names:
        upper = name.upper()
        if name in settings or upper.startswith(_OTHERS) or upper in _OTHERS_WHOLE:
            continue
        near = get_close_matches(upper, settings, n=1, cutoff=likeness)
        if near or (with_unlike and _VARIABLE.fullmatch(name)):
            yield name, near[0] if near else ""
