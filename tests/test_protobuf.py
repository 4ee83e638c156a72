"""The wire format of protocol buffers, on bytes worked out by hand."""

from pathlib import Path

import pytest

from segtool.protobuf import MalformedError, encode, entry, fields, mapped, messages


def test_fields_of_every_kind_say_where_they_lie() -> None:
    # Field 1 is the number 300, field 2 is eight bytes, field 3 is the text "ab", field 4 is four bytes.
    data = memoryview(b"\x08\xac\x02" + b"\x11" + bytes(8) + b"\x1a\x02ab" + b"\x25" + bytes(4))
    found = [
        (number, value if isinstance(value, int) else bytes(value), start, stop)
        for number, value, start, stop in fields(data)
    ]
    assert found == [(1, 300, 0, 3), (2, bytes(8), 3, 12), (3, b"ab", 12, 16), (4, bytes(4), 16, 21)]


@pytest.mark.parametrize(
    "content",
    [
        b"\x08",  # a number is promised
        b"\x08\xff",  # a number that does not end
        b"\x08" + b"\xff" * 10 + b"\x01",  # more than 64 bits
        b"\x0a\x05abc",  # five bytes are promised
        b"\x11" + bytes(7),  # eight
        b"\x0b",  # a group, which has been given up
        b"\x02\x00",  # field 0
    ],
)
def test_what_is_no_message_is_refused(content: bytes) -> None:
    with pytest.raises(MalformedError):
        list(fields(memoryview(content)))


@pytest.mark.parametrize("length", [0, 1, 127, 128, 300, 2**14, 2**21])
def test_what_is_encoded_is_read_back(length: int) -> None:
    payload = b"x" * length
    (one,) = messages(memoryview(encode(14, payload)), 14)
    assert one[0] == 14
    assert bytes(one[1]) == payload


def test_an_entry_is_a_key_and_a_value() -> None:
    key, value = entry(memoryview(encode(1, "Grüße".encode()) + encode(2, b"v")))
    assert (key, bytes(value)) == ("Grüße", b"v")
    assert entry(memoryview(b"")) == ("", b"")


def test_a_file_is_mapped_even_where_it_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "m"
    path.write_bytes(b"")
    assert bytes(mapped(path)) == b""
    path.write_bytes(b"abc")
    assert bytes(mapped(path)) == b"abc"
