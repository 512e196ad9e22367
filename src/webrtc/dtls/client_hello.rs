//! A look at the first ClientHello, before the handshake has begun: does the
//! client offer AEAD_AES_128_GCM for SRTP (RFC 5764 §4.1.1)?
//!
//! A ClientHello may come in fragments over several datagrams (RFC 6347 §4.2.3);
//! they are kept until it is whole, then handed on as they came.

use std::mem;

/// SRTP_AEAD_AES_128_GCM (RFC 7714 §14.2).
const AEAD_AES_128_GCM: u16 = 0x0007;
/// The use_srtp extension (RFC 5764 §9).
const USE_SRTP: u16 = 14;
const RECORD_HEADER: usize = 13;
const HANDSHAKE_HEADER: usize = 12;
const HANDSHAKE_RECORD: u8 = 22;
const CLIENT_HELLO: u8 = 1;
/// Longest ClientHello that is put together; a post-quantum one has about 1.8 KiB.
const MAX_HELLO: usize = 8 * 1024;
/// Datagrams kept; past it the client starts anew with its next retransmission.
const MAX_DATAGRAMS: usize = 8;

/// What the client can do for SRTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offered {
    /// AEAD_AES_128_GCM, perhaps among others; or it says nothing of SRTP.
    Gcm,
    /// SRTP profiles, but not that one.
    NoGcm,
}

/// Puts the first ClientHello together.
#[derive(Default)]
pub(super) struct ClientHelloReader {
    datagrams: Vec<Vec<u8>>,
    body: Vec<u8>,
    filled: Vec<bool>,
}

impl ClientHelloReader {
    /// Takes a datagram. Once the ClientHello is whole: what it offers, and all the
    /// datagrams so far, in order. A datagram with anything else is dropped: anybody
    /// can forge it, and a client says nothing else first.
    pub(super) fn push(&mut self, datagram: &[u8]) -> Option<(Offered, Vec<Vec<u8>>)> {
        if self.datagrams.len() == MAX_DATAGRAMS {
            *self = Self::default();
        }
        self.take_records(datagram)?;
        self.datagrams.push(datagram.to_vec());
        if self.filled.is_empty() || !self.filled.iter().all(|filled| *filled) {
            return None;
        }
        let offered = offered_by(&self.body).unwrap_or(Offered::Gcm);
        Some((offered, mem::take(&mut self.datagrams)))
    }

    /// Copies the fragments of a ClientHello; `None` when something else is in the way.
    fn take_records(&mut self, mut datagram: &[u8]) -> Option<()> {
        while !datagram.is_empty() {
            let header = datagram.get(..RECORD_HEADER)?;
            let len = usize::from(u16::from_be_bytes([header[11], header[12]]));
            let record = datagram.get(RECORD_HEADER..RECORD_HEADER + len)?;
            if header[0] != HANDSHAKE_RECORD {
                return None;
            }
            self.take_fragment(record)?;
            datagram = &datagram[RECORD_HEADER + len..];
        }
        Some(())
    }

    fn take_fragment(&mut self, record: &[u8]) -> Option<()> {
        let header = record.get(..HANDSHAKE_HEADER)?;
        let (len, offset, part) = (be24(&header[1..]), be24(&header[6..]), be24(&header[9..]));
        if header[0] != CLIENT_HELLO || len == 0 || len > MAX_HELLO {
            return None;
        }
        if self.body.len() != len {
            self.body = vec![0; len];
            self.filled = vec![false; len];
        }
        let fragment = record.get(HANDSHAKE_HEADER..HANDSHAKE_HEADER + part)?;
        self.body.get_mut(offset..offset + part)?.copy_from_slice(fragment);
        self.filled[offset..offset + part].fill(true);
        Some(())
    }
}

fn be24(bytes: &[u8]) -> usize {
    usize::from(bytes[0]) << 16 | usize::from(bytes[1]) << 8 | usize::from(bytes[2])
}

/// Reads a ClientHello's use_srtp extension (RFC 5246 §7.4.1.2, RFC 6347 §4.2.1).
fn offered_by(body: &[u8]) -> Option<Offered> {
    // Version and random.
    let rest = body.get(2 + 32..)?;
    let (_session_id, rest) = vector8(rest)?;
    let (_cookie, rest) = vector8(rest)?;
    let (_cipher_suites, rest) = vector16(rest)?;
    let (_compression, rest) = vector8(rest)?;
    let (mut extensions, _) = vector16(rest)?;
    while let Some(kind) = extensions.get(..2) {
        let (value, rest) = vector16(&extensions[2..])?;
        if u16::from_be_bytes([kind[0], kind[1]]) == USE_SRTP {
            let (profiles, _) = vector16(value)?;
            let mut profiles = profiles.chunks_exact(2).map(|p| u16::from_be_bytes([p[0], p[1]]));
            let gcm = profiles.any(|profile| profile == AEAD_AES_128_GCM);
            return Some(if gcm { Offered::Gcm } else { Offered::NoGcm });
        }
        extensions = rest;
    }
    None
}

/// A vector with a length of one byte, and what follows it.
fn vector8(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&len, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(len))
}

/// A vector with a length of two bytes, and what follows it.
fn vector16(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_at_checked(2)?;
    rest.split_at_checked(usize::from(u16::from_be_bytes([len[0], len[1]])))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(profiles: &[u16]) -> Vec<u8> {
        let mut body = vec![0xfe, 0xfd];
        body.extend([7; 32]);
        body.extend([0, 0, 0, 2, 0xc0, 0x2b, 1, 0]);
        let list: Vec<u8> = profiles.iter().flat_map(|p| p.to_be_bytes()).collect();
        let mut extensions = vec![0, 23, 0, 0];
        extensions.extend([0, 14, 0, list.len() as u8 + 3, 0, list.len() as u8]);
        extensions.extend(list);
        extensions.push(0);
        body.extend((extensions.len() as u16).to_be_bytes());
        body.extend(extensions);
        body
    }

    fn fragment(body: &[u8], from: usize, to: usize) -> Vec<u8> {
        let be24 = |n: usize| [(n >> 16) as u8, (n >> 8) as u8, n as u8];
        let mut record = vec![CLIENT_HELLO];
        record.extend(be24(body.len()));
        record.extend([0, 0]);
        record.extend(be24(from));
        record.extend(be24(to - from));
        record.extend(&body[from..to]);
        let mut datagram = vec![HANDSHAKE_RECORD, 0xfe, 0xff, 0, 0, 0, 0, 0, 0, 0, 0];
        datagram.extend((record.len() as u16).to_be_bytes());
        datagram.extend(record);
        datagram
    }

    #[test]
    fn tells_gcm_from_its_absence() {
        for (profiles, expected) in
            [(&[1u16, 8, 7][..], Offered::Gcm), (&[1, 2], Offered::NoGcm), (&[8], Offered::NoGcm)]
        {
            let body = hello(profiles);
            let datagram = fragment(&body, 0, body.len());
            let (offered, datagrams) = ClientHelloReader::default().push(&datagram).unwrap();
            assert_eq!(offered, expected);
            assert_eq!(datagrams, [datagram]);
        }
    }

    #[test]
    fn waits_for_all_fragments_in_any_order() {
        let body = hello(&[1]);
        let (a, b) = (fragment(&body, 0, 30), fragment(&body, 30, body.len()));
        let mut reader = ClientHelloReader::default();
        assert!(reader.push(&b).is_none());
        let (offered, datagrams) = reader.push(&a).unwrap();
        assert_eq!(offered, Offered::NoGcm);
        assert_eq!(datagrams, [b, a]);
    }

    #[test]
    fn what_is_no_client_hello_does_not_decide() {
        let body = hello(&[1]);
        let good = fragment(&body, 0, body.len());
        let mut reader = ClientHelloReader::default();
        let mut server_hello = good.clone();
        server_hello[RECORD_HEADER] = 2;
        for bad in [&good[..good.len() - 1], &[HANDSHAKE_RECORD; 40], &server_hello] {
            assert!(reader.push(bad).is_none());
        }
        let (offered, datagrams) = reader.push(&good).unwrap();
        assert_eq!(offered, Offered::NoGcm);
        assert_eq!(datagrams, [good]);
    }

    #[test]
    fn garbage_neither_panics_nor_grows() {
        let body = hello(&[1, 7]);
        let good = fragment(&body, 0, body.len());
        let mut reader = ClientHelloReader::default();
        for len in 0..good.len() {
            let _ = reader.push(&good[..len]);
            assert!(reader.datagrams.len() <= MAX_DATAGRAMS);
        }
        for byte in 0..good.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut bad = good.clone();
                bad[byte] = value;
                let _ = reader.push(&bad);
                assert!(reader.datagrams.len() <= MAX_DATAGRAMS && reader.body.len() <= MAX_HELLO);
            }
        }
    }
}
