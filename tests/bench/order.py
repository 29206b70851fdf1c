"""The functions that ran, in the order in which a release has them, one name a line.

By a profile in LLVM's text form, and by what callgrind saw of a pair that starts and rests.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Set
from pathlib import Path

# A function, or one that is called: named where its number is met first. What has no symbol is an address there.
SEEN = re.compile(r"^c?fn=\(\d+\) ([A-Za-z_][\w.$]*)", re.MULTILINE)


def functions(text: str) -> Iterator[tuple[str, int]]:
    """Names with the greatest of their counters."""
    for block in text.split("\n\n"):
        lines = [line for line in block.splitlines() if line and line[0] not in "#:"]
        if len(lines) < 3:
            continue
        # A name, a hash, how many counters, the counters. What is local to a file is named by it first.
        name, _, count, *rest = lines
        yield name.rpartition(";")[2], max(map(int, rest[: int(count)]), default=0)


def seen(text: str) -> set[str]:
    """The functions that callgrind saw run: those of C, too, which no profile counts."""
    return set(SEEN.findall(text))


def order(text: str, at_rest: Set[str] = frozenset()) -> list[str]:
    """The names of those that ran, the most frequent first; those of a proxy at rest before all others.

    The kernel maps sixteen pages around each one that is looked at, so what a proxy at rest has looked at stands
    apart from what only load runs. Ties are in the order of their names, so that the file is always the same.
    """
    ran = {name: count for name, count in functions(text) if count}
    return sorted(ran.keys() | at_rest, key=lambda name: (name not in at_rest, -ran.get(name, 0), name))


if __name__ == "__main__":
    profile, *calls = map(Path, sys.argv[1:])
    at_rest = {name for path in calls for name in seen(path.read_text(errors="replace"))}
    print("\n".join(order(profile.read_text(), at_rest)))
