"""Puts the memory of a process that forks others into huge pages.

Invariant: nothing but the cost of a fork changes; where the kernel cannot, nothing happens.

A fork copies one entry for each page that its parent has, and each end of a child drops them: of a
gigabyte that is 262,144 entries in pages of 4 KiB and 512 in pages of 2 MiB. A page that a child
writes to is still copied as one of 4 KiB.
"""

import ctypes
import sys
from collections.abc import Iterator
from pathlib import Path

#: Linux 6.1; see madvise(2).
_MADV_COLLAPSE = 25
_HUGE_BYTES = 2 * 1024 * 1024


def use_huge_pages() -> None:
    """Put what this process has of private memory into huge pages, as far as there are any."""
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    for begin, end in _private_memory():
        libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), _MADV_COLLAPSE)


def _private_memory() -> Iterator[tuple[int, int]]:
    """Yield begin and end of what is anonymous and writable, in whole huge pages."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        addresses, permissions, _, _, inode, *path = line.split()
        if permissions == "rw-p" and inode == "0" and path in ([], ["[heap]"]):
            first, last = (int(each, 16) for each in addresses.split("-"))
            begin = -(-first // _HUGE_BYTES) * _HUGE_BYTES
            end = last // _HUGE_BYTES * _HUGE_BYTES
            if begin < end:
                yield begin, end
