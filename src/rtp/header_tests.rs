//! The header's parser and writer against each other, a second implementation, and
//! hostile bytes.

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rtc::rtp::header::{EXTENSION_PROFILE_ONE_BYTE, EXTENSION_PROFILE_TWO_BYTE, Extension, Header};
use rtc::shared::marshal::{Marshal, Unmarshal};

use super::*;

fn bytes(rng: &mut StdRng, len: usize) -> Vec<u8> {
    (0..len).map(|_| rng.random()).collect()
}

/// A random header as the independent implementation knows it.
fn random_header(rng: &mut StdRng) -> Header {
    let mut header = Header {
        version: 2,
        marker: rng.random(),
        payload_type: rng.random_range(0..128),
        sequence_number: rng.random(),
        timestamp: rng.random(),
        ssrc: rng.random(),
        csrc: (0..rng.random_range(0..16)).map(|_| rng.random()).collect(),
        ..Header::default()
    };
    match rng.random_range(0..3) {
        0 => return header,
        1 => {
            header.extension_profile = EXTENSION_PROFILE_ONE_BYTE;
            for id in 1..=rng.random_range(1..15) {
                let len = rng.random_range(1..=16);
                let payload = Bytes::from(bytes(rng, len));
                header.extensions.push(Extension { id, payload });
            }
        }
        _ => {
            header.extension_profile = EXTENSION_PROFILE_TWO_BYTE;
            for id in 10..=rng.random_range(15..30) {
                let len = rng.random_range(0..=255);
                let payload = Bytes::from(bytes(rng, len));
                header.extensions.push(Extension { id, payload });
            }
        }
    }
    header.extension = true;
    header
}

#[test]
fn parses_what_another_implementation_writes() {
    let mut rng = StdRng::seed_from_u64(1);
    for _ in 0..2_000 {
        let expected = random_header(&mut rng);
        let mut packet = expected.marshal().unwrap().to_vec();
        let len = rng.random_range(0..50);
        let payload = bytes(&mut rng, len);
        let start = packet.len();
        packet.extend_from_slice(&payload);
        let padding = rng.random_range(0..=4u8);
        if padding > 0 {
            packet[0] |= 0x20;
            packet.extend(vec![padding; usize::from(padding)]);
        }
        let header = RtpHeader::parse(&packet).unwrap();
        assert_eq!(
            (header.marker, header.payload_type, header.sequence, header.timestamp, header.ssrc),
            (
                expected.marker,
                expected.payload_type,
                expected.sequence_number,
                expected.timestamp,
                expected.ssrc
            )
        );
        assert_eq!(header.csrcs().collect::<Vec<_>>(), expected.csrc);
        assert_eq!(header.payload_range, start..start + payload.len());
        assert_eq!(header.padding, padding);
        assert_eq!(header.extensions().count(), expected.extensions.len());
        for extension in &expected.extensions {
            assert_eq!(header.extension(extension.id), Some(&extension.payload[..]));
        }
        assert_eq!(header.extension(200), None);
        let protected = RtpHeader::parse_protected(&packet).unwrap();
        assert_eq!(protected.payload_range, start..packet.len());
    }
}

#[test]
fn another_implementation_parses_what_is_written() {
    let mut rng = StdRng::seed_from_u64(2);
    for round in 0..2_000 {
        let fields = HeaderFields {
            marker: rng.random(),
            payload_type: rng.random_range(0..128),
            sequence: rng.random(),
            timestamp: rng.random(),
            ssrc: rng.random(),
        };
        let max_id = if round % 2 == 0 { 14 } else { 255 };
        let mut values: Vec<(u8, Vec<u8>)> = Vec::new();
        for _ in 0..rng.random_range(0..5) {
            let id = rng.random_range(1..=max_id);
            if values.iter().all(|(other, _)| *other != id) {
                let len = rng.random_range(1..=16);
                values.push((id, bytes(&mut rng, len)));
            }
        }
        let extensions: Vec<_> = values.iter().map(|(id, value)| (*id, &value[..])).collect();
        let mut out = [0xee; 256];
        let len = write_header(&mut out, &fields, &extensions).unwrap();
        assert_eq!(len, header_len(&extensions).unwrap());
        assert!(out[len..].iter().all(|&byte| byte == 0xee), "wrote past its length");

        let read = Header::unmarshal(&mut &out[..len]).unwrap();
        assert_eq!(
            (read.marker, read.payload_type, read.sequence_number, read.timestamp, read.ssrc),
            (fields.marker, fields.payload_type, fields.sequence, fields.timestamp, fields.ssrc)
        );
        let read: Vec<_> = read.extensions.iter().map(|e| (e.id, &e.payload[..])).collect();
        assert_eq!(read, extensions);
        let ours = RtpHeader::parse(&out[..len]).unwrap();
        assert_eq!(ours.extensions().collect::<Vec<_>>(), extensions);
        assert_eq!(write_header(&mut out[..len - 1], &fields, &extensions), Err(RtpError::NoRoom));
    }
}

#[test]
fn the_two_byte_form_is_used_only_when_needed() {
    let mut out = [0; 600];
    let profile = |out: &[u8]| u16::from_be_bytes([out[12], out[13]]);
    let fields = HeaderFields::default();
    write_header(&mut out, &fields, &[(14, &[1; 16])]).unwrap();
    assert_eq!(profile(&out), ONE_BYTE);
    for (id, len) in [(15, 1), (1, 17), (1, 0), (255, 255)] {
        write_header(&mut out, &fields, &[(id, &[1; 255][..len])]).unwrap();
        assert_eq!(profile(&out), TWO_BYTE, "id {id}, {len} bytes");
    }
    assert_eq!(write_header(&mut out, &fields, &[(0, &[1])]), Err(RtpError::Extension));
    assert_eq!(write_header(&mut out, &fields, &[(1, &[1; 256])]), Err(RtpError::Extension));
}

#[test]
fn headers_that_lie_are_refused() {
    let plain = [0x80, 96, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3];
    assert!(RtpHeader::parse(&plain).is_ok());
    let with = |first: u8, rest: &[u8]| {
        let mut packet = plain.to_vec();
        packet[0] = first;
        packet.extend_from_slice(rest);
        RtpHeader::parse(&packet).map(|header| header.payload_range.len())
    };
    assert_eq!(with(0x40, &[]), Err(RtpError::Version(1)));
    assert_eq!(with(0x81, &[1, 2, 3]), Err(RtpError::Truncated), "CSRC cut");
    assert_eq!(with(0x90, &[0xbe, 0xde, 0]), Err(RtpError::Truncated), "extension cut");
    assert_eq!(with(0x90, &[0xbe, 0xde, 0, 2, 0, 0, 0, 0]), Err(RtpError::Truncated));
    assert_eq!(with(0xa0, &[]), Err(RtpError::Padding));
    assert_eq!(with(0xa0, &[9, 0]), Err(RtpError::Padding));
    assert_eq!(with(0xa0, &[9, 3]), Err(RtpError::Padding));
    assert_eq!(with(0xa0, &[9, 1]), Ok(1));
    assert_eq!(with(0xa0, &[9, 2]), Ok(0), "a packet of padding only, as probes are");
}

#[test]
fn malformed_elements_end_the_list() {
    let list = |block: &[u8]| {
        let mut packet = vec![0x90, 96, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3];
        packet.extend_from_slice(block);
        RtpHeader::parse(&packet).unwrap().extensions().map(|(id, _)| id).collect::<Vec<_>>()
    };
    // Padding between elements; the last element longer than the block.
    assert_eq!(list(&[0xbe, 0xde, 0, 2, 0x10, 7, 0, 0, 0x20, 7, 0x31, 7]), [1, 2]);
    assert_eq!(list(&[0xbe, 0xde, 0, 1, 0x10, 7, 0xf0, 0x20]), [1], "id 15 ends the list");
    assert_eq!(list(&[0x10, 0x0f, 0, 1, 0x10, 0, 0x11, 1]), [0x10], "two-byte form with app bits");
    assert_eq!(list(&[0x12, 0x34, 0, 1, 0x10, 7, 0x20, 7]), [] as [u8; 0], "another profile");
}

#[test]
fn garbage_and_truncations_never_panic() {
    let mut rng = StdRng::seed_from_u64(3);
    for _ in 0..20_000 {
        let len = rng.random_range(0..120);
        let mut packet = bytes(&mut rng, len);
        if let Some(first) = packet.first_mut() {
            *first = 0x80 | *first & 0x3f;
        }
        if let Ok(header) = RtpHeader::parse(&packet) {
            assert!(packet.get(header.payload_range.clone()).is_some());
            let _ = (header.extensions().count(), header.csrcs().count());
        }
    }
    for _ in 0..50 {
        let packet = random_header(&mut rng).marshal().unwrap();
        for end in 0..packet.len() {
            assert!(RtpHeader::parse(&packet[..end]).is_err());
        }
    }
}
