"""How each op of the table is carried out: name to function, one file per group."""

from __future__ import annotations

from fuzzer.kernel.actions import (
    attributes,
    btrfs,
    data,
    environment,
    names,
    readers,
    subvolumes,
    sync,
    writes,
    xfs,
)
from fuzzer.kernel.actions.base import Action

ACTIONS: dict[str, Action] = {
    **names.ACTIONS,
    **subvolumes.ACTIONS,
    **writes.ACTIONS,
    **data.ACTIONS,
    **attributes.ACTIONS,
    **sync.ACTIONS,
    **environment.ACTIONS,
    **readers.ACTIONS,
    **btrfs.ACTIONS,
    **xfs.ACTIONS,
}
"""Every op's action by the op's name."""
