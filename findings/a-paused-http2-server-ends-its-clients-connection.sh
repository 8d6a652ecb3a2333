#!/usr/bin/env bash
# A paused HTTP/2 server ends its clients' connection.
#
# h2 counts the streams that a client has reset before the server accepted them. By default it bears 20 at a time on
# one connection; at the next it ends the connection with GOAWAY ENHANCE_YOUR_CALM ("too_many_resets"). The bound is
# there against clients that flood a server. A well-behaved client crosses it without any flood: while the server's
# process is paused (a debugger, a snapshot of its machine, a host that swaps) it accepts nothing, each call that the
# client gives up at its deadline leaves its request and its reset in the socket, and the server reads all of them at
# once when it goes on. Every other stream of that connection ends with it, however long it had been open.
#
# The server is tonic's health service, the client is Python's grpcio. The client opens a Watch, the server is stopped
# with SIGSTOP, the client makes some calls of Check with a deadline of 100 ms each, all on the Watch's connection, and
# the server goes on with SIGCONT after a second. Three times: with 10 calls, with 40, and with 40 and a raised bound.
#
# Versions: h2 0.4.20, hyper 1.12.0, hyper-util 0.1.21, tonic 0.14.9, tonic-health 0.14.9, tokio 1.54.1, tokio-stream
# 0.1.19; grpcio 1.85.3. Each is pinned below.
#
# Expected, by one who takes a deadline for the affair of one call:
#   The Watch goes on in all three cases, and the further call is answered on the same connection.
# Observed, and checked below:
#   10 calls given up, bound by default: the Watch goes on; a further call is answered; connections: 1
#   40 calls given up, bound by default: the Watch ended: UNAVAILABLE, ENHANCE_YOUR_CALM, too_many_resets; a further
#   call is answered; connections: 2
#   40 calls given up, bound 1024: the Watch goes on; a further call is answered; connections: 1
# So the further call hides what happened, since grpcio makes a new connection for it; the Watch is lost.
#
# Users of such servers should raise the bound above what a pause can leave, and let clients reopen their long streams.
# kvtier raises it to HTTP2_GIVEN_UP_MAX of src/vocab/limits.rs.
#
# Needs cargo, python3 with venv, and the packages' registries. Takes some minutes, nearly all of them to compile, and
# leaves nothing behind but what cargo and pip keep of downloads. Exits with 0 when all three cases end as observed, and
# with another status when one does not.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
trap 'exit 1' HUP INT TERM
export CARGO_TARGET_DIR="$folder/target"

mkdir -p "$folder/server/src"
cat >"$folder/server/Cargo.toml" <<'TOML'
[package]
name = "paused"
version = "0.0.0"
edition = "2021"
publish = false

[dependencies]
h2 = "=0.4.20"
hyper = "=1.12.0"
hyper-util = "=0.1.21"
tokio = { version = "=1.54.1", features = ["macros", "net", "rt-multi-thread"] }
tokio-stream = { version = "=0.1.19", features = ["net"] }
tonic = { version = "=0.14.9", default-features = false, features = ["codegen", "router", "server"] }
tonic-health = "=0.14.9"

[profile.dev]
debug = false

[workspace]
TOML
cat >"$folder/server/src/main.rs" <<'RUST'
//! A health service on a free port of loopback. Prints `port N`, then `connection` for each one that it accepts. An
//! argument is the bound of streams that were reset before they were accepted; without one it is the library's.

use tokio::net::TcpListener;
use tokio_stream::{wrappers::TcpListenerStream, StreamExt};
use tonic::transport::Server;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bound = std::env::args().nth(1).map(|text| text.parse::<usize>()).transpose()?;
    // It reports SERVING for the service without a name, which is the server as a whole.
    let (_reporter, health) = tonic_health::server::health_reporter();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("port {}", listener.local_addr()?.port());
    let connections = TcpListenerStream::new(listener).map(|accepted| {
        println!("connection");
        accepted
    });
    let mut server = Server::builder();
    if bound.is_some() {
        server = server.http2_max_pending_accept_reset_streams(bound);
    }
    server.add_service(health).serve_with_incoming(connections).await?;
    Ok(())
}
RUST
cat >"$folder/client.py" <<'PYTHON'
"""Runs the three cases against the server whose program is the argument; exits with 1 when one ends otherwise."""

import os
import queue
import signal
import subprocess
import sys
import threading
import time

import grpc

DEADLINE_S = 0.1  # of each call during the pause
PAUSE_REST_S = 0.9  # of the pause, when the last call has been given up
WAIT_MAX_S = 15.0  # for anything that should come at once, on a busy machine
EMPTY, SERVING = b"", b"\x08\x01"  # as protobuf: a request for the whole server, and the answer `status = SERVING`
PLAIN = {"request_serializer": bytes, "response_deserializer": bytes}
# What grpcio says of a GOAWAY: its error code, and the text that came with it.
SIGNS = {"ENHANCE_YOUR_CALM": "Error code: 11;", "too_many_resets": "too_many_resets"}
# Cases: calls, bound (None: the default), and what is expected to be observed.
GOES_ON = ("goes on", "answered", 1)
ENDED = ("ended: UNAVAILABLE, ENHANCE_YOUR_CALM, too_many_resets", "answered", 2)
CASES = [(10, None, GOES_ON), (40, None, ENDED), (40, 1024, GOES_ON)]


class Server:
    """The server's process, which is ended by its pid whatever happens, and the lines that it prints."""

    def __init__(self, program, bound):
        arguments = [] if bound is None else [str(bound)]
        self.process = subprocess.Popen([program, *arguments], stdout=subprocess.PIPE, text=True)
        self.lines = queue.Queue()
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            self.lines.put(line.split())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()  # SIGKILL ends a stopped process, too
        self.process.wait(WAIT_MAX_S)

    def port(self):
        return int(self.lines.get(timeout=WAIT_MAX_S)[1])

    def stop(self):
        """Returns when the process has really stopped."""
        self.process.send_signal(signal.SIGSTOP)
        until = time.monotonic() + WAIT_MAX_S
        while os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOHANG) is None:
            if time.monotonic() > until:
                raise TimeoutError("the server does not stop")
            time.sleep(0.005)

    def go_on(self):
        self.process.send_signal(signal.SIGCONT)

    def connections(self):
        """How many it has accepted so far; each is printed before it is served."""
        return self.lines.qsize()


class Watch:
    """A stream of health that is read in a thread of its own, as a client does that waits for changes."""

    def __init__(self, channel):
        self.call = channel.unary_stream("/grpc.health.v1.Health/Watch", **PLAIN)(EMPTY)
        self.answers = queue.Queue()
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        try:
            for answer in self.call:
                self.answers.put(answer)
            self.answers.put(None)
        except grpc.RpcError as ended:
            self.answers.put(ended)

    def first(self):
        answer = self.answers.get(timeout=WAIT_MAX_S)
        if answer != SERVING:
            raise RuntimeError(f"the Watch starts with {answer!r}")

    def fate(self):
        """What became of the stream by a second from now."""
        try:
            ended = self.answers.get(timeout=1.0)
        except queue.Empty:
            return "goes on"
        if not isinstance(ended, grpc.RpcError):
            return f"said {ended!r}"
        told = [name for name, sign in SIGNS.items() if sign in ended.details()]
        return "ended: " + ", ".join([ended.code().name, *told])


def run(program, calls, bound):
    # A connection of its own, and no proxy that the environment may name.
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
    with Server(program, bound) as server, grpc.insecure_channel(f"127.0.0.1:{server.port()}", options) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check", **PLAIN)
        watch = Watch(channel)
        watch.first()
        if check(EMPTY, timeout=WAIT_MAX_S) != SERVING or server.connections() != 1:
            raise RuntimeError("the server does not serve both on one connection")

        server.stop()
        pending = [check.future(EMPTY, timeout=DEADLINE_S) for _ in range(calls)]
        codes = [call.exception(timeout=WAIT_MAX_S).code() for call in pending]
        if codes != [grpc.StatusCode.DEADLINE_EXCEEDED] * calls:
            raise RuntimeError(f"not all calls are given up by their deadline: {codes}")
        time.sleep(PAUSE_REST_S)
        server.go_on()

        fate = watch.fate()
        try:
            further = "answered" if check(EMPTY, timeout=WAIT_MAX_S) == SERVING else "answered wrongly"
        except grpc.RpcError as failed:
            further = f"failed: {failed.code().name}"
        return fate, further, server.connections()


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the server is ended then, too
    print(f"grpcio {grpc.__version__}")
    wrong = 0
    for calls, bound, expected in CASES:
        seen = run(sys.argv[1], calls, bound)
        fate, further, connections = seen
        print(f"{calls} calls given up, bound {'by default' if bound is None else bound}: the Watch {fate}; "
              f"a further call is {further}; connections: {connections}", flush=True)
        if seen != expected:
            wrong += 1
            print(f"  but this was observed before: {expected}")
    print("as observed before" if wrong == 0 else f"{wrong} of {len(CASES)} cases end otherwise than observed before")
    sys.exit(wrong != 0)


main()
PYTHON

python3 -m venv "$folder/venv"
timeout --foreground 300 "$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'grpcio==1.85.3'
# Out of the clone, whose .cargo/config.toml is not meant for this.
cd "$folder/server"
timeout --foreground 1800 nice -n 10 cargo build --quiet -j1
cargo tree --quiet --prefix none --depth 1 | sed -n 's/^\([a-z0-9-]* \)v\([0-9.]*\).*/\1\2/p' | tail -n +2
# Without its own words on standard error: grpcio logs the GOAWAY.
export GRPC_VERBOSITY=NONE
timeout --foreground 180 "$folder/venv/bin/python" "$folder/client.py" "$CARGO_TARGET_DIR/debug/paused"
