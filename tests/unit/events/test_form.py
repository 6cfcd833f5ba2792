"""Queries and forms: which event they are."""

import pytest

from estat.errors import Refused
from estat.events import form


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
        (b"keys=1&Key=2", {"keys": "1", "Key": "2"}),
    ],
)
def test_the_fields_are_the_event(query, event):
    assert form.parse(query) == event


@pytest.mark.parametrize("query", [b"key=secret&a=1", b"a=1&%6bey=secret", b"key=a&a=1&key=b"])
def test_the_write_key_is_never_part_of_the_event(query):
    assert form.parse(query) == {"a": "1"}


@pytest.mark.parametrize("query", [b"", b"&", b"&&&", b"key=secret"])
def test_without_a_field_there_is_no_event(query):
    with pytest.raises(Refused) as caught:
        form.parse(query)
    assert caught.value.reason == "empty_body"


def test_so_many_fields_are_taken_and_no_more():
    assert len(form.parse(b"&".join(b"%d=" % i for i in range(form.MAX_FIELDS)))) == 1000
    with pytest.raises(Refused) as caught:
        form.parse(b"&".join(b"%d=" % i for i in range(form.MAX_FIELDS + 1)))
    assert caught.value.reason == "too_many_fields"
