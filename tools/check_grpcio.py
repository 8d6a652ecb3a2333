#!/usr/bin/env python3
"""Stores blocks and reads them back with Python's grpcio: a client that shares no code with the daemon.

    pip install grpcio grpcio-tools
    tools/check_grpcio.py --server unix:/run/kvtier.sock      (or host:port)

Prints one line and exits 0 when every byte came back, 1 when not, 2 where grpcio is missing.
"""

import argparse
import importlib
import pathlib
import sys
import tempfile
import time
import uuid

MESSAGE_MAX = 16 << 20
# Bytes of each block: below and above what the daemon copies in between, one message, and several.
SIZES = [1, 100, 8191, 8192, 65536, 1 << 20, (1 << 20) + 1, 3 << 20] + [1 << 20] * 24


def compile_protos(out):
    """The contract as Python modules, in the folder `out`."""
    from grpc_tools import protoc

    protos = pathlib.Path(__file__).resolve().parent.parent / "proto"
    files = [str(path) for path in sorted(protos.glob("kvtier/v1/*.proto"))]
    if protoc.main(["protoc", f"-I{protos}", f"--python_out={out}", f"--grpc_python_out={out}", *files]):
        sys.exit("the contract does not compile")
    sys.path.insert(0, out)
    names = ["chain_pb2", "session_pb2", "session_pb2_grpc", "cache_pb2", "cache_pb2_grpc", "usage_pb2", "usage_pb2_grpc"]
    return [importlib.import_module(f"kvtier.v1.{name}") for name in names]


def payload(block, size):
    """Bytes that tell one block, and one place in it, from every other."""
    words = (size + 7) // 8
    return b"".join(((at << 24 | block) & 0xFFFFFFFFFFFFFFFF).to_bytes(8, "little") for at in range(words))[:size]


def put(cache, messages, session, chain, payloads):
    """Stores a chain: offers it, sends what is wanted, and gives the result."""

    def requests(wanted):
        yield messages.PutRequest(offer=messages.PutOffer(session_id=session, request_id="put", chain=chain))
        bitmap = wanted()
        for block, data in enumerate(payloads):
            if not bitmap[block // 8] >> block % 8 & 1:
                continue
            for start in range(0, len(data), 1 << 20):
                part = data[start : start + (1 << 20)]
                piece = messages.BlockPiece(block=block, offset=start, length=len(data), data=part)
                yield messages.PutRequest(data=messages.PutData(pieces=[piece]))

    # grpcio reads requests on a thread of its own, which waits there for the first answer.
    import queue

    answers = queue.Queue(1)
    replies = cache.Put(requests(answers.get))
    answers.put(next(replies).wanted.bitmap)
    return [reply.result for reply in replies][-1]


def fetch(cache, messages, session, chain):
    """Reads a chain: its payloads, and how it ended."""
    blocks, end = {}, None
    request = messages.FetchRequest(session_id=session, request_id="fetch", chain=chain, deadline_ms=60000)
    for reply in cache.Fetch(request):
        for piece in reply.data.pieces:
            data = blocks.setdefault(piece.block, bytearray())
            assert piece.offset == len(data), f"block {piece.block} goes on at {piece.offset}, not at {len(data)}"
            data += piece.data
        if reply.HasField("end"):
            end = reply.end
    return [bytes(blocks[block]) for block in sorted(blocks)], end


def connect(server):
    """A channel to the daemon."""
    import grpc

    options = [("grpc.max_receive_message_length", MESSAGE_MAX), ("grpc.max_send_message_length", MESSAGE_MAX)]
    if server.startswith("unix:"):
        # For a Unix socket grpcio names the path as authority, with % in it, which HTTP/2 in Rust refuses.
        options.append(("grpc.default_authority", "localhost"))
    return grpc.insecure_channel(server, options)


def check(server, out):
    import grpc

    chains, sessions, sessions_grpc, caches, caches_grpc, *_ = compile_protos(out)
    with connect(server) as channel:
        presence, cache = sessions_grpc.SessionsStub(channel), caches_grpc.CacheStub(channel)
        who = sessions.OpenSessionRequest(instance=str(uuid.uuid4()), process="check", protocol_revision=1)
        events = presence.OpenSession(who)
        session = next(events).opened.session_id
        spec = sessions.NamespaceSpec(
            weights_digest=b"check_grpcio weights", dtype="u8", layout="check", block_tokens=16,
            max_payload_bytes=max(SIZES),
        )
        register = sessions.RegisterNamespaceRequest(session_id=session, name="check-grpcio", spec=spec)
        fingerprint = presence.RegisterNamespace(register).fingerprint
        # Another prompt each time, so that something is stored also where this has run before.
        first = time.time_ns() & 0x7FFFFFFF
        tokens = [(first + at) & 0xFFFFFFFF for at in range(16 * len(SIZES))]
        chain = chains.Chain(fingerprint=fingerprint, tenant="check", tokens=chains.Tokens(tokens=tokens))
        payloads = [payload(block, size) for block, size in enumerate(SIZES)]

        stored = put(cache, caches, session, chain, payloads)
        assert stored.stored_through == len(SIZES), f"stored through {stored.stored_through}: {stored.drop_reason}"
        started = time.monotonic()
        came, end = fetch(cache, caches, session, chain)
        seconds = time.monotonic() - started
        assert end is not None and end.outcome == caches.FETCH_OUTCOME_COMPLETE, f"the fetch ended with {end}"
        wrong = [block for block, (got, put_in) in enumerate(zip(came, payloads)) if got != put_in]
        assert not wrong and len(came) == len(payloads), f"{len(came)} blocks came, wrong are {wrong}"
        events.cancel()
    size = sum(SIZES)
    return f"grpcio {grpc.__version__} over {server}: {len(SIZES)} blocks, {size} bytes, all equal, {size / seconds / 1e9:.2f} GB/s"


def main():
    parser = argparse.ArgumentParser(description="Stores blocks and reads them back with Python's grpcio.")
    parser.add_argument("--server", required=True, help="unix:PATH or host:port")
    server = parser.parse_args().server
    try:
        importlib.import_module("grpc"), importlib.import_module("grpc_tools")
    except ImportError as missing:
        print(f"skipped: {missing}; pip install grpcio grpcio-tools", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as out:
        try:
            print(check(server, out))
        except AssertionError as wrong:
            print(f"wrong: {wrong}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
