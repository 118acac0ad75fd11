"""Huge pages: memory is what it was, and is in huge pages where the kernel has them."""

import mmap
import re
from pathlib import Path

from dagster_taskiq_kit.host.huge_pages import use_huge_pages

SIZE = 16 * 1024 * 1024


def huge_kib():
    return int(re.search(r"AnonHugePages: +(\d+)", Path("/proc/self/smaps_rollup").read_text())[1])


def test_memory_is_in_huge_pages_and_what_it_was():
    memory = mmap.mmap(-1, SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    pattern = bytes(range(256)) * (SIZE // 256)
    memory[:] = pattern
    before = huge_kib()
    use_huge_pages()
    assert memory[:] == pattern
    modes = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    release = tuple(map(int, Path("/proc/sys/kernel/osrelease").read_text().split(".")[:2]))
    if modes.exists() and release >= (6, 1):
        assert huge_kib() >= before + SIZE // 1024 - 4096
    memory.close()
