"""The functions that ran, by a profile in LLVM's text form: the most frequent first, one name a line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path


def functions(text: str) -> Iterator[tuple[str, int]]:
    """Names with the greatest of their counters."""
    for block in text.split("\n\n"):
        lines = [line for line in block.splitlines() if line and line[0] not in "#:"]
        if len(lines) < 3:
            continue
        # A name, a hash, how many counters, the counters. What is local to a file is named by it first.
        name, _, count, *rest = lines
        yield name.rpartition(";")[2], max(map(int, rest[: int(count)]), default=0)


def order(text: str) -> list[str]:
    """The names of those that ran; ties in the order of their names, so that the file is always the same."""
    ran = {name: count for name, count in functions(text) if count}
    return sorted(ran, key=lambda name: (-ran[name], name))


if __name__ == "__main__":
    print("\n".join(order(Path(sys.argv[1]).read_text())))
