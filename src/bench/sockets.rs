//! Bare sockets: the limit of what goes through gRPC on one connection.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Bytes of one write, and of one read at most.
const PIECE: usize = 1 << 20;

/// Which socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Socket {
    Unix,
    /// Over the loopback.
    Tcp,
}

/// How long `bytes` take from one thread to another, from one buffer into one buffer.
pub(super) fn send(socket: Socket, bytes: u64) -> io::Result<Duration> {
    match socket {
        Socket::Unix => {
            let (here, there) = UnixStream::pair()?;
            through(here, there, bytes)
        }
        Socket::Tcp => {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let here = TcpStream::connect(listener.local_addr()?)?;
            here.set_nodelay(true)?;
            through(here, listener.accept()?.0, bytes)
        }
    }
}

fn through(mut here: impl Write + Send + 'static, mut there: impl Read, bytes: u64) -> io::Result<Duration> {
    let (sent, mut received) = (vec![7; PIECE], vec![0; PIECE]);
    let piece = |left: u64| usize::try_from(left).map_or(PIECE, |left| left.min(PIECE));
    let began = Instant::now();
    let sender = std::thread::spawn(move || {
        let mut left = bytes;
        while left > 0 {
            let now = piece(left);
            here.write_all(&sent[..now])?;
            left -= now as u64;
        }
        io::Result::Ok(())
    });
    let mut left = bytes;
    while left > 0 {
        match there.read(&mut received[..piece(left)])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => left -= count as u64,
        }
    }
    let time = began.elapsed();
    sender.join().map_err(|_| io::Error::other("the sender panicked"))??;
    Ok(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bytes_come_through_whatever_their_number() {
        for bytes in [0, 1, PIECE as u64, 3 * PIECE as u64 + 17] {
            for socket in [Socket::Unix, Socket::Tcp] {
                send(socket, bytes).unwrap();
            }
        }
    }
}
