"""Place: where in a workload an op stands."""

from __future__ import annotations

from dataclasses import dataclass

from fuzzer.state.history import Event
from fuzzer.workload.model import Workload


@dataclass(frozen=True, slots=True)
class Place:
    """Op `index` of the block of `actor`, in loop iteration `iteration` (from 0)."""

    actor: int
    index: int
    iteration: int = 0


def place_of(event: Event, workload: Workload) -> Place:
    """Where the op of this event stands."""
    iteration, index = divmod(event.sequence, len(workload.block(event.actor)))
    return Place(event.actor, index, iteration)


def row_of(place: Place, workload: Workload) -> int:
    """The number of the op in the text of the workload, from 0."""
    return sum(len(workload.block(one)) for one in range(place.actor)) + place.index


def pattern(row: int, iteration: int = 0) -> int:
    """The byte an op fills what it writes with: 1 to 250, another for each op and iteration of most
    workloads. The first ops get 0x61 (`a`) and so on."""
    return (96 + row + 17 * iteration) % 250 + 1
