//! Where packets go: a device that drops them, in a namespace of this process.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;

/// Puts this process into a network namespace with a device that drops what it is sent;
/// returns what it is, for the report. Must be called before any thread is started.
pub(crate) fn enter(software_gso: bool) -> String {
    // SAFETY: no pointers; the process has one thread.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        panic!("a network namespace needs root: {}", std::io::Error::last_os_error());
    }
    ip("link set lo up");
    ip("link add sink0 numtxqueues 2 type ifb");
    ip("addr add 10.9.0.1/16 dev sink0");
    ip("link set sink0 up mtu 1500");
    // Players are behind a router: one next hop for all, as on a node. Were they
    // neighbours, more than 1024 of them would overflow the kernel's neighbour table.
    ip("route add 10.10.0.0/16 via 10.9.0.2");
    if software_gso {
        ip("link set sink0 gso_max_segs 1");
        return "ifb, segments cut by the kernel".to_owned();
    }
    "ifb, segments left to the device".to_owned()
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("iproute2");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "ip {arguments}: {error}");
}

/// The address that media leaves from.
pub(crate) const LOCAL: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);

/// The address of viewer `n`.
pub(crate) fn address(n: usize) -> SocketAddr {
    let host = Ipv4Addr::new(10, 10, 1 + (n / 200) as u8, 1 + (n % 200) as u8);
    SocketAddr::new(IpAddr::V4(host), 40_000 + (n % 20_000) as u16)
}
