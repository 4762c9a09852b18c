"""Recorders: block devices whose every write ends up in a dm-log-writes log."""
