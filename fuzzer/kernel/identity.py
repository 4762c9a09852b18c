"""Identity of an inode, of an open file or of a name, without a stat: what history and tree compare.

Both the actors and the tree walker read it here, so an inode has one identity before the crash and
after. The source is the NFS file handle: one call gives number and generation of any inode at once,
of symbolic links too, where xfs has no ioctl for it.
"""

from __future__ import annotations

import os
import struct

from fuzzer.errors import InfrastructureError
from fuzzer.kernel.libc import AT_EMPTY_PATH, HandleReader
from fuzzer.state.inode import make_inode

_HEAD = struct.Struct("=Ii")
_INO64_GEN = struct.Struct("=QI")
_INO32_GEN = struct.Struct("=II")
_INO64_SUBVOL = struct.Struct("=QQ")
_FS_TREE = 5
"""BTRFS_FS_TREE_OBJECTID: the subvolume a mount shows if nothing else was asked for."""

_SHORT, _LONG, _BTRFS = (8, 1), (12, 0x81), (20, 0x4D)
"""(bytes, type) of handles. xfs says FILEID_INO32_GEN, with XFS_FILEID_TYPE_64FLAG (0x80) if the file
system may hold 64-bit numbers (fs/xfs/xfs_export.c, xfs_fs_encode_fh). btrfs says
FILEID_BTRFS_WITHOUT_PARENT: number, subvolume, generation (fs/btrfs/export.c, btrfs_encode_fh)."""


class InodeReader:
    """Reads inode identities of one kind of file system, `btrfs` or `xfs`. Not for several threads."""

    __slots__ = ("_fs", "_handles")

    def __init__(self, fs: str) -> None:
        self._fs = fs
        self._handles = HandleReader()

    def of_fd(self, fd: int) -> int:
        """Identity of an open file; O_PATH will do. OSError as name_to_handle_at(2)."""
        return self._parse(self._handles.read(fd, b"", AT_EMPTY_PATH))

    def of_name(self, dir_fd: int, name: str) -> int:
        """Identity of what `name` in the directory is now, a symbolic link itself included."""
        return self._parse(self._handles.read(dir_fd, os.fsencode(name)))

    def _parse(self, buffer: bytearray) -> int:
        head = _HEAD.unpack_from(buffer)
        if self._fs == "btrfs" and head == _BTRFS:
            # The generation is left out: log replay may write another one (state/inode.py).
            number, subvolume = _INO64_SUBVOL.unpack_from(buffer, _HEAD.size)
            return make_inode(number, 0 if subvolume == _FS_TREE else subvolume)
        if self._fs == "xfs" and head == _LONG:
            return make_inode(*_INO64_GEN.unpack_from(buffer, _HEAD.size))
        if self._fs == "xfs" and head == _SHORT:
            return make_inode(*_INO32_GEN.unpack_from(buffer, _HEAD.size))
        raise InfrastructureError(
            f"file handle of {head[0]} bytes, type {head[1]:#x}, is not one of {self._fs}'s"
        )
