"""The value an op sets an extended attribute to: names the op and fills the asked size. Pure."""

from __future__ import annotations

_FILL = b"0123456789abcdef"


def xattr_value(op_id: int, size: int) -> bytes:
    """`op=<op id>;` and a repeating pattern up to `size` bytes; never shorter than the first part."""
    prefix = b"op=%d;" % op_id
    missing = max(size - len(prefix), 0)
    return prefix + (_FILL * (missing // len(_FILL) + 1))[:missing]
