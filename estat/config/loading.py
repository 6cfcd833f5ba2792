"""Reads the settings from the environment and a ``.env`` file, and checks them.

The file lies in the working directory; the environment wins. All problems are
told together. ``os.environ`` is read in this module alone.
"""

import logging
import os
import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any, NamedTuple
from urllib.parse import unquote

from dotenv import dotenv_values
from dotenv.parser import parse_stream
from dotenv.variables import Variable, parse_variables

from estat.config import checks
from estat.config.parsers import Declaration
from estat.config.settings import Settings, declarations
from estat.config.suggestions import suggestion
from estat.errors import SettingsError
from estat.text import keep_secret

logging.getLogger("dotenv").setLevel(logging.ERROR)  # what it warns of is a problem here

#: Variables whose values nobody should see. Names of files and addresses are no secrets.
_NAMES_OF_SECRETS = re.compile(
    r"(?i)(SECRET|TOKEN|PASSW|WRITE.?KEYS?\b|HASH.?KEY|API.?KEY)(?!.*(FILE|UR[IL]|PATH)\s*$)"
)
_USER_OF_URL = re.compile(r"//([^/\s:@]*)(?::([^\s@]*))?@")

#: What seems to be meant for a name, where a line of the file can't be read.
_MEANT_FOR_NAME = re.compile(r"\s*(?:(?:export|set)\s+)?([A-Za-z][\w .-]*?)\s*(?:[=:]|$)")

#: The names of other programs' variables: boto3's, Python's, gunicorn's, the platform's.
_OTHERS = re.compile(
    "(AWS|BUILDAH|COMPOSE|CURL|DOCKER|ECS|KUBERNETES|LC|LD|MALLOC|OTEL|PIP|PODMAN|REQUESTS|SSL"
    "|SYSTEMD|XDG)_.*|(GEVENT|GUNICORN|PYTHON|VIRTUAL_ENV).*|(ALL|FTP|HTTP|HTTPS|NO)_PROXY"
    "|GID|HOME|HOSTNAME|IMAGE|LANG|LANGUAGE|LOGNAME|NO_COLOR|PATH|PORT|PWD|SENDFILE|SHELL|TERM"
    "|TMPDIR|TZ|UID|USER"
)

#: How alike two names are (of difflib, 1: the same): one letter more, less or another in seven.
_NEARLY, _SOMEHOW = 0.85, 0.6

# A line of a key that lost its quotes may look like an assignment (its base64 ends in "="): what
# is nearly no setting's name is told only if it is written as variables are.
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]{0,39}")

#: A name that a value of the file refers to: it is used, though it may be no setting.
_REFERENCE = re.compile(r"\$\{([^}:]+)")


class UnknownSetting(NamedTuple):
    """A name that is no setting, and the nearest setting's name; empty if none is near.

    Its value is not told: it may be a secret.
    """

    variable: str
    nearest: str

    def __str__(self) -> str:
        meant = f"; did you mean {self.nearest}?" if self.nearest else ""
        return f"{self.variable} is no setting{meant}"


def load(environ: Mapping[str, str] | None = None, env_file: str = ".env") -> Settings:
    """Read and check all settings.

    Variables of ``env_file`` that boto3 reads (``AWS_…``) are put into the
    environment, where boto3 looks for them. Raises SettingsError with every
    problem found.
    """
    from_file = _read(env_file)
    if environ is None:
        for name, value in from_file.items():
            if name.startswith("AWS_"):
                os.environ.setdefault(name, value)
        environ = os.environ
    given = {**from_file, **environ}
    keep_secret(_secrets(given))
    parsed: dict[str, Any] = {}
    problems = list(_wrong_lines(env_file, environ))
    for name, declared in declarations().items():
        try:
            parsed[name.lower()] = _value(name, declared, given)
        except SettingsError as exc:
            problems += exc.problems
    if not problems:
        settings = Settings(**parsed)
        problems = checks.contradictions(settings)
    if problems:
        raise SettingsError([*problems, *map(str, unknown_names(environ, env_file))])
    return settings


def http_addr(env_file: str = ".env") -> str:
    """Return HTTP_ADDR alone, for who asks a running server: it has checked the rest.

    Raises SettingsError.
    """
    name = "HTTP_ADDR"
    given = {**_read(env_file), **os.environ}
    address: str = _value(name, declarations()[name], given)
    return address


def unknown_names(
    environ: Mapping[str, str] | None = None, env_file: str = ".env"
) -> list[UnknownSetting]:
    """Return the names that seem to be meant for settings and are none, each once.

    The file is for this server alone, so every name in it that is unknown is returned. The
    environment is shared with other programs, so of it only one that is nearly a setting's is.
    """
    environ = os.environ if environ is None else environ
    settings = declarations().keys()
    if settings <= environ.keys():
        return []  # so nothing else counts (see replace_environment)
    try:
        from_file = _read(env_file, interpolate=False)
    except SettingsError:
        return []  # ``load`` reports it
    referred = {name for value in from_file.values() for name in _REFERENCE.findall(value)}
    found = []
    for name in dict.fromkeys([*from_file, *environ]):
        upper = name.upper()
        if name in settings or name in referred or _OTHERS.fullmatch(upper):
            continue
        in_file = name in from_file
        near = get_close_matches(upper, settings, n=1, cutoff=_SOMEHOW if in_file else _NEARLY)
        if near or (in_file and _VARIABLE.fullmatch(name)):
            found.append(UnknownSetting(name, near[0] if near else ""))
    return found


def replace_environment(given: Mapping[str, str]) -> None:
    """Put settings into the environment for what this process becomes; all others to default."""
    # an empty one counts as not set, and wins over one of the .env file
    os.environ.update({**dict.fromkeys(declarations(), ""), **given})


def effective(settings: Settings, *, changed: bool = False) -> dict[str, str]:
    """Return every setting's value as text, secrets hidden; or of those that are no defaults."""
    told = {}
    for name, declared in declarations().items():
        value, default = getattr(settings, name.lower()), declared.default
        if not changed or default is None or value != declared.value(default):
            told[name] = "(hidden)" if declared.secret and value else settings.text(name)
    return told


def _secrets(given: Mapping[str, str]) -> Iterator[str]:
    """Yield what is secret in variables: also in those of others, and where a name is misspelt."""
    for name, value in given.items():
        declared = declarations().get(name)
        if declared.secret if declared else _NAMES_OF_SECRETS.search(name):
            for part in (value, *value.split(",")):
                yield part.strip()
                yield part.rpartition(":")[2].strip()  # a key's name may stand before it
        for found in _USER_OF_URL.finditer(value):
            yield from (part for text in found.groups("") for part in (text, unquote(text)))


def _read(env_file: str, *, interpolate: bool = True) -> dict[str, str]:
    try:
        found = dotenv_values(env_file, interpolate=interpolate)
        return {name: value for name, value in found.items() if value is not None}
    except UnicodeError as exc:
        raise SettingsError([f"{env_file} can't be read; save it as text in UTF-8"]) from exc
    except OSError as exc:
        raise SettingsError([f"{env_file} can't be read: {exc.strerror}"]) from exc


def _wrong_lines(env_file: str, environ: Mapping[str, str]) -> Iterator[str]:
    """Yield a sentence for each line of the file that is wrong as a line; it may hold a secret."""
    if os.path.isdir(env_file):
        yield f"{env_file} is a directory; it must be a file with lines NAME=value"
    if not os.path.isfile(env_file):
        return
    known = {*environ}
    with open(env_file, encoding="utf-8") as file:
        for one in parse_stream(file):
            if one.error or (one.value is None and one.key in declarations()):
                yield f"{env_file}, {_what_to_write(*one.original)}"
            elif one.key and one.key not in environ and not _references(one.value) <= known:
                yield (
                    f"{one.key} in {env_file} refers with ${{...}} to a variable that is not set "
                    "before; set it, or write ${VARIABLE:-default}"
                )
            known.add(one.key or "")


def _references(value: str | None) -> set[str]:
    """Return the variables that a value of the file needs."""
    parts = parse_variables(value or "")
    return {part.name for part in parts if isinstance(part, Variable) and part.default is None}


def _what_to_write(text: str, line: int) -> str:
    line += text[: -len(text.lstrip())].count("\n")
    match = _MEANT_FOR_NAME.match(text)
    name = re.sub(r"\W+", "_", match[1]).upper() if match else ""
    return (
        f"line {line} can't be read; write {name if name in declarations() else 'NAME'}=value, "
        "without blanks in the name, and with quotes around the whole value or with none"
    )


def _value(name: str, declared: Declaration, given: Mapping[str, str]) -> Any:
    text = given.get(name, "").strip()
    if not text:
        if declared.default is None:
            raise SettingsError([f"{name} is not set; it must be {declared.valid}"])
        text = declared.default
    try:
        return declared.value(text)
    except (ValueError, KeyError, OSError) as exc:
        shown = "(hidden)" if declared.secret else repr(text)
        problem = f"{name}={shown} is not valid; it must be {declared.valid}"
        meant = suggestion(name, declared, text)
        if meant and declared.secret:
            problem += "; leave out quotes, blanks and comments"
        elif meant:
            problem += f"; perhaps you mean {meant}"
        raise SettingsError([problem]) from exc
