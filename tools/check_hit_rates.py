#!/usr/bin/env python3
"""Compares kvtier's simulated LRU with KVCache.AI's `kvcache-simulator` (PyPI, Apache-2.0), which shares no code with it, token by
token.

    pip install kvcache-simulator
    tools/check_hit_rates.py target/release/kvtier TRACE [CAPACITY ...]

That simulator judges the second half of a trace, once its cache is full; kvtier's hits of the second half are those of the whole
less those of the first half alone, which a cold start makes the same. Its leaf-first LRU touches a chain from head to tail and
kvtier's from tail to head; since both evict leaves only, they keep the same blocks. Prints a line a capacity, exits 0 when all are
equal, and 3 without the package.
"""

import json
import pathlib
import subprocess
import sys
import tempfile


def replayed(kvtier, trace, capacity):
    command = [kvtier, "replay", str(trace), "--simulate", "--capacity-blocks", str(capacity), "--json"]
    report = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return report["hit_tokens"], report["prompt_tokens"]


def main():
    try:
        from kvcache_sim.plan import build_execution_plan
        from kvcache_sim.policies import simulate_policy
        from kvcache_sim.trace import parse_trace_file
    except ImportError as error:
        print(f"skipped: {error}")
        sys.exit(3)
    kvtier, trace, *capacities = sys.argv[1:]
    with open(trace, encoding="utf-8") as file:
        lines = [line for line in file if line.strip()]
    lines.sort(key=lambda line: json.loads(line)["timestamp"])
    with tempfile.TemporaryDirectory() as folder:
        half = pathlib.Path(folder) / "half.jsonl"
        half.write_text("".join(lines[: len(lines) // 2]), encoding="utf-8")
        whole = pathlib.Path(folder) / "whole.jsonl"
        whole.write_text("".join(lines), encoding="utf-8")
        plan = build_execution_plan(parse_trace_file(str(whole), block_size=512))
        for capacity in map(int, capacities or ["1000", "3000", "10000", "30000"]):
            theirs = simulate_policy(plan, "lru", capacity)
            (hit, prompt), (first, before) = (replayed(kvtier, path, capacity) for path in (whole, half))
            ours = (hit - first, prompt - before)
            if ours != (theirs.hitTokens, theirs.totalTokens):
                sys.exit(f"{capacity} blocks: kvtier hits {ours}, kvcache-simulator {theirs}")
            print(f"{capacity} blocks: {ours[0]} of {ours[1]} tokens ({ours[0] / ours[1]:.4f}), both")
    print("all equal")


if __name__ == "__main__":
    main()
