#!/usr/bin/env python3
"""Writes traces on which LRU is hard to beat: twelve seeded files in Mooncake's format, for judging a policy by what it loses.

    tools/hard_traces.py FOLDER

chats-N    conversations whose answers' lengths say whether they go on; in two of three files the meaning turns round every few thousand
           requests, and in some the lengths say nothing
recency-N  prompts that come back by how recently they were used, and by nothing else
agents-N   few long growing chains at a time, the latest of them most likely to go on

Then, for each file, each capacity N and each policy P: kvtier replay FILE --simulate --policy P --capacity-blocks N --json
"""

import heapq
import json
import random
import sys
from pathlib import Path

REQUESTS = 15_000


class Blocks:
    """Ids that nobody has used."""

    def __init__(self):
        self.next = 0

    def take(self, count):
        self.next += count
        return list(range(self.next - count, self.next))


def chats(chance, blocks, lengths_tell):
    prompts = [blocks.take(chance.randint(1, 6)) for _ in range(chance.choice([1, 4, 50]))]
    period = chance.choice([10**9, 3_000, 7_000])
    due = []
    for at in range(REQUESTS):
        if due and (due[0][0] <= at or len(due) > chance.choice([200, 2_000])):
            _, _, chain, left = heapq.heappop(due)
            chain = chain + blocks.take(chance.randint(1, 6))
        else:
            chain = chance.choice(prompts) + blocks.take(chance.randint(1, 8))
            left = 0 if chance.random() < chance.choice([0.3, 0.6, 0.8]) else chance.randint(1, 10)
        short = (left > 0) != ((at // period) % 2 == 1)
        output = chance.lognormvariate(4 if short else 7, 1) if lengths_tell else chance.lognormvariate(5, 1.5)
        yield chain, int(output)
        if left > 0:
            gap = int(chance.expovariate(1 / chance.choice([50, 300, 1_500])))
            heapq.heappush(due, (at + gap, chance.random(), chain, left - 1))


def recency(chance, blocks):
    stack, depth, new = [], chance.choice([20, 100, 400]), chance.choice([0.1, 0.3, 0.5])
    for _ in range(REQUESTS):
        if not stack or chance.random() < new:
            chain = blocks.take(chance.randint(2, 15))
        else:
            chain = stack.pop(-1 - min(int(chance.expovariate(1 / depth)), len(stack) - 1))
        stack.append(chain)
        yield chain, chance.randint(1, 1_000)


def agents(chance, blocks):
    live = []
    for _ in range(REQUESTS // 3):
        if len(live) < chance.choice([5, 30]) or chance.random() < 0.02:
            live.append(blocks.take(20))
        latest = len(live) - 1 - min(int(chance.expovariate(0.5)), len(live) - 1)
        at = chance.randrange(len(live)) if chance.random() < 0.5 else latest
        live[at] = live[at] + blocks.take(chance.randint(1, 5))
        yield live[at], chance.randint(10, 300)
        if len(live[at]) > 300 or chance.random() < 0.01:
            live.pop(at)


def write(path, requests):
    with path.open("w") as file:
        for number, (chain, output) in enumerate(requests):
            line = {"timestamp": number * 100, "input_length": len(chain) * 512, "output_length": output, "hash_ids": chain}
            file.write(json.dumps(line) + "\n")


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__.strip())
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(6):
        chance = random.Random(seed)
        write(folder / f"chats-{seed}.jsonl", chats(chance, Blocks(), lengths_tell=seed % 3 != 2))
    for seed in range(3):
        write(folder / f"recency-{seed}.jsonl", recency(random.Random(10 + seed), Blocks()))
        write(folder / f"agents-{seed}.jsonl", agents(random.Random(20 + seed), Blocks()))


if __name__ == "__main__":
    main()
