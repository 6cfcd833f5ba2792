"""Queries and forms: which event they are."""

import pytest

from estat.errors import Refused
from estat.events import charsets, form


@pytest.mark.parametrize(
    ("query", "event"),
    [
        (b"a=1&b=2", {"a": "1", "b": "2"}),
        (b"a=1&a=2&a=3&b=4", {"a": ["1", "2", "3"], "b": "4"}),
        (b"a=x+y%20z%2B", {"a": "x y z+"}),
        (b"a+b=1", {"a b": "1"}),
        (b"a", {"a": ""}),
        (b"a=", {"a": ""}),
        (b"=a", {"": "a"}),
        (b"=", {"": ""}),
        (b"a=b=c", {"a": "b=c"}),
        (b"&&a=1&&", {"a": "1"}),
        (b"a=1;b=2", {"a": "1;b=2"}),
        (b"a=%26%3D", {"a": "&="}),
        (b"a=%C3%A9%e2%82%ac", {"a": "é€"}),
        ("a=é".encode(), {"a": "é"}),
        (b"a=\xc3%a9", {"a": "é"}),
        (b"a=%ff\xfe", {"a": "\ufffd\ufffd"}),
        (b"a=%ed%a0%80", {"a": "\ufffd\ufffd\ufffd"}),
        (b"a=%zz%4%", {"a": "%zz%4%"}),
        (b"a=%00%0a", {"a": "\x00\n"}),
        (b"key=Enter&m=keydown", {"key": "Enter", "m": "keydown"}),
    ],
)
def test_the_fields_are_the_event(query, event):
    assert form.parse(query) == event


@pytest.mark.parametrize(
    ("query", "charset", "text"),
    [
        (b"t=%BE%C8%B3%E7", "cp949", "안녕"),
        (b"t=%BE%C8%B3%E7&_charset_=EUC-KR", None, "안녕"),
        (b"_charset_=euc%2Dkr&t=%8Cc%BE%C8", "cp1252", "똠안"),
        (b"t=caf\xe9", "cp1252", "café"),
        (b"t=%EC%95%88&_charset_=euc-kr", "cp949", "안"),
        (b"t=%BE%C8&_charset_=utf-16", "cp949", "안"),
        (b"t=%BE%C8&_charset_=rot13", None, "\ufffd\ufffd"),
        (b"t=%ff&_charset_=euc-kr", None, "\ufffd"),
    ],
)
def test_text_that_is_not_utf_8_is_read_as_the_form_says_or_else_the_settings(query, charset, text):
    assert form.parse(query, charset)["t"] == text


@pytest.mark.parametrize(
    ("label", "codec"),
    [
        ("EUC-KR", "cp949"),
        (" ks_c_5601-1987\n", "cp949"),
        ("Shift_JIS", "cp932"),
        ("gb2312", "gb18030"),
        ("latin1", "cp1252"),
        ("iso-8859-9", "cp1254"),
        ("tis-620", "cp874"),
        ("utf8", "utf_8"),
        ("utf-16", None),
        ("iso-2022-jp", None),
        ("x-user-defined", None),
        ("cp949", "cp949"),
        ("", None),
    ],
)
def test_an_encoding_is_known_by_the_labels_of_browsers(label, codec):
    assert charsets.codec(label) == codec


@pytest.mark.parametrize("codec", sorted(set(charsets._CODECS.values())))
def test_every_encoding_contains_ascii(codec):
    assert bytes(range(128)).decode(codec) == bytes(range(128)).decode("ascii")


@pytest.mark.parametrize(
    "text",
    [b"a=1", b"a=1&b", b"a%20b=x y", b"a&b", b"user[name]=x", b"og:title=x", "이름=값".encode()],
)
def test_what_may_be_a_form_is_one(text):
    assert form.is_form(text)


@pytest.mark.parametrize(
    "text",
    [
        b"app: GET /p?a=1&key=K&b=100%25+x HTTP/1.1",
        b"hello",
        b"a b=1",
        b'{"a":"b=c"}',
        b'"a=b"',
        b"<a href=x>",
        b"https://shop.example/?a=1",
        b"a=1\nb=2",
        b"level=info\tmsg=x\nlevel=warn",
        b"\x00=1",
    ],
)
def test_what_no_encoder_writes_is_no_form(text):
    assert not form.is_form(text)


@pytest.mark.parametrize("query", [b"", b"&", b"&&&"])
def test_without_a_field_there_is_no_event(query):
    with pytest.raises(Refused) as caught:
        form.parse(query)
    assert caught.value.reason == "empty_body"


def test_so_many_fields_are_taken_and_no_more():
    assert len(form.parse(b"&".join(b"%d=" % i for i in range(form.MAX_FIELDS)))) == 1000
    with pytest.raises(Refused) as caught:
        form.parse(b"&".join(b"%d=" % i for i in range(form.MAX_FIELDS + 1)))
    assert caught.value.reason == "too_many_fields"
