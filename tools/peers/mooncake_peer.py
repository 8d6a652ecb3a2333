"""Mooncake Store: its master and one segment, in processes of their own, and a worker that stores and loads.

The worker is this file again, run by the Python that has Mooncake: through shared memory (`setup_dummy`, its memory pool),
or over TCP (`setup`, with memory that it registers). Blocks go by `batch_put_from` and come by `batch_get_into`, which copy
straight from and into the worker's memory; keys are looked for by `batch_is_exist`. Batches of 128 keys, as inference engines
send them, and of all keys at once are tried, and the faster counts.
"""

import ctypes
import json
import os
import pathlib
import subprocess
import sys

from loads import BLOCK, LOOKUP_KEYS, ROUNDS, SMALL, Figures, Memory, NotMeasured, free_port, gigabytes, listens, lookups
from loads import running, said_by, stamp, timed

ENVIRONMENT = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "kvtier" / "peers"
PYTHON = ENVIRONMENT / "bin" / "python"
BATCH = 128
WORKER_SECONDS = 90
ROWS = SHARED, TCP = "Mooncake, shared memory", "Mooncake, TCP"
# Its blocks lie in the memory that it shares before the time begins.
FILLED = f"{SHARED}, already filled"


def measure(blocks, folder, figures):
    """One turn."""
    programs = next(iter(ENVIRONMENT.glob("lib/python3*/site-packages/mooncake")), None)
    if programs is None:
        raise NotMeasured("no Mooncake; tools/peers/setup.sh installs it")
    env = {**os.environ, "LD_LIBRARY_PATH": str(programs)}
    rpc, metadata, metrics, client = (free_port() for _ in range(4))
    master = [str(programs / "mooncake_master"), "--rpc_address=127.0.0.1", f"--rpc_port={rpc}"]
    master += ["--enable_http_metadata_server=true", "--http_metadata_server_host=127.0.0.1"]
    master += [f"--http_metadata_server_port={metadata}", "--metrics_host=127.0.0.1", f"--metrics_port={metrics}"]
    # Room for what is loaded and what is stored, and so much more that nothing is evicted, which begins at 95 %.
    segment_bytes = 9 * blocks * BLOCK // 4 + (64 << 20)
    segment = [str(programs / "mooncake_client"), "--host=127.0.0.1", f"--port={client}", "--protocol=tcp"]
    segment += [f"--global_segment_size={segment_bytes}", f"--master_server_address=127.0.0.1:{rpc}"]
    segment += [f"--metadata_server=http://127.0.0.1:{metadata}/metadata"]
    with running(master, folder, lambda: listens(rpc)() and listens(metadata)(), env):
        with running(segment, folder, listens(client), env):
            for row in ROWS:
                job = {"row": row, "blocks": blocks, "rpc": rpc, "metadata": metadata, "client": client}
                with figures.attempt(row):
                    ask_worker(job, folder, figures)


def ask_worker(job, folder, figures):
    command = [str(PYTHON), __file__, json.dumps(job)]
    with open(folder / "worker.log", "wb") as log:
        try:
            said = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=log, timeout=WORKER_SECONDS)
        except subprocess.TimeoutExpired:
            raise NotMeasured(f"{job['row']} took more than {WORKER_SECONDS} s") from None
    last = said.stdout.decode(errors="replace").strip().splitlines()[-1:] or ["{}"]
    try:
        answer = json.loads(last[0])
    except ValueError:
        answer = {}
    if "found" not in answer:
        raise NotMeasured(answer.get("why") or f"the worker of {job['row']} ended with {said.returncode}")
    figures.merge(answer["found"])


class Worker:
    def __init__(self, job):
        from mooncake.store import MooncakeDistributedStore

        self.row, self.blocks = job["row"], job["blocks"]
        self.at = [0] * self.blocks
        self.mooncake = MooncakeDistributedStore()
        size = self.blocks * BLOCK
        if self.row == SHARED:
            must(self.mooncake.setup_dummy(size, 64 << 20, f"127.0.0.1:{job['client']}"), "setup_dummy")
            first = self.mooncake.alloc_from_mem_pool(size)
        else:
            metadata, master = f"http://127.0.0.1:{job['metadata']}/metadata", f"127.0.0.1:{job['rpc']}"
            must(self.mooncake.setup("127.0.0.1", metadata, 0, 64 << 20, "tcp", "", master), "setup")
            self.memory = Memory(self.blocks)
            first = self.memory.at
        must(self.mooncake.register_buffer(first, size), "register_buffer")
        ctypes.memset(first, 7, size)
        self.at = [first + number * BLOCK for number in range(self.blocks)]

    def put(self, keys, at, size, batch, fill=None):
        for start in range(0, len(keys), batch):
            part = slice(start, start + batch)
            for to in at[part] if fill else ():
                ctypes.memmove(to, fill, BLOCK)
            count = len(keys[part])
            if self.mooncake.batch_put_from(keys[part], at[part], [size] * count) != [0] * count:
                raise NotMeasured("batch_put_from failed")

    def get(self, keys, batch):
        for start in range(0, len(keys), batch):
            part = slice(start, start + batch)
            count = len(keys[part])
            if self.mooncake.batch_get_into(keys[part], self.at[part], [BLOCK] * count) != [BLOCK] * count:
                raise NotMeasured("batch_get_into failed")

    def stamps(self, bytes_of):
        for number, at in enumerate(self.at):
            for edge in (at, at + BLOCK - 8):
                ctypes.memmove(edge, bytes_of(number), 8)

    def stored(self, keys, *how):
        """Stores blocks, which go again: the next round has their memory and not the search for it."""
        seconds = timed(self.put, keys, *how)
        self.forget(keys)
        return seconds

    def forget(self, keys):
        if any(self.mooncake.batch_remove(keys, True)):
            raise NotMeasured("batch_remove failed")

    def loaded(self, keys, batch):
        """Loads blocks, each with its stamp."""
        self.stamps(lambda _: bytes(8))
        seconds = timed(self.get, keys, batch)
        for number, at in enumerate(self.at):
            if not ctypes.string_at(at, 8) == ctypes.string_at(at + BLOCK - 8, 8) == stamp(number):
                raise NotMeasured(f"Mooncake gives other bytes for block {number}")
        return seconds

    def stores(self):
        """(row, words, places, what is copied there first): of TCP all blocks from the same bytes, as kvtier's and Redis's."""
        if self.row == TCP:
            return [(TCP, "batch_put_from", [self.at[0]] * self.blocks, None)]
        block = ctypes.create_string_buffer(BLOCK)
        filled = (SHARED, "batch_put_from, filled first", self.at, block)
        return [filled, (FILLED, "batch_put_from", self.at, None)]

    def measure(self, figures):
        keys = [f"{self.row}-{number}" for number in range(self.blocks)]
        other = [f"{key}-store" for key in keys]
        small = [f"small-{number}" for number in range(LOOKUP_KEYS)]
        self.stamps(stamp)
        self.put(keys, self.at, BLOCK, self.blocks)
        self.put(small, [self.at[0]] * LOOKUP_KEYS, SMALL, BATCH)
        for batch in sorted({min(BATCH, self.blocks), self.blocks}):
            self.loaded(keys, batch)
            speeds = [gigabytes(self.blocks, self.loaded(keys, batch)) for _ in range(ROUNDS)]
            figures.add(self.row, "load", f"batch_get_into of {batch:,}", speeds)
            for row, words, at, fill in self.stores():
                self.stored(other, at, BLOCK, batch, fill)
                speeds = [gigabytes(self.blocks, self.stored(other, at, BLOCK, batch, fill)) for _ in range(ROUNDS)]
                figures.add(row, "store", f"{words}, of {batch:,}", speeds)

        def look():
            if self.mooncake.batch_is_exist(small) != [1] * LOOKUP_KEYS:
                raise NotMeasured("Mooncake has lost a key")

        figures.add(self.row, "lookup", "batch_is_exist", lookups(look))
        # The next worker needs the room.
        self.forget(keys)
        self.forget(small)
        self.mooncake.close()


def must(code, what):
    if code != 0:
        raise NotMeasured(f"{what} gives {code}")


def version():
    packages = said_by(str(PYTHON), "-m", "pip", "freeze").splitlines()
    return next((line.split("==")[1] for line in packages if line.startswith("mooncake")), "?")


if __name__ == "__main__":
    found = Figures()
    try:
        Worker(json.loads(sys.argv[1])).measure(found)
        print(json.dumps({"found": found.found}), flush=True)
    except (NotMeasured, ImportError) as why:
        print(json.dumps({"why": str(why)}), flush=True)
    # Mooncake's threads are not waited for: its own ending of them may hang.
    os._exit(0)
