//! A TCP connection that knows when the bytes came that are read from it: by the kernel's
//! receive time (`SO_TIMESTAMPNS`, socket(7)), as for the packets of WebRTC. Thousands of
//! answers come at once, and those that are read last have not waited for the server.
//! TLS hides the socket: there it is the time of reading.

#![allow(unsafe_code, reason = "nobody else reads the receive time of a stream")]

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd as _, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead as _, AsyncWriteExt as _, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::time::utc_micros;

/// A connection.
pub(super) enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Socket {
    /// Over TCP alone.
    pub fn plain(stream: TcpStream) -> Self {
        stamp(stream.as_raw_fd());
        Self::Plain(stream)
    }

    /// Writes all of `bytes`.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.write_all(bytes).await,
            Self::Tls(stream) => {
                stream.write_all(bytes).await?;
                stream.flush().await
            }
        }
    }

    /// Reads once: number of bytes, and when the newest of them came.
    pub fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<(usize, Instant)>> {
        let stream = match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => {
                let mut read = ReadBuf::new(buffer);
                ready!(Pin::new(stream).poll_read(context, &mut read))?;
                return Poll::Ready(Ok((read.filled().len(), Instant::now())));
            }
        };
        loop {
            ready!(stream.poll_read_ready(context))?;
            match stream.try_io(Interest::READABLE, || receive(stream, buffer)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return Poll::Ready(read),
            }
        }
    }
}

/// Has the kernel tell when data came. When it does not, it is the time of reading.
fn stamp(socket: RawFd) {
    let on: libc::c_int = 1;
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the option is read from `on`, which lives, and is as long as is said.
    unsafe {
        let on = (&raw const on).cast();
        libc::setsockopt(socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, on, length);
    }
}

/// Room for one control message with a `timespec`, aligned as its header must be.
#[repr(C, align(8))]
struct Control([u8; 64]);

/// recvmsg(2): number of bytes, and when the newest of them came.
fn receive(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<(usize, Instant)> {
    let mut control = Control([0; 64]);
    let mut piece = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: all fields of a `msghdr` may be zero.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_iov = &raw mut piece;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = control.0.len();
    // SAFETY: `message` points at `piece` and `control`, which live and are as long as it
    // says; `piece` is the borrowed buffer.
    let bytes = unsafe { libc::recvmsg(stream.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
    let bytes = usize::try_from(bytes).map_err(|_| io::Error::last_os_error())?;
    let mut stamp = None;
    // SAFETY: the kernel has filled in `message`; its own macros walk the control messages
    // within their length, and each is copied out, as it need not be aligned.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&raw const message);
        while !header.is_null() {
            let kind = ((*header).cmsg_level, (*header).cmsg_type);
            if kind == (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) {
                let time: libc::timespec =
                    libc::CMSG_DATA(header).cast::<libc::timespec>().read_unaligned();
                let (seconds, nanos) = (time.tv_sec.max(0), time.tv_nsec.clamp(0, 999_999_999));
                stamp = Some(Duration::new(seconds.unsigned_abs(), nanos as u32));
            }
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
    }
    Ok((bytes, at(stamp)))
}

/// The moment of a time of the system's clock, which is now or a little ago.
fn at(stamp: Option<Duration>) -> Instant {
    let now = Instant::now();
    let age = stamp.and_then(|stamp| {
        let micros = utc_micros().checked_sub(i64::try_from(stamp.as_micros()).ok()?)?;
        Some(Duration::from_micros(u64::try_from(micros).ok()?))
    });
    age.and_then(|age| now.checked_sub(age)).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn bytes_bear_the_time_at_which_they_came() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut socket = Socket::plain(client);
        let (mut server, _) = listener.accept().await.unwrap();
        // The first packet may come before the kernel marks any.
        let mut buffer = [0; 16];
        for byte in 0..10u8 {
            server.write_all(&[byte]).await.unwrap();
            let written = Instant::now();
            std::thread::sleep(Duration::from_millis(20));
            let read = poll_fn(|context| socket.poll_read(context, &mut buffer)).await;
            let (bytes, came) = read.unwrap();
            assert_eq!((bytes, buffer[0]), (1, byte));
            if came <= written {
                return;
            }
        }
        panic!("no byte bears the kernel's time");
    }
}
