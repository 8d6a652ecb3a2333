//! The limits that the gate's figures stand beside, measured in the same run: memory, and a bare Unix socket.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

/// Copies `bytes` from one buffer to another.
pub(crate) fn copy(from: &[u8], to: &mut [u8]) {
    to.copy_from_slice(from);
    std::hint::black_box(to);
}

/// Sends `bytes` through a Unix socket in pieces of 1 MiB, and reads them; bytes read.
pub(crate) fn socket(bytes: usize) -> usize {
    let (mut here, mut there) = UnixStream::pair().expect("a pair of sockets");
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
