//! The machine's limit: what must be done for every packet of every viewer, and nothing
//! else. Copy, four fields of the header, seal, and a segmented send for each frame.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use socket2::SockAddr;

use crate::cpu::{Cost, thread_nanos};
use crate::network::{LOCAL, address};
use crate::{FRAME, PACKET};

const HEADER: usize = 20;
const TAG: usize = 16;
const SEALED: usize = PACKET + TAG;
/// Viewers whose frames go in one system call.
const BATCH: usize = 7;

struct Viewer {
    key: LessSafeKey,
    salt: [u8; 12],
    ssrc: u32,
    index: u64,
    shift: u32,
    address: SockAddr,
}

pub(crate) struct Limit {
    socket: UdpSocket,
    viewers: Vec<Viewer>,
    frames: Vec<Vec<[u8; PACKET]>>,
    arena: Vec<u8>,
}

impl Limit {
    pub(crate) fn new(count: usize) -> Self {
        let socket = UdpSocket::bind(SocketAddr::new(LOCAL.into(), 0)).expect("a socket");
        socket2::SockRef::from(&socket).set_send_buffer_size(8 << 20).expect("a send buffer");
        let viewers = (0..count).map(|n| {
            let key = UnboundKey::new(&AES_128_GCM, &[n as u8; 16]).expect("a key");
            Viewer {
                key: LessSafeKey::new(key),
                salt: [1; 12],
                ssrc: n as u32,
                index: 0,
                shift: 99,
                address: address(n).into(),
            }
        });
        let packet = |frame: usize, n: usize| {
            let mut packet = [(frame * 16 + n) as u8; PACKET];
            packet[..2].copy_from_slice(&[0x90, 96]);
            packet[12..16].copy_from_slice(&[0xbe, 0xde, 0, 1]);
            packet
        };
        Self {
            socket,
            viewers: viewers.collect(),
            frames: (0..4).map(|f| (0..FRAME).map(|n| packet(f, n)).collect()).collect(),
            arena: vec![0; BATCH * FRAME * SEALED],
        }
    }

    pub(crate) fn run(&mut self, time: Duration) -> Cost {
        let end = Instant::now() + time;
        let before = thread_nanos();
        let mut packets = 0;
        let mut frame = 0;
        while Instant::now() < end {
            frame = (frame + 1) % self.frames.len();
            let frame = &self.frames[frame];
            for batch in self.viewers.chunks_mut(BATCH) {
                let mut slots = self.arena.chunks_exact_mut(SEALED);
                for viewer in &mut *batch {
                    for packet in frame {
                        let out = slots.next().expect("a slot for every packet");
                        seal(viewer, packet, out);
                        packets += 1;
                    }
                }
                send(&self.socket, batch, &self.arena);
            }
        }
        Cost { packets, cpu_nanos: thread_nanos() - before }
    }
}

fn seal(viewer: &mut Viewer, packet: &[u8; PACKET], out: &mut [u8]) {
    viewer.index += 1;
    out[..PACKET].copy_from_slice(packet);
    out[2..4].copy_from_slice(&(viewer.index as u16).to_be_bytes());
    let timestamp = u32::from_be_bytes([packet[4], packet[5], packet[6], packet[7]]);
    out[4..8].copy_from_slice(&timestamp.wrapping_add(viewer.shift).to_be_bytes());
    out[8..12].copy_from_slice(&viewer.ssrc.to_be_bytes());
    let mut nonce = viewer.salt;
    xor(&mut nonce[2..6], &viewer.ssrc.to_be_bytes());
    xor(&mut nonce[6..], &viewer.index.to_be_bytes()[2..]);
    let (header, body) = out.split_at_mut(HEADER);
    let (body, tag) = body.split_at_mut(PACKET - HEADER);
    let nonce = Nonce::assume_unique_for_key(nonce);
    let sealed = viewer.key.seal_in_place_separate_tag(nonce, Aad::from(&*header), body);
    tag.copy_from_slice(sealed.expect("sealed").as_ref());
}

fn xor(bytes: &mut [u8], with: &[u8]) {
    bytes.iter_mut().zip(with).for_each(|(byte, other)| *byte ^= other);
}

/// One message a viewer, cut by the kernel; one system call for all of `viewers`.
fn send(socket: &UdpSocket, viewers: &[Viewer], arena: &[u8]) {
    // SAFETY: all-zero bytes are valid for these plain structures.
    let (mut headers, mut vectors): ([libc::mmsghdr; BATCH], [libc::iovec; BATCH]) =
        unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    let mut controls = [[0u64; 3]; BATCH];
    for (i, viewer) in viewers.iter().enumerate() {
        let frame = &arena[i * FRAME * SEALED..][..FRAME * SEALED];
        vectors[i].iov_base = frame.as_ptr().cast_mut().cast();
        vectors[i].iov_len = frame.len();
        let header = &mut headers[i].msg_hdr;
        header.msg_name = viewer.address.as_ptr().cast_mut().cast();
        header.msg_namelen = viewer.address.len();
        header.msg_iov = &raw mut vectors[i];
        header.msg_iovlen = 1;
        // A cmsghdr of UDP_SEGMENT: length 18, level and type in one word, the value.
        let level_and_type = (libc::UDP_SEGMENT as u64) << 32 | libc::SOL_UDP as u64;
        controls[i] = [18, level_and_type, SEALED as u64];
        header.msg_control = controls[i].as_mut_ptr().cast();
        header.msg_controllen = size_of::<[u64; 3]>();
    }
    let mut sent = 0;
    while sent < viewers.len() {
        // SAFETY: the headers from `sent` on point at live addresses, vectors, control
        // messages and bytes of this frame and of the caller; the call only reads.
        let result = unsafe {
            let first = headers.as_mut_ptr().add(sent);
            libc::sendmmsg(socket.as_raw_fd(), first, (viewers.len() - sent) as u32, 0)
        };
        assert!(result > 0, "{}", std::io::Error::last_os_error());
        sent += result as usize;
    }
}
