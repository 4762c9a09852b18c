"""View: a way to look at a file system that is running, or was unmounted in good order.

Nothing was lost, so every view must show everything that returned. They differ in where the data is
taken from: pages in memory that are still dirty, those being written, or the device.
"""

from __future__ import annotations

from enum import StrEnum


class View(StrEnum):
    """In the order they are taken: each leaves less in memory for the next."""

    CACHE = "cache"
    MIXED = "mixed"
    DIRECT = "direct"
    DROPPED = "dropped"
    REMOUNT = "remount"

    @property
    def words(self) -> str:
        """For people."""
        return _WORDS[self]


_WORDS = {
    View.CACHE: "as programs see it",
    View.MIXED: "with clean pages dropped and dirty ones being written back",
    View.DIRECT: "read with O_DIRECT",
    View.DROPPED: "read from the device after syncfs",
    View.REMOUNT: "after unmount and mount",
}

MORE_VIEWS = tuple(view for view in View if view is not View.CACHE)
"""What can be looked at besides the cache."""
