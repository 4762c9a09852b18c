"""The FUSE recorder: a loop device over a file whose file system is ours and logs every write.

Needs no device-mapper, and its log has times. It cannot record discards (pyfuse3 has no fallocate),
so its devices do not offer any.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import fuzzer
from fuzzer.errors import InfrastructureError, LostWorkerError
from fuzzer.kernel import libc
from fuzzer.kernel.loop import PrivateMinor, private_minor
from fuzzer.kernel.mount import unmount
from fuzzer.kernel.process import die_with_parent
from fuzzer.kernel.procfs import mounts_under
from fuzzer.kernel.recorder.base import DelayedIO, check_recorder
from fuzzer.kernel.workarea import RunArea

LOG_LIMIT_BYTES = 4 << 30
_START_S = 30.0
_ANSWER_S = 10.0
_END_S = 5.0
_MAX_PACKET_BYTES = 1 << 16
_STDERR_BYTES = 4000

Answer = dict[str, str | int]


@contextmanager
def fuse_recorder(area: RunArea, log_limit_bytes: int = LOG_LIMIT_BYTES) -> Iterator[FuseRecorder]:
    """Start the server, check that a flush arrives, and record until the block ends.

    InfrastructureError if it does not work here, LostWorkerError if the server dies or hangs.
    """
    directory = area.mkdir("recorder")
    mountpoint, fusectl = directory / "disks", directory / "fusectl"
    with ExitStack() as stack:
        stack.callback(directory.rmdir)
        for made in (mountpoint, fusectl):
            made.mkdir()
            stack.callback(made.rmdir)
        libc.mount("none", str(fusectl), "fusectl")
        stack.callback(unmount, fusectl)
        client = stack.enter_context(_server(area, directory, mountpoint))
        minor = stack.enter_context(private_minor(area))
        connection = mounts_under(mountpoint)[0].minor
        abort = fusectl / str(connection) / "abort"
        recorder = FuseRecorder(client, mountpoint, minor, abort, log_limit_bytes)
        check_recorder(recorder, area.path)
        yield recorder


class FuseRecorder:
    """See `base.Recorder`. `abort_file` is the fusectl file of the server's connection."""

    name = "fuse"
    timed = True
    delays = True

    def __init__(
        self, client: Client, mountpoint: Path, minor: PrivateMinor, abort_file: Path, log_limit_bytes: int
    ) -> None:
        self._client = client
        self._mountpoint = mountpoint
        self._minor = minor
        self._abort_file = abort_file
        self._log_limit_bytes = log_limit_bytes
        self._aborted = False

    @contextmanager
    def record(self, image: Path, log: Path, delay: DelayedIO | None = None) -> Iterator[FuseDevice]:
        held = delay or DelayedIO("", "", 0)
        started = self._client.ask(
            "start",
            image=str(image),
            log=str(log),
            limit_bytes=self._log_limit_bytes,
            fs=held.fs,
            delay=held.text,
            seed=held.seed,
        )
        disk = int(started["disk"])
        try:
            with self._attached(self._mountpoint / str(started["name"])) as device:
                yield FuseDevice(device, self._client, disk)
        finally:
            if not (self._client.lost or self._aborted):
                self._client.ask("stop", disk=disk)

    @contextmanager
    def _attached(self, path: Path) -> Iterator[str]:
        with self._minor.attached(path, direct_io=True) as device:
            _refuse_discards(device)
            try:
                yield device
            except BaseException:
                # Who aborted has something to say that must not be hidden behind a lost server.
                if not self._aborted:
                    self._check_alive()
                raise
            self._check_alive()

    def _check_alive(self) -> None:
        """Abort the connection if the server is lost, or detaching would wait for it for ever."""
        try:
            self._client.ask("hello")
        except LostWorkerError:
            self.abort()
            raise

    def abort(self) -> None:
        self._aborted = True
        with suppress(FileNotFoundError):  # The connection ends with a server that died.
            self._abort_file.write_text("1")


def _refuse_discards(device: str) -> None:
    """Take discards off the device: each would fail below and leave a line in the kernel log.

    The setting stays with the minor, which is private. Writing it takes 15 ms (the queue is frozen
    meanwhile), so only the first recording pays.
    """
    attribute = Path("/sys/block", Path(device).name, "queue/discard_max_bytes")
    if attribute.read_text().strip() != "0":
        attribute.write_text("0")


@dataclass(frozen=True, slots=True)
class FuseDevice:
    """See `base.RecordedDevice`."""

    device: str
    _client: Client
    _disk: int

    def mark(self, text: str) -> None:
        self._client.ask("mark", disk=self._disk, text=text)


@contextmanager
def _server(area: RunArea, directory: Path, mountpoint: Path) -> Iterator[Client]:
    """A running server with its file system mounted; unmounted and gone at the end."""
    address, stderr = directory / "socket", directory / "stderr"
    with ExitStack() as stack:
        for path in (address, stderr):
            stack.callback(path.unlink, missing_ok=True)
        process = _spawn(mountpoint, address, stderr)
        try:
            area.note_process(process.pid)
            client = Client(address, stderr)
            stack.callback(client.close)
            client.ask("hello", timeout_s=_START_S)
            yield client
        finally:
            status = _end(process, mountpoint)
        # Reached only if nobody has a better error.
        if status:
            raise LostWorkerError(f"the recorder ended with status {status}", hint=_tail(stderr))


def _spawn(mountpoint: Path, address: Path, stderr: Path) -> subprocess.Popen[bytes]:
    """Start the server on a socket that is listening already, so that nobody has to wait for it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener, stderr.open("xb") as errors:
        listener.bind(str(address))
        listener.listen()
        return subprocess.Popen(
            [sys.executable, "-m", "fuzzer.kernel.recorder.fuse_server", mountpoint, str(listener.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
            cwd=Path(fuzzer.__file__).parents[1],
            pass_fds=(listener.fileno(),),
            start_new_session=True,
            preexec_fn=partial(die_with_parent, os.getpid()),
        )


def _end(process: subprocess.Popen[bytes], mountpoint: Path) -> int:
    """Unmount, which ends a healthy server; a hung one is killed. A dead one's mount goes the same way."""
    if mounts_under(mountpoint):
        unmount(mountpoint)
    try:
        return process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait(_END_S)


def _tail(stderr: Path) -> str:
    return stderr.read_bytes()[-_STDERR_BYTES:].decode(errors="replace").strip()


class Client:
    """Talks to the server. Every process has a connection of its own: forked children may use it too."""

    def __init__(self, address: Path, stderr: Path) -> None:
        self._address = address
        self._stderr = stderr
        self.lost = False
        self._connections: dict[int, socket.socket] = {}

    def ask(self, do: str, *, timeout_s: float = _ANSWER_S, **arguments: str | int) -> Answer:
        """Send one request and return its answer.

        LostWorkerError if there is none in time, InfrastructureError if the server says it failed.
        """
        request = json.dumps({"do": do, **arguments}).encode()
        try:
            packet = self._exchange(request, timeout_s)
        except TimeoutError:
            raise self._lost(f"hangs: no answer to {do} in {timeout_s:g} s") from None
        except OSError as error:
            raise self._lost(f"died: {error}") from None
        if not packet:
            raise self._lost("died")
        answer: Answer = json.loads(packet)
        if "error" in answer:
            raise InfrastructureError(f"the recorder could not {do}: {answer['error']}")
        return answer

    def _exchange(self, request: bytes, timeout_s: float) -> bytes:
        connection = self._connections.get(os.getpid())
        if connection is None:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            connection.connect(str(self._address))
            self._connections[os.getpid()] = connection
        connection.settimeout(timeout_s)
        connection.send(request)
        return connection.recv(_MAX_PACKET_BYTES)

    def _lost(self, how: str) -> LostWorkerError:
        """The error for a lost server. A late answer must not be taken for another's: close."""
        self.lost = True
        self.close()
        return LostWorkerError(f"the recorder {how}", hint=_tail(self._stderr))

    def close(self) -> None:
        connection = self._connections.pop(os.getpid(), None)
        if connection is not None:
            connection.close()
