#!/usr/bin/env python3
"""kvtier beside Redis and Mooncake Store: the same loads, in turn, in one run on one machine. Prints a table.

    tools/peers/setup.sh                                what it needs, once
    tools/peers/compare.py [--json] [--blocks 1024] [--turns 2] [--kvtier PATH]

The loads: store blocks of 1 MiB, one a key; load them; say whether 4,096 keys are there. One client with one connection, in
a process of its own beside the server's; over shared memory, a Unix socket and TCP of the loopback, where a peer has them.
Nothing is written to a drive. A turn runs each peer alone (started, warmed by a round that does not count, measured, ended);
turns go forwards and backwards by turns. A cell is the median of the turns, and their range; of two ways to do the same
(`loads.Figures` has all, and so does --json) the faster one counts, and the table says which it is.

What is compared with what:
- kvtier: figures of `kvtier bench`, of the names in the table; a round loads 4,096 blocks from shared memory, fetches 1,024,
  stores 512. It compares a checksum of each block that it loads from shared memory.
- Mooncake Store: `batch_put_from` and `batch_get_into`, its copies straight from and into the worker's memory, without
  checksums. Through shared memory it stores from a pool of its own, so a worker has to fill that first, as with kvtier's
  `put_shared`: that is counted in one row and not in the other.
- Redis: the faster of two clients, without checksums.
- Blocks come into the worker's own memory through shared memory and with Mooncake; over sockets kvtier and Redis leave them in
  what they were received into. All store from one block that stays the same, which caches hold, but for Mooncake's
  "already filled".
- Keys: kvtier's client sends hashes and learns how long a prefix is there and in which tier; Mooncake is called from Python;
  Redis's requests are made before the time begins, and its faster answer only counts the keys.
- The limits are the machine's, for bytes and nothing else: memcpy, and a socket between two threads.

What can't be had here says "not measured" and why; nothing is made up for it. Needs about 8 GiB of memory, and four minutes.
"""

import argparse
import json
import os
import pathlib
import platform
import signal
import statistics
import sys
import tempfile
import time

import kvtier_peer
import loads
import mooncake_peer
import redis_peer

COLUMNS = {"load": "load, GB/s", "store": "store, GB/s", "lookup": "4,096 keys there?, µs"}
ORDER = ["limit: memcpy", "limit: bare Unix socket", "limit: bare TCP socket"]
ORDER += [*kvtier_peer.ROWS, mooncake_peer.SHARED, mooncake_peer.FILLED, mooncake_peer.TCP, *redis_peer.ROWS]


def take_turns(options, figures):
    """All the turns; gives kvtier's hints about this host."""
    path, hints = kvtier_peer.program(options.kvtier), []
    peers = [
        (kvtier_peer.ROWS, lambda folder: hints.extend(kvtier_peer.measure(path, folder, figures))),
        (mooncake_peer.ROWS, lambda folder: mooncake_peer.measure(options.blocks, folder, figures)),
        (redis_peer.ROWS, lambda folder: redis_peer.measure(options.blocks, folder, figures)),
    ]
    for turn in range(options.turns):
        for rows, measure in peers[:: -1 if turn % 2 else 1]:
            print(f"turn {turn + 1} of {options.turns}: {rows[0].split(',')[0]}", file=sys.stderr, flush=True)
            loads.copies(options.blocks, figures)
            with tempfile.TemporaryDirectory(prefix="kvtier-peers-") as folder:
                with figures.attempt(*rows):
                    measure(pathlib.Path(folder))
    return list(dict.fromkeys(hints))


def best(column, methods):
    """(method, medians of the turns) of the faster one."""
    fastest = min if column == "lookup" else max
    return fastest(methods.items(), key=lambda method: statistics.median(method[1]))


def cell(column, methods):
    if not methods:
        return "-"
    _, medians = best(column, methods)
    words = "{:,.0f}" if column == "lookup" else "{:.2f}"
    middle, least, most = (words.format(value) for value in (statistics.median(medians), min(medians), max(medians)))
    return middle if len(medians) == 1 else f"{middle} ({least} to {most})"


def table(figures):
    """Markdown, in columns for those who read it as it is."""
    lines = [["", *COLUMNS.values(), "by"]]
    for row in ORDER:
        found = figures.found.get(row, {})
        ways = dict.fromkeys(best(column, found[column])[0] for column in COLUMNS if column in found)
        by = "; ".join(ways)
        if row in figures.missing:
            by = f"not measured: {figures.missing[row]}" if not found else f"{by}; a turn not measured: {figures.missing[row]}"
        if by:
            lines.append([row, *(cell(column, found.get(column)) for column in COLUMNS), by])
    widths = [max(len(line[at]) for line in lines) for at in range(len(lines[0]))]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join("| " + " | ".join(word.ljust(width) for word, width in zip(line, widths)) + " |" for line in lines)


def machine():
    """The processor, its cores, memory and system."""

    def after(path, start):
        lines = pathlib.Path(path).read_text().splitlines()
        return next((line[len(start) :].strip(' \t:="') for line in lines if line.startswith(start)), "?")

    memory = int(after("/proc/meminfo", "MemTotal").split()[0]) / (1 << 20)
    words = [f"{os.cpu_count()} cores of {after('/proc/cpuinfo', 'model name')}", f"{memory:.0f} GiB"]
    return ", ".join([*words, after("/etc/os-release", "PRETTY_NAME"), f"Linux {platform.release()}"])


def main():
    parser = argparse.ArgumentParser(description="kvtier beside Redis and Mooncake Store, in one run. See the file's head.")
    parser.add_argument("--blocks", type=int, default=1024, help="blocks of 1 MiB in a round (kvtier bench has its own)")
    parser.add_argument("--turns", type=int, default=2, help="how often each peer is run")
    parser.add_argument("--kvtier", help="the program; default: the one built in this clone, or on the PATH")
    parser.add_argument("--json", action="store_true", help="print one JSON document, with every turn's median")
    options = parser.parse_args()
    if options.blocks < 1 or options.turns < 1:
        parser.error("--blocks and --turns must be at least 1")
    # So that what was started is ended, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    began, load = time.monotonic(), os.getloadavg()[0]
    figures = loads.Figures()
    hints = take_turns(options, figures)
    report = {
        "machine": machine(),
        "load_average": [round(load, 2), round(os.getloadavg()[0], 2)],
        "seconds": round(time.monotonic() - began),
        "blocks": options.blocks,
        "turns": options.turns,
        "versions": {
            "kvtier": kvtier_peer.version(kvtier_peer.program(options.kvtier)),
            "mooncake": mooncake_peer.version(),
            "redis": redis_peer.version(),
        },
        "figures": figures.found,
        "not_measured": figures.missing,
        "hints": hints,
    }
    if options.json:
        print(json.dumps(report, indent=1, ensure_ascii=False))
        return
    print(table(figures))
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    print(f"\n{versions}; {report['machine']}")
    print(f"load average {load:.1f} before and {os.getloadavg()[0]:.1f} after; {report['seconds']} s")
    for hint in hints:
        print(f"hint: {hint}")


if __name__ == "__main__":
    main()
