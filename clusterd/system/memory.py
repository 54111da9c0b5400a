"""How much memory a process costs. PSS (proportional set size) is the honest figure for forked engines.

RSS counts each page that engines share with their zygote once per engine; PSS divides it among those who map it.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["proportional_set_size"]


def proportional_set_size(pid: int) -> int | None:
    """Return the PSS of a process in bytes (proc_pid_smaps(5)), or None when it is gone or not ours to look at.

    The kernel walks the page tables for it (milliseconds for a large process): for `status --memory`, not for a loop.
    """
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return None  # a kernel thread or a zombie: the file is empty
