"""The mark socket: how a recorded program says "this is done" in the log of its writes.

A program connects to the Unix stream socket, sends a line, and waits for the line `ok`. By then the line is a
mark in the log: all that was durable when the program sent it is in front of the mark.
"""

from __future__ import annotations

import selectors
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from fuzzer.errors import InputError

_MAX_LINE_BYTES = 4096
_BACKLOG = 64


class MarkSocket:
    """A listening socket at `path`; `put` gets each line, and raises InputError for one it cannot take."""

    def __init__(self, path: Path, listener: socket.socket, put: Callable[[bytes], None]) -> None:
        self.path = path
        self._listener = listener
        self._put = put
        self._clients: dict[socket.socket, bytes] = {}
        """Connections, each with the beginning of its next line."""

    def serve(self, selector: selectors.BaseSelector) -> None:
        """Have `selector` call us (its keys' data) when there is something to do."""
        selector.register(self._listener, selectors.EVENT_READ, partial(self._accept, selector))

    def _accept(self, selector: selectors.BaseSelector) -> None:
        client, _ = self._listener.accept()
        client.setblocking(False)
        self._clients[client] = b""
        selector.register(client, selectors.EVENT_READ, partial(self._talk, client, selector))

    def _talk(self, client: socket.socket, selector: selectors.BaseSelector) -> None:
        if not self._take(client):
            selector.unregister(client)
            del self._clients[client]
            client.close()

    def _take(self, client: socket.socket) -> bool:
        """Take what has arrived; False if that was the end of this client."""
        try:
            data = client.recv(1 << 16)
            *lines, rest = (self._clients[client] + data).split(b"\n")
            for line in lines:
                client.sendall(self._answer(line))
            if len(rest) > _MAX_LINE_BYTES:
                client.sendall(b"error: the line is too long\n")
                return False
        except OSError:
            return False  # It died, or does not read its answers.
        self._clients[client] = rest
        return bool(data)

    def _answer(self, line: bytes) -> bytes:
        try:
            self._put(line)
        except InputError as error:
            return f"error: {error}\n".encode()
        return b"ok\n"

    def close(self) -> None:
        """Hang up on all clients."""
        for client in self._clients:
            client.close()
        self._listener.close()


@contextmanager
def open_mark_socket(path: Path, put: Callable[[bytes], None]) -> Iterator[MarkSocket]:
    """Listen at the new `path` while the block runs."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        listener.listen(_BACKLOG)
        marks = MarkSocket(path, listener, put)
        try:
            yield marks
        finally:
            marks.close()
            path.unlink()
    finally:
        listener.close()
