"""What every peer is asked to do, and how a program is started beside it and ended again.

The loads: store `blocks` blocks of 1 MiB, one a key; load as many, each checked by a stamp; say whether 4,096 keys are there.
"""

import contextlib
import ctypes
import mmap
import socket
import statistics
import subprocess
import time

BLOCK = 1 << 20
LOOKUP_KEYS = 4096
# Enough for keys that are only looked for.
SMALL = 64
# A turn's figure is the median of so many, after one that is not counted: it has the memory made.
ROUNDS = 3
LOOKUPS = 20


class NotMeasured(Exception):
    """Why a figure can't be had here."""


class Figures:
    """Figures by row, column and method of getting them: `add` what one turn found."""

    def __init__(self):
        self.found = {}
        self.missing = {}

    @contextlib.contextmanager
    def attempt(self, *rows):
        """Takes figures of these rows; says why where they can't be had, and goes on."""
        try:
            yield
        except (NotMeasured, OSError, subprocess.SubprocessError) as why:
            self.missing.update(dict.fromkeys(rows, str(why)))

    def add(self, row, column, method, samples):
        """The median of one turn's samples: GB/s, or µs in the column `lookup`."""
        self.found.setdefault(row, {}).setdefault(column, {}).setdefault(method, []).append(statistics.median(samples))

    def merge(self, found):
        """Figures of one turn, of another process."""
        for row, columns in found.items():
            for column, methods in columns.items():
                for method, medians in methods.items():
                    self.found.setdefault(row, {}).setdefault(column, {}).setdefault(method, []).extend(medians)


def gigabytes(blocks, seconds):
    return blocks * BLOCK / seconds / 1e9


def timed(work, *args):
    """Seconds that a call takes."""
    began = time.perf_counter()
    work(*args)
    return time.perf_counter() - began


def lookups(ask):
    """µs of each call of many, after one that is not counted."""
    ask()
    return [timed(ask) * 1e6 for _ in range(LOOKUPS)]


def stamp(block):
    """The first and the last bytes of a block."""
    return block.to_bytes(8, "little")


class Memory:
    """Bytes of this process for so many blocks, there from the start."""

    def __init__(self, blocks):
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
        self.map = mmap.mmap(-1, blocks * BLOCK, flags)
        self.held = ctypes.c_char.from_buffer(self.map)
        self.at = ctypes.addressof(self.held)

    def close(self):
        del self.held
        self.map.close()


def copies(blocks, figures):
    """The machine's limit: memcpy block by block, from and to memory of as many blocks as the loads have."""
    source, to = Memory(blocks), Memory(blocks)
    ctypes.memset(source.at, 7, blocks * BLOCK)

    def copy():
        for start in range(0, blocks * BLOCK, BLOCK):
            ctypes.memmove(to.at + start, source.at + start, BLOCK)

    copy()
    samples = [gigabytes(blocks, timed(copy)) for _ in range(ROUNDS)]
    for column in ("load", "store"):
        figures.add("limit: memcpy", column, "memcpy of 1 MiB blocks", samples)
    source.close()
    to.close()


def said_by(*command):
    """What a program prints, or nothing where it is not there."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def free_port():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]


@contextlib.contextmanager
def running(command, folder, ready, env=None, seconds=20):
    """A program in the background, from when `ready()` says so, to the end of the block."""
    log = folder / f"{command[0].split('/')[-1]}.log"
    with open(log, "wb") as output:
        try:
            program = subprocess.Popen(command, cwd=folder, env=env, stdout=output, stderr=subprocess.STDOUT)
        except OSError as error:
            raise NotMeasured(f"{command[0]} does not start: {error.strerror}") from None
    try:
        deadline = time.monotonic() + seconds
        while not ready():
            if program.poll() is not None or time.monotonic() > deadline:
                last = log.read_text(errors="replace").strip().splitlines()[-1:]
                raise NotMeasured(f"{command[0].split('/')[-1]} does not get ready: {' '.join(last) or 'it says nothing'}")
            time.sleep(0.05)
        yield program
    finally:
        program.terminate()
        try:
            program.wait(5)
        except subprocess.TimeoutExpired:
            program.kill()
            program.wait()


def listens(port):
    """Whether somebody does on this port of the loopback, as a question to be asked again."""

    def ask():
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        return False

    return ask
