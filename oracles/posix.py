"""What POSIX and Linux' manual pages promise after a crash: the least any file system does."""

from __future__ import annotations

POSIX_SILENT = (
    # Nothing is said about what a crash leaves of a rename that no sync call covers.
    "names/rename-both",
    "names/half-rename",
    "names/lost-inode",
    # Nor of what data there is with a size.
    "extension/*",
    # A journal is not asked for: a crash may leave work for the checker.
    "fsck/*",
)

POSIX_SOURCES = {
    "data": "fsync(2): transfers all modified data of the file to the device",
    "size": "fsync(2), fdatasync(2): the size is needed to read the data back",
    "mode": "fsync(2): flushes the metadata of the file",
    "owner": "fsync(2): flushes the metadata of the file",
    "xattr": "fsync(2): flushes the metadata of the file",
    "times": "fsync(2): flushes the metadata of the file, fdatasync(2) need not",
    "name": "fsync(2): an explicit fsync of the directory is needed for its entries",
    "directory": "fsync(2): an explicit fsync of the directory is needed for its entries",
}
"""Promise -> source."""
