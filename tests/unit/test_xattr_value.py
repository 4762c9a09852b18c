"""The value of an attribute names its op, whatever its size."""

from __future__ import annotations

import pytest

from fuzzer.state.xattr_value import xattr_value


@pytest.mark.parametrize("size", [0, 8, 32, 33, 65536])
def test_size_is_what_was_asked_but_the_name_stays(size: int) -> None:
    value = xattr_value(524289, size)
    assert value.startswith(b"op=524289;")
    assert len(value) == max(size, len(b"op=524289;"))


def test_values_of_two_ops_differ() -> None:
    assert xattr_value(1, 8) != xattr_value(2, 8)
    assert xattr_value(1, 64) != xattr_value(11, 64)
