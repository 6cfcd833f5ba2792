"""Write keys: what the setting takes, which key a request has, and where none may be seen."""

from base64 import b64encode

import pytest

from estat.accounting import metrics
from estat.config import loading, parsers
from estat.errors import SettingsError
from estat.web import write_keys
from estat.web.write_keys import WriteKeys

KEY, OTHER = "s3cret-A.b_c~d+e/f==", "0123456789abcdef"


def names(text: str) -> list[str]:
    return [key.name for key in parsers.write_keys(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("k", ["key1"]),
        ("web:k", ["web"]),
        ("web:k, app:l , m", ["web", "app", "key3"]),
        ("web:old,web:new", ["web", "web"]),
        (",".join(f"k{i}" for i in range(32)), [f"key{i + 1}" for i in range(32)]),
    ],
)
def test_keys_have_their_name_or_are_called_by_their_place(text, expected):
    assert names(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "a b",
        "a,",
        ",a",
        "web:",
        ":a",
        "we b:a",
        "a:b:c",
        'x"y',
        "a,a",
        "web:a,app:a",
        "key2:a,b",
        "=a",
        "é",
        ",".join(f"k{i}" for i in range(33)),
    ],
)
def test_a_list_that_is_malformed_or_ambiguous_is_refused(text):
    with pytest.raises(SettingsError, match=r"^WRITE_KEYS=\(hidden\) is not valid; .*name:key"):
        loading.load({"RAW_BUCKET": "events", "WRITE_KEYS": text}, env_file="")


def base64(text: str) -> str:
    return b64encode(text.encode()).decode()


def find(query: str | None = None, **environ: str) -> str | None:
    """Return the key's name of a request with this query and environment."""
    request = {"RAW_URI": f"/collect?{query}", "QUERY_STRING": query or ""} | environ
    write_keys.take_from_query(request)
    return WriteKeys(parsers.write_keys(f"old:{OTHER},web:{KEY}")).find(request)


@pytest.mark.parametrize(
    "environ",
    [
        {"HTTP_AUTHORIZATION": f"Bearer {KEY}"},
        {"HTTP_AUTHORIZATION": f"bearer  {KEY}"},
        {"HTTP_X_WRITE_KEY": KEY},
        {"query": f"key={KEY}"},
        {"query": f"a=1&key={KEY}&b=2"},
        {"query": "key=s3cret-A.b_c~d%2Be%2Ff%3D%3D"},
        {"query": f"%6Bey={KEY}"},
        {"HTTP_AUTHORIZATION": "Basic dTpw", "HTTP_X_WRITE_KEY": KEY},
        {"HTTP_AUTHORIZATION": f"Basic {base64(KEY + ':')}"},
        {"HTTP_AUTHORIZATION": f"basic {base64(KEY + ':a:password')}"},
        {"HTTP_AUTHORIZATION": f"Basic {base64(KEY)}"},
        {"HTTP_AUTHORIZATION": "Bearer of-the-proxy", "query": f"key={KEY}"},
    ],
)
def test_a_valid_key_is_found_wherever_it_is_given(environ):
    assert find(**environ) == "web"


def test_during_a_rotation_the_old_key_and_the_new_one_are_valid():
    assert (find(HTTP_X_WRITE_KEY=OTHER), find(HTTP_X_WRITE_KEY=KEY)) == ("old", "web")


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"HTTP_AUTHORIZATION": KEY},
        {"HTTP_AUTHORIZATION": f"Basic {KEY}"},
        {"HTTP_AUTHORIZATION": f"Basic {base64(':' + KEY)}"},
        {"HTTP_AUTHORIZATION": "Basic \xff"},
        {"HTTP_AUTHORIZATION": "Basic a"},
        {"HTTP_AUTHORIZATION": "Bearer "},
        {"HTTP_X_WRITE_KEY": ""},
        {"HTTP_X_WRITE_KEY": KEY[:-1]},
        {"HTTP_X_WRITE_KEY": KEY + "x"},
        {"HTTP_X_WRITE_KEY": KEY.upper()},
        {"HTTP_X_WRITE_KEY": f"web:{KEY}"},
        {"HTTP_X_WRITE_KEY": f"{KEY},{OTHER}"},
        {"HTTP_X_WRITE_KEY": "\xff\xfe"},
        {"query": "key="},
        {"query": "key=%ff"},
        {"query": f"keys={KEY}"},
        {"query": f"a=key={KEY}"},
    ],
)
def test_without_a_valid_key_none_is_found(environ):
    assert find(**environ) is None


@pytest.mark.parametrize(
    ("query", "rest"),
    [
        ("a=1&b=%20x", "a=1&b=%20x"),
        (f"key={KEY}", ""),
        (f"a=1&key={KEY}&b=2", "a=1&b=2"),
        (f"%6b%65%79={KEY}&a=1&key={KEY}", "a=1"),
        ("keys=1&akey=2", "keys=1&akey=2"),
        ("key", ""),
        ("", ""),
    ],
)
def test_a_query_loses_its_keys_and_nothing_else(query, rest):
    environ = {"RAW_URI": f"/collect?{query}", "QUERY_STRING": query}
    write_keys.take_from_query(environ)
    assert environ["QUERY_STRING"] == rest
    assert KEY not in repr(environ)
    assert environ["RAW_URI"] == (f"/collect?{rest}" if rest or not query else "/collect")


def test_a_name_keeps_its_counter_when_the_list_changes():
    metrics.name_keys(["kept", "gone"])
    kept = metrics.accepted_by_key("kept")
    metrics.name_keys(["new", "kept"])
    assert metrics.accepted_by_key("kept") == kept
    assert metrics.accepted_by_key("new") not in (kept, metrics.accepted_by_key("gone"))
