//! Real sockets on loopback, and in network namespaces of a test's own.

mod blocked;
mod exchange;
mod marks;
mod merging;
mod refusals;

use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::time::Duration;

use super::{DatagramSink as _, SendBatch, Traffic, UdpSettings, open_sockets};

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// A datagram that does not come within this is lost.
const LOST: Duration = Duration::from_secs(5);

/// A sender's socket and its batch.
struct Sender {
    batch: SendBatch,
    _socket: UdpSocket,
}

impl Sender {
    fn new(settings: UdpSettings) -> Self {
        let socket = open_sockets(&settings, 1).unwrap().remove(0);
        Self { batch: SendBatch::new(&socket, &settings), _socket: socket }
    }

    fn push(&mut self, to: &Receiver, traffic: Traffic, bytes: &[u8]) {
        self.push_to(to.address, traffic, bytes);
    }

    fn push_to(&mut self, to: SocketAddr, traffic: Traffic, bytes: &[u8]) {
        self.batch.push(to.into(), traffic, |out| {
            out.get_mut(..bytes.len())?.copy_from_slice(bytes);
            Some(bytes.len())
        });
    }

    /// The lengths in the messages that wait, whoever they are for.
    fn lengths(&self) -> Vec<Vec<usize>> {
        self.batch.waiting().into_iter().map(|(_, lengths)| lengths).collect()
    }
}

/// A peer that sees how its packets are marked.
struct Receiver {
    socket: UdpSocket,
    address: SocketAddr,
}

impl Receiver {
    fn new(ip: IpAddr) -> Self {
        let socket = UdpSocket::bind((ip, 0)).unwrap();
        socket.set_read_timeout(Some(LOST)).unwrap();
        let raw = socket2::SockRef::from(&socket);
        raw.set_recv_buffer_size(4 << 20).unwrap();
        if ip.is_ipv4() {
            raw.set_recv_tos_v4(true).unwrap();
        } else {
            raw.set_recv_tclass_v6(true).unwrap();
        }
        let address = socket.local_addr().unwrap();
        Self { socket, address }
    }

    /// The next datagram and its packet's TOS byte or traffic class.
    fn take(&self) -> (Vec<u8>, u8) {
        let mut bytes = [0u8; 2048];
        let mut control = [0u64; 16];
        let mut vector = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        // SAFETY: all-zero bytes are a valid msghdr.
        let mut header: libc::msghdr = unsafe { mem::zeroed() };
        header.msg_iov = &raw mut vector;
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = size_of_val(&control) as _;
        // SAFETY: the header points at locals that outlive the call.
        let len = unsafe { libc::recvmsg(self.socket.as_raw_fd(), &raw mut header, 0) };
        let len = usize::try_from(len).expect("a datagram was lost");
        let mut tos = None;
        // SAFETY: the kernel filled the header, and the control buffer is aligned.
        let mut at = unsafe { libc::CMSG_FIRSTHDR(&raw const header) };
        while !at.is_null() {
            // SAFETY: `at` is a control message of `header`; both kinds hold the value
            // in the first byte (little-endian where it is an int).
            unsafe {
                match ((*at).cmsg_level, (*at).cmsg_type) {
                    (libc::IPPROTO_IP, libc::IP_TOS) | (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                        tos = Some(*libc::CMSG_DATA(at));
                    }
                    _ => {}
                }
                at = libc::CMSG_NXTHDR(&raw const header, at);
            }
        }
        (bytes[..len].to_vec(), tos.expect("the mark of the packet"))
    }

    /// Panics unless exactly these datagrams are the next ones.
    fn expect(&self, datagrams: &[Vec<u8>]) {
        for (i, wanted) in datagrams.iter().enumerate() {
            let (bytes, _) = self.take();
            assert!(bytes == *wanted, "datagram {i}: {} bytes", bytes.len());
        }
        self.expect_nothing();
    }

    /// Panics when there is another datagram. Those sent over loopback are there when
    /// the call that sends them returns.
    fn expect_nothing(&self) {
        self.socket.set_nonblocking(true).unwrap();
        let next = self.socket.recv(&mut [0; 2048]);
        self.socket.set_nonblocking(false).unwrap();
        assert_eq!(next.err().map(|error| error.kind()), Some(std::io::ErrorKind::WouldBlock));
    }
}

/// `len` bytes that tell which datagram they are and where they stand in it.
fn datagram(number: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| (number * 31 + at * 7 + at / 256) as u8).collect()
}

/// Runs a test in a network namespace of its own, where the caller may change what it
/// likes: starts the test binary anew for the test `name` of the calling module.
/// Returns whether the caller is the one inside.
fn in_namespace(module: &str, name: &str) -> bool {
    const INSIDE: &str = "RAILBIRD_TEST_INSIDE_NAMESPACE";
    if std::env::var_os(INSIDE).is_some() {
        command("ip link set lo up");
        return true;
    }
    let (_, path) = module.split_once("::").unwrap();
    let mut run = Command::new("unshare");
    run.arg("--net");
    if !rustix::process::geteuid().is_root() {
        run.arg("--map-root-user");
    }
    run.arg(std::env::current_exe().unwrap()).args(["--exact", "--nocapture"]);
    let output = run.arg(format!("{path}::{name}")).env(INSIDE, "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{complaint}");
    assert!(said.contains("1 passed"), "{said}\n{complaint}");
    false
}

/// Runs a command of the system.
fn command(line: &str) {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}
