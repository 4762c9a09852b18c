"""What kernels print in trouble, in the formats of lib/bug.c, kernel/hung_task.c, lockdep, KASAN, xfs, btrfs.

Made up, with the functions and numbers of no real incident.
"""

from __future__ import annotations

BTRFS_ABORT = """\
------------[ cut here ]------------
BTRFS: Transaction aborted (error -28)
WARNING: CPU: 1 PID: 4711 at fs/btrfs/extent-tree.c:2963 do_free_extent_accounting+0x1a2/0x2f0 [btrfs]
Modules linked in: btrfs xor loop
CPU: 1 UID: 0 PID: 4711 Comm: {process} Not tainted 6.18.0 #1 PREEMPT(none)
Hardware name: QEMU Standard PC, BIOS 1.16.2 04/01/2014
RIP: 0010:do_free_extent_accounting+0x1a2/0x2f0 [btrfs]
Code: 8b 7d 50 89 c6 e8 0b
RSP: 0018:ffffc90000a4fb38 EFLAGS: 00010286
Call Trace:
 <TASK>
 __btrfs_free_extent+0x6b5/0xfe0 [btrfs]
 btrfs_commit_transaction+0x6e/0xbe0 [btrfs]
 </TASK>
---[ end trace 0000000000000000 ]---
BTRFS error (device {device} state A): Transaction aborted (error -28)
BTRFS: error (device {device} state A) in do_free_extent_accounting:2963: errno=-28 No space left
BTRFS info (device {device} state EA): forced readonly"""

BTRFS_WARN = """\
------------[ cut here ]------------
WARNING: fs/btrfs/block-group.c:4402 at btrfs_free_block_groups.part.0+0x3a1/0x470, CPU#0: {process}/99
Modules linked in:
CPU: 0 UID: 0 PID: 99 Comm: {process} Not tainted 6.19.0-rc1 #4 NONE
Call Trace:
 <TASK>
 close_ctree+0x2a1/0x3b0
 generic_shutdown_super+0x7a/0x1a0
 </TASK>
---[ end trace 0000000000000000 ]---"""

XFS_CORRUPTION = """\
XFS ({device}): Metadata corruption detected at xfs_dinode_verify.part.0+0x33b/0x8a0, inode 0x86 dinode
XFS ({device}): Unmount and run xfs_repair
XFS ({device}): First 128 bytes of corrupted metadata buffer:
00000000: 49 4e 81 a4 03 02 00 00 00 00 00 00 00 00 00 00  IN..............
00000010: 00 00 00 01 00 00 00 00 00 00 00 00 00 00 00 00  ................
XFS ({device}): Internal error xfs_trans_cancel at line 955 of file xfs_trans.c.  Caller xfs_create+0x2/0x5
CPU: 0 UID: 0 PID: 12 Comm: {process} Not tainted 6.18.0 #1 PREEMPT(none)
Hardware name: QEMU Standard PC, BIOS 1.16.2 04/01/2014
Call Trace:
 <TASK>
 dump_stack_lvl+0x5d/0x80
 xfs_trans_cancel+0x12a/0x150
 xfs_create+0x2c1/0x550
 </TASK>
XFS ({device}): Corruption of in-memory data (0x8) detected at xfs_trans_cancel+0x1/0x5.  Shutting down."""

NULL_POINTER = """\
BUG: kernel NULL pointer dereference, address: 000000000000002c
#PF: supervisor read access in kernel mode
#PF: error_code(0x0000) - not-present page
PGD 0 P4D 0
Oops: Oops: 0000 [#1] SMP NOPTI
CPU: 1 UID: 0 PID: 812 Comm: btrfs-balance Not tainted 6.18.0 #1 PREEMPT(none)
RIP: 0010:btrfs_root_node+0x13/0x80
Call Trace:
 <TASK>
 btrfs_read_lock_root_node+0x25/0x80
 balance_kthread+0x3b/0x60
 </TASK>
---[ end trace 0000000000000000 ]---"""

KERNEL_BUG = """\
------------[ cut here ]------------
kernel BUG at fs/btrfs/ctree.c:1999!
Oops: invalid opcode: 0000 [#1] SMP NOPTI
CPU: 0 UID: 0 PID: 5 Comm: {process} Not tainted 6.18.0 #1 PREEMPT(none)
RIP: 0010:btrfs_del_items.isra.0+0x55a/0x600
---[ end trace 0000000000000000 ]---"""

KASAN = """\
==================================================================
BUG: KASAN: slab-use-after-free in btrfs_find_all_roots.constprop.0+0x5a1/0x5f0
Read of size 8 at addr ffff888103a2c028 by task {process}/512

CPU: 0 UID: 0 PID: 512 Comm: {process} Not tainted 6.18.0 #1 PREEMPT(none)
Call Trace:
 <TASK>
 dump_stack_lvl+0x5d/0x80
 print_report+0x171/0x4f8
 btrfs_find_all_roots.constprop.0+0x5a1/0x5f0
 </TASK>

Allocated by task 412:
 kasan_save_stack+0x24/0x50
Freed by task 512:
 kfree+0x131/0x3c0
Memory state around the buggy address:
 ffff888103a2bf00: fc fc fc fc fc fc fc fc fc fc fc fc fc fc fc fc
=================================================================="""

HUNG_TASK = """\
INFO: task {process}:812 blocked for more than 122 seconds.
      Not tainted 6.18.0 #1
"echo 0 > /proc/sys/kernel/hung_task_timeout_secs" disables this message.
task:{process}     state:D stack:0     pid:812   tgid:812   ppid:1      task_flags:0x400100 flags:0x00004002
Call Trace:
 <TASK>
 __schedule+0x3c4/0xb00
 schedule+0x27/0xd0
 io_schedule+0x46/0x70
 folio_wait_bit_common+0x13d/0x340
 extent_write_cache_pages+0x1ac/0x8c0
 btrfs_writepages+0x75/0x130
 </TASK>"""

LOCKDEP = """\
======================================================
WARNING: possible circular locking dependency detected
6.18.0+ #64 Not tainted
------------------------------------------------------
{process}/2100 is trying to acquire lock:
ffff888015170f68 (&sb->s_type->i_mutex_key#22){{+.+.}}-{{4:4}}, at: btrfs_inode_lock+0x65/0xb0

but task is already holding lock:
ffff8880118027b8 (btrfs-tree-01/1){{+.+.}}-{{4:4}}, at: __btrfs_tree_lock+0x2e/0x1a0

which lock already depends on the new lock.

stack backtrace:
CPU: 0 UID: 0 PID: 2100 Comm: {process} Not tainted 6.18.0+ #64
Call Trace:
 <TASK>
 dump_stack_lvl+0x5d/0x80
 btrfs_inode_lock+0x65/0xb0
 </TASK>"""

SOFT_LOCKUP = """\
watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [{process}:2100]
Modules linked in:
CPU: 0 UID: 0 PID: 2100 Comm: {process} Not tainted 6.18.0 #1
RIP: 0010:xfs_buf_item_pin+0x5/0x80
Call Trace:
 <TASK>
 xlog_cil_insert_items+0x1f1/0x8f0
 </TASK>"""

TITLES = {
    BTRFS_ABORT: "BTRFS: Transaction aborted (error -28) in do_free_extent_accounting",
    BTRFS_WARN: "WARNING in btrfs_free_block_groups",
    XFS_CORRUPTION: "XFS (DEV): Metadata corruption detected at xfs_dinode_verify.part.N, inode N dinode",
    NULL_POINTER: "BUG: kernel NULL pointer dereference, address: N in btrfs_root_node",
    KERNEL_BUG: "kernel BUG at fs/btrfs/ctree.c:N! in btrfs_del_items",
    KASAN: "KASAN: slab-use-after-free in btrfs_find_all_roots",
    HUNG_TASK: "task blocked in extent_write_cache_pages",
    LOCKDEP: "WARNING: possible circular locking dependency detected: "
    "&sb->s_type->i_mutex_key#22 in btrfs_inode_lock",
    SOFT_LOCKUP: "watchdog: BUG: soft lockup - CPU#N in xfs_buf_item_pin",
}
"""The bucket each gets."""


def lines_of(splat: str, process: str = "pc-0123abcd", device: str = "loop101") -> list[str]:
    """The lines of a splat of one process on one device."""
    return splat.format(process=process, device=device).split("\n")
