//! The limits that the gate's figures stand beside, measured in the same run: memory, and bare sockets.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;

/// Copies `bytes` from one buffer to another.
pub(crate) fn copy(from: &[u8], to: &mut [u8]) {
    to.copy_from_slice(from);
    std::hint::black_box(to);
}

/// Sends `bytes` through a Unix socket in pieces of 1 MiB, and reads them; bytes read.
pub(crate) fn unix(bytes: usize) -> usize {
    let (here, there) = UnixStream::pair().expect("a pair of sockets");
    send(here, there, bytes)
}

/// The same through TCP on the loopback.
pub(crate) fn tcp(bytes: usize) -> usize {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let here = TcpStream::connect(listener.local_addr().expect("its address")).expect("a connection");
    let (there, _) = listener.accept().expect("the other end");
    here.set_nodelay(true).expect("an option");
    send(here, there, bytes)
}

fn send(mut here: impl Write + Send + 'static, mut there: impl Read, bytes: usize) -> usize {
    let sender = std::thread::spawn(move || {
        let piece = vec![7_u8; 1 << 20];
        let mut left = bytes;
        while left > 0 {
            let now = left.min(piece.len());
            here.write_all(&piece[..now]).expect("a reader");
            left -= now;
        }
    });
    let (mut piece, mut read) = (vec![0_u8; 1 << 20], 0);
    while read < bytes {
        match there.read(&mut piece).expect("a writer") {
            0 => break,
            count => read += count,
        }
    }
    sender.join().expect("the sender ends");
    read
}
