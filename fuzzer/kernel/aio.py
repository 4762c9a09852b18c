"""Linux AIO (io_submit(2)): several direct writes of one process under way at once.

Of the bindings on PyPI, caio takes bytes objects only, which are not aligned for O_DIRECT, and liburing
(of io_uring) takes no memory that is; these are three system calls.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Sequence

from fuzzer.kernel.libc import check

_SYSCALLS = (206, 209, 208) if os.uname().machine == "x86_64" else (0, 2, 4)
_SYS_IO_SETUP, _SYS_IO_SUBMIT, _SYS_IO_GETEVENTS = _SYSCALLS
"""x86-64 and the table all newer architectures share (asm-generic/unistd.h)."""

_PWRITE = 1
_IOCB = struct.Struct("=Q2IHhIQQqQ2I")
"""struct iocb of linux/aio_abi.h: data, key and rw_flags, opcode, priority, fd, buffer, bytes, offset."""

_EVENT = struct.Struct("=QQqq")
"""struct io_event: data, obj, res, res2."""

MAX_REQUESTS = 64


class AsyncWrites:
    """One AIO context; it goes when its process does, which waits for what is under way (exit_aio)."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._context = ctypes.c_ulong(0)
        self._call("io_setup", _SYS_IO_SETUP, MAX_REQUESTS, ctypes.byref(self._context))

    def write(self, fd: int, buffers: Sequence[memoryview], offset: int, flags: int = 0) -> list[int]:
        """Write the buffers one behind the other from `offset`, all at once, and wait for all.

        Returns for each what pwritev2(2) with these RWF_ `flags` would: a count, or a negative errno. Raises
        OSError if the kernel takes none of them.
        """
        held = [(ctypes.c_char * len(buffer)).from_buffer(buffer) for buffer in buffers]
        requests = []
        for number, memory in enumerate(held):
            place = (fd, ctypes.addressof(memory), len(memory), offset)
            iocb = _IOCB.pack(number, 0, flags, _PWRITE, 0, *place, 0, 0, 0)
            requests.append(ctypes.create_string_buffer(iocb, _IOCB.size))
            offset += len(memory)
        return self._wait(self._submit(requests))

    def _submit(self, requests: list[ctypes.Array[ctypes.c_char]]) -> list[int]:
        """Results so far: 0 for those under way, the errno for those that were refused."""
        results = [0] * len(requests)
        first = 0
        while first < len(requests):
            pointers = (ctypes.c_void_p * (len(requests) - first))(*map(ctypes.addressof, requests[first:]))
            try:
                first += self._call("io_submit", _SYS_IO_SUBMIT, self._context, len(pointers), pointers)
            except OSError as error:
                if not first:
                    raise
                results[first:] = [-(error.errno or 0)] * (len(requests) - first)
                break
        return results

    def _wait(self, results: list[int]) -> list[int]:
        left = results.count(0)
        events = ctypes.create_string_buffer(_EVENT.size * left)
        while left:
            try:
                got = self._call("io_getevents", _SYS_IO_GETEVENTS, self._context, left, left, events, None)
            except InterruptedError:
                continue
            for number, _, result, _ in _EVENT.iter_unpack(events.raw[: _EVENT.size * got]):
                results[number] = result
            left -= got
        return results

    def _call(self, what: str, number: int, *arguments: object) -> int:
        return check(self._libc.syscall(number, *arguments), what)
