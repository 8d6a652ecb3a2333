"""kvtier, by its own bench: each of its figures in rounds beside the machine's limit for the same bytes."""

import json
import os
import pathlib
import shutil
import subprocess

from loads import NotMeasured, said_by

# (figure of `kvtier bench`, row, column). Those that a program does not have yet are left out.
FIGURES = [
    ("ram_load_shared", "kvtier, shared memory", "load"),
    ("put_shared", "kvtier, shared memory", "store"),
    ("lookup_4096", "kvtier, shared memory", "lookup"),
    ("load_into_ram", "kvtier, into the worker's pool", "load"),
    ("fetch_uds", "kvtier, Unix socket", "load"),
    ("put_uds", "kvtier, Unix socket", "store"),
    ("lookup_4096", "kvtier, Unix socket", "lookup"),
    ("fetch_tcp", "kvtier, TCP", "load"),
    ("put_tcp", "kvtier, TCP", "store"),
]
ROWS = list(dict.fromkeys(row for _, row, _ in FIGURES))
# Figures whose limits are the machine's for everybody.
LIMITS = {
    "ram_load_shared": ("limit: memcpy", "load"),
    "put_shared": ("limit: memcpy", "store"),
    "fetch_uds": ("limit: bare Unix socket", "load"),
    "put_uds": ("limit: bare Unix socket", "store"),
    "fetch_tcp": ("limit: bare TCP socket", "load"),
    "put_tcp": ("limit: bare TCP socket", "store"),
}
SECONDS = 150


def program(given):
    """The program that is given, or built in this clone, or installed."""
    clone = pathlib.Path(__file__).resolve().parents[2]
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or clone / "target")
    built = target / "release" / "kvtier"
    return given or (str(built) if built.exists() else shutil.which("kvtier"))


def known(path):
    """The names of the figures that a program has: it lists them when it is asked for another."""
    said = subprocess.run([path, "bench", "--only", "?"], capture_output=True, text=True, timeout=10).stderr
    names = said.partition("it must be of ")[2].replace("\n", " ").split(", ")
    return {name.strip() for name in names}


def measure(path, folder, figures):
    """One turn; gives what kvtier says should be changed on this host."""
    if path is None:
        raise NotMeasured("no kvtier program; make build, or say --kvtier")
    try:
        has = known(path)
        wanted = [name for name in dict.fromkeys(name for name, _, _ in FIGURES) if name in has]
        command = [path, "bench", "--json", "--dir", str(folder), "--seconds", "1", "--only", ",".join(wanted)]
        said = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except OSError as error:
        raise NotMeasured(f"{path} does not start: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise NotMeasured(f"kvtier bench took more than {SECONDS} s") from None
    if said.returncode != 0:
        raise NotMeasured((said.stderr.strip().splitlines() or ["kvtier bench failed"])[-1])
    report = json.loads(said.stdout)
    results = {result["name"]: result for result in report["results"]}
    for name, row, column in FIGURES:
        if name in results:
            figures.add(row, column, name, [results[name]["value"]])
    for name, (row, column) in LIMITS.items():
        if name in results and results[name]["limit"] is not None:
            figures.add(row, column, f"limit of {name}", [results[name]["limit"]])
    return report["hints"]


def version(path):
    return (said_by(path, "--version").split() or ["?"])[-1] if path else "?"
