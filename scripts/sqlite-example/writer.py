"""Commit rows one by one; once a commit has returned, the row's number is a mark in the log of writes.

Arguments: journal mode, synchronous (both as SQLite's pragmas take them), number of rows.
"""

import os
import socket
import sqlite3
import sys

journal_mode, synchronous, rows = sys.argv[1:]

marks = socket.socket(socket.AF_UNIX)
marks.connect(os.environ["POWERCUT_MARKS"])
db = sqlite3.connect("rows.db", isolation_level=None)
db.execute(f"PRAGMA journal_mode={journal_mode}")
db.execute(f"PRAGMA synchronous={synchronous}")
db.execute("CREATE TABLE rows (number INTEGER PRIMARY KEY, payload BLOB)")
for number in range(1, int(rows) + 1):
    db.execute("INSERT INTO rows VALUES (?, randomblob(3000))", (number,))
    marks.sendall(f"{number}\n".encode())
    assert marks.recv(16) == b"ok\n"
