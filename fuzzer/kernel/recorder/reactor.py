"""What pyfuse3 needs of trio, cut down to tasks of which one runs until it waits for the next request.

A stand-in like pyfuse3.asyncio, and put in place the same way. trio goes through its scheduler, with two
or three system calls, several times per request; that halved the rate of fsyncs. Here it is one poll(2),
which also serves the control socket. As long as nothing is held, one task does all the work; one that
holds its request back leaves reading to the next, and goes on when its time has come.
"""

from __future__ import annotations

import heapq
import select
import socket
import time
from collections.abc import Callable, Coroutine, Generator
from itertools import count
from types import coroutine

MAX_HELD = 6
"""Requests held at once. FUSE sends no more than 12 in the background (FUSE_DEFAULT_MAX_BACKGROUND of
fs/fuse/inode.c), so others can always overtake them."""

MAX_TASKS = MAX_HELD + 1
"""Tasks to ask pyfuse3 for: one is always there to read."""

Task = Coroutine[None, None, None]


@coroutine
def _switch() -> Generator[None, None, None]:
    """Let another task run; who calls this has put itself where it will be found again."""
    yield


class Reactor:
    """See the module. `talk` answers one packet of a client of `listener`; False if the client has gone."""

    class ClosedResourceError(Exception):
        """Raised by trio when a descriptor is closed under its reader; never here."""

    class Lock:
        """A lock nobody has to wait for: only one task reads at a time."""

        async def __aenter__(self) -> None:
            pass

        async def __aexit__(self, *error: object) -> None:
            pass

    name = "recorder"

    def __init__(self, talk: Callable[[socket.socket], bool], listener: socket.socket) -> None:
        self.lowlevel = self
        self._talk = talk
        self._listener = listener
        self._clients: dict[int, socket.socket] = {}
        self._poll = select.poll()
        self._poll.register(listener, select.POLLIN)
        self._idle: list[Task] = []
        """Tasks that are to read the next request, the last one first."""
        self._held: list[tuple[int, int, Task]] = []
        """A heap: when to go on (CLOCK_MONOTONIC, ns), a serial number, the task."""
        self._serial = count()
        self._current: Task | None = None

    # What pyfuse3 calls.

    def current_trio_token(self) -> None:
        """Threads are not used."""

    def current_task(self) -> Reactor:
        return self

    def open_nursery(self) -> Reactor:
        return self

    async def __aenter__(self) -> Reactor:
        return self

    async def __aexit__(self, *error: object) -> None:
        self._run()

    def start_soon(self, function: Callable[..., Task], *args: object, name: str) -> None:
        self._idle.insert(0, function(*args))

    async def wait_readable(self, fd: int) -> None:
        """Block until `fd` is readable, answering clients and letting held requests go on meanwhile."""
        self._poll.register(fd, select.POLLIN)
        while True:
            left_ms = self._left_ms() if self._held else None
            if left_ms == 0:
                assert self._current is not None
                self._idle.append(self._current)
                await _switch()
                continue
            ready = [number for number, _ in self._poll.poll(left_ms)]
            for number in ready:
                if number != fd:
                    self._serve(number)
            if fd in ready:
                return

    # What our file system calls.

    async def hold(self, hold_us: int) -> None:
        """Come back in that time, while others go on; at once if too many are held."""
        if not hold_us or len(self._held) >= MAX_HELD:
            return
        assert self._current is not None
        due_ns = time.monotonic_ns() + 1000 * hold_us
        heapq.heappush(self._held, (due_ns, next(self._serial), self._current))
        await _switch()

    def _run(self) -> None:
        """Run tasks until one ends; they all do for the same reason, that this is unmounted."""
        try:
            while True:
                due = self._held and not self._left_ms()
                self._current = heapq.heappop(self._held)[2] if due else self._idle.pop()
                self._current.send(None)
        except StopIteration:
            for task in (*self._idle, *(task for _, _, task in self._held)):
                task.close()

    def _left_ms(self) -> int:
        """Until the first held request is to go on, rounded up."""
        return max(0, -((time.monotonic_ns() - self._held[0][0]) // 1_000_000))

    def _serve(self, number: int) -> None:
        if number == self._listener.fileno():
            client, _ = self._listener.accept()
            self._clients[client.fileno()] = client
            self._poll.register(client, select.POLLIN)
        elif not self._talk(self._clients[number]):
            self._poll.unregister(number)
            self._clients.pop(number).close()
