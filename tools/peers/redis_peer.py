"""Redis, over a Unix socket and over TCP, each by one connection.

Its speed is the client's as much as the server's, so two are tried and the faster counts: redis-benchmark, which comes with
it, and the one here, which sends from one block and receives into another without parsing what is in it.
"""

import collections
import csv
import io
import shutil
import socket
import subprocess

from loads import BLOCK, LOOKUP_KEYS, ROUNDS, SMALL, NotMeasured, free_port, gigabytes, lookups, running, said_by, stamp
from loads import timed

ROWS = UNIX, TCP = "Redis, Unix socket", "Redis, TCP"
# Requests under way: more made neither direction faster.
DEPTH = 4


def command(*words):
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


class Client:
    """The few words of RESP2 that it takes."""

    def __init__(self, link):
        self.link = link
        self.block = memoryview(bytearray(BLOCK))
        self.line = memoryview(bytearray(16))

    def receive(self, into):
        got = 0
        while got < len(into):
            count = self.link.recv_into(into[got:])
            if count == 0:
                raise NotMeasured("redis-server hung up")
            got += count

    def expect(self, answer):
        line = self.line[: len(answer)]
        self.receive(line)
        if line != answer:
            raise NotMeasured(f"redis-server answers {bytes(line)!r}, not {answer!r}")

    def store(self, keys, value_of):
        under_way = 0
        for number, key in enumerate(keys):
            value = value_of(number)
            self.link.sendall(b"*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n" % (len(key), key, len(value)))
            self.link.sendall(value)
            self.link.sendall(b"\r\n")
            under_way += 1
            if under_way == DEPTH:
                self.expect(b"+OK\r\n")
                under_way -= 1
        for _ in range(under_way):
            self.expect(b"+OK\r\n")

    def stamped(self, number):
        self.block[:8] = self.block[-8:] = stamp(number)
        return self.block

    def load(self, keys):
        """Every block into the same bytes, each with its stamp."""
        waiting = collections.deque(command(b"GET", key) for key in keys)
        for _ in range(min(DEPTH, len(waiting))):
            self.link.sendall(waiting.popleft())
        for number in range(len(keys)):
            self.expect(b"$%d\r\n" % BLOCK)
            self.receive(self.block)
            self.expect(b"\r\n")
            if waiting:
                self.link.sendall(waiting.popleft())
            if self.block[:8] != stamp(number) or self.block[-8:] != stamp(number):
                raise NotMeasured(f"redis-server gives other bytes for block {number}")

    def ask(self, request, answer):
        self.link.sendall(request)
        got = bytearray(len(answer))
        self.receive(memoryview(got))
        if got != answer:
            raise NotMeasured("redis-server has lost a key")


def with_redis_benchmark(address, blocks):
    """GB/s of SET and GET. Its keys are drawn, all of them there before."""
    tests = ["-t", "set,get", "-c", "1", "-P", str(DEPTH), "-d", str(BLOCK), "-r", str(blocks), "-n", str(blocks), "--csv"]
    try:
        said = subprocess.run(["redis-benchmark", *address, *tests], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    rows = csv.DictReader(io.StringIO(said.stdout))
    return {row["test"]: gigabytes(float(row["rps"]), 1) for row in rows if row["test"] in ("SET", "GET")}


def measure_line(row, link, address, blocks, figures):
    client = Client(link)
    # Named as redis-benchmark names its own.
    loaded = [b"key:%012d" % number for number in range(blocks)]
    stored = [b"store:%d" % number for number in range(blocks)]
    small = [b"small:%d" % number for number in range(LOOKUP_KEYS)]
    client.store(loaded, client.stamped)
    client.store(small, lambda _: bytes(SMALL))
    # The first round is not counted.
    rounds = [(timed(client.store, stored, lambda _: client.block), timed(client.load, loaded)) for _ in range(ROUNDS + 1)]
    figures.add(row, "store", f"SET, {DEPTH} under way", [gigabytes(blocks, seconds) for seconds, _ in rounds[1:]])
    figures.add(row, "load", f"GET, {DEPTH} under way", [gigabytes(blocks, seconds) for _, seconds in rounds[1:]])
    by_benchmark = with_redis_benchmark(address, blocks)
    for column, test in (("store", "SET"), ("load", "GET")):
        if test in by_benchmark:
            figures.add(row, column, f"redis-benchmark -t {test.lower()} -P {DEPTH}", [by_benchmark[test]])
    # Requests made beforehand: what Python takes for them is not Redis's.
    one, each = command(b"EXISTS", *small), b"".join(command(b"EXISTS", key) for key in small)
    figures.add(row, "lookup", "one EXISTS, which counts", lookups(lambda: client.ask(one, b":%d\r\n" % LOOKUP_KEYS)))
    figures.add(row, "lookup", "4,096 EXISTS in a pipeline", lookups(lambda: client.ask(each, b":1\r\n" * LOOKUP_KEYS)))


def measure(blocks, folder, figures):
    """One turn."""
    server = shutil.which("redis-server")
    if server is None:
        raise NotMeasured("no redis-server; tools/peers/setup.sh installs it")
    port, path = free_port(), folder / "redis.sock"
    options = ["--bind", "127.0.0.1", "--port", str(port), "--unixsocket", str(path), "--unixsocketperm", "700"]
    # In memory only, and no limit on it.
    options += ["--save", "", "--appendonly", "no", "--dir", str(folder)]
    with running([server, *options], folder, path.exists):
        with figures.attempt(UNIX), socket.socket(socket.AF_UNIX) as link:
            link.settimeout(30)
            link.connect(str(path))
            measure_line(UNIX, link, ["-s", str(path)], blocks, figures)
        with figures.attempt(TCP), socket.create_connection(("127.0.0.1", port), 30) as link:
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            measure_line(TCP, link, ["-h", "127.0.0.1", "-p", str(port)], blocks, figures)


def version():
    words = said_by("redis-server", "--version").split()
    return next((word[2:] for word in words if word.startswith("v=")), "?")
