#!/usr/bin/env python3
"""One delivery, one bill, by Python's grpcio: a client that shares no code with the daemon.

    pip install grpcio grpcio-tools
    tools/check_one_bill.py --server unix:/run/kvtier.sock --keep FILE      # delivers 128 tokens, settles them as b1
    tools/check_one_bill.py --server unix:/run/kvtier.sock --kept FILE      # b2 and b3 are refused, the summary says 128

Between the two the daemon may be killed and started again. With `--unsettled` beside --keep nothing is settled before, so
that afterwards only the receipt proves the delivery. Prints one line and exits 0 when all is right, 1 when not, 2 where grpcio
is missing.
"""

import argparse
import importlib
import json
import sys
import tempfile
import uuid

import check_grpcio

TOKENS = 128


class Meter:
    """The daemon's usage service, and what was delivered."""

    def __init__(self, usages, usages_grpc, channel, delivery):
        self.usages, self.service, self.delivery = usages, usages_grpc.UsageStub(channel), delivery

    def settle(self, name, cached=TOKENS, proven=False, **changed):
        """The reply, or the status and sentence of the refusal."""
        import grpc

        delivery = self.delivery
        fields = {
            "tenant": delivery["tenant"], "billing_id": f"{delivery['tenant']}-{name}", "attempt": 1,
            "instance": delivery["instance"], "request_id": "r1", "fingerprint": bytes.fromhex(delivery["fingerprint"]),
            "prompt_tokens": TOKENS, "cached_tokens": cached, "output_tokens": 5,
            "receipts": [bytes.fromhex(delivery["receipt"])] if proven else [],
        }
        try:
            return self.service.Settle(self.usages.SettleRequest(**{**fields, **changed}))
        except grpc.RpcError as error:
            return error.code().name, error.details()

    def refused(self, code, words, name, **how):
        answer = self.settle(name, **how)
        assert isinstance(answer, tuple), f"{name} {how} is recorded: {answer}"
        assert answer[0] == code and words in answer[1], f"{name} {how}: {answer}"

    def billed(self):
        summed = self.service.SummarizeUsage(self.usages.SummarizeUsageRequest(tenant=self.delivery["tenant"]))
        return summed.total.hit_tokens


def register(presence, sessions, session=0):
    """The layout's fingerprint. A daemon without a drive has to be told of it after each start."""
    spec = sessions.NamespaceSpec(
        weights_digest=b"check_one_bill weights", dtype="u8", layout="check", block_tokens=16, max_payload_bytes=64
    )
    request = sessions.RegisterNamespaceRequest(session_id=session, name="check-one-bill", spec=spec)
    return presence.RegisterNamespace(request).fingerprint


def deliver(server, modules):
    """Stores a prompt and fetches it; what names the delivery, and its receipt."""
    chains, sessions, sessions_grpc, caches, caches_grpc, *_ = modules
    tenant, instance = f"check-{uuid.uuid4()}", str(uuid.uuid4())
    with check_grpcio.connect(server) as channel:
        presence, cache = sessions_grpc.SessionsStub(channel), caches_grpc.CacheStub(channel)
        events = presence.OpenSession(
            sessions.OpenSessionRequest(instance=instance, process="check", protocol_revision=1)
        )
        session = next(events).opened.session_id
        fingerprint = register(presence, sessions, session)
        tokens = chains.Tokens(tokens=list(range(TOKENS)))
        chain = chains.Chain(fingerprint=fingerprint, tenant=tenant, tokens=tokens)
        check_grpcio.put(cache, caches, session, chain, [bytes([block]) * 64 for block in range(TOKENS // 16)])
        request = caches.FetchRequest(session_id=session, request_id="r1", chain=chain)
        end = [reply.end for reply in cache.Fetch(request)][-1]
        assert end.tokens == TOKENS, f"{end.tokens} tokens were delivered"
        events.cancel()
    return {"tenant": tenant, "instance": instance, "fingerprint": fingerprint.hex(), "receipt": end.receipt.hex()}


def before(server, modules, keep, unsettled):
    delivery = deliver(server, modules)
    with open(keep, "w", encoding="utf-8") as file:
        json.dump(delivery, file)
    if unsettled:
        return "128 tokens delivered"
    with check_grpcio.connect(server) as channel:
        meter = Meter(*modules[5:], channel, delivery)
        assert meter.settle("b1").record.hit_tokens == TOKENS
        meter.refused("ALREADY_EXISTS", "is billed by", "b2")
    return "128 tokens delivered and settled"


def after(server, modules, kept):
    with open(kept, encoding="utf-8") as file:
        delivery = json.load(file)
    with check_grpcio.connect(server) as channel:
        register(modules[2].SessionsStub(channel), modules[1])
        meter = Meter(*modules[5:], channel, delivery)
        altered = bytearray.fromhex(delivery["receipt"])
        altered[-1] ^= 1
        meter.refused("INVALID_ARGUMENT", "receipts[0]", "b4", receipts=[bytes(altered)])
        meter.refused("INVALID_ARGUMENT", "for another tenant", "b4", proven=True, tenant="somebody-else")
        first = meter.settle("b1", proven=True)
        assert first.record.hit_tokens == TOKENS, f"b1 is {first}"
        assert meter.settle("b1").repeated, "b1 again is no repeat"
        owner = f"is billed by {delivery['tenant']}-b1 (record {first.record.sequence})"
        for name in ("b2", "b3"):
            meter.refused("ALREADY_EXISTS", owner, name)
            meter.refused("ALREADY_EXISTS", owner, name, proven=True)
        meter.refused("ALREADY_EXISTS", "attempt is 0", "b1", attempt=0)
        miss = meter.settle("b2", cached=0).record
        assert (miss.hit_tokens, miss.delivered_tokens_ram) == (0, 0), f"b2 without a claim is {miss}"
        assert meter.billed() == TOKENS, f"{meter.billed()} tokens are billed as hits"
    return "billed once: 128 hit tokens"


def main():
    parser = argparse.ArgumentParser(description="One delivery, one bill, by Python's grpcio.")
    parser.add_argument("--server", required=True, help="unix:PATH or host:port")
    parser.add_argument("--keep", metavar="FILE", help="deliver, settle, and note what")
    parser.add_argument("--unsettled", action="store_true", help="deliver and do not settle")
    parser.add_argument("--kept", metavar="FILE", help="what was delivered")
    asked = parser.parse_args()
    try:
        importlib.import_module("grpc"), importlib.import_module("grpc_tools")
    except ImportError as missing:
        print(f"skipped: {missing}; pip install grpcio grpcio-tools", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as out:
        modules = check_grpcio.compile_protos(out)
        try:
            if asked.keep:
                print(before(asked.server, modules, asked.keep, asked.unsettled))
            if asked.kept:
                print(after(asked.server, modules, asked.kept))
        except AssertionError as wrong:
            print(f"wrong: {wrong}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
