"""The time a utimes op sets: names the op and is no time of the clock. Pure."""

from __future__ import annotations

_LONG_AGO_NS = 500_000_000 * 10**9
"""In 1985: every file system here can store it, to the nanosecond."""


def utimes_ns(op_id: int) -> int:
    """Nanoseconds since the epoch; of ops the ids have 24 bits."""
    return _LONG_AGO_NS + op_id
