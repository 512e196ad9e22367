//! Payloads made by hand, for what the packetizers of the round trips never send.

use super::av1::Av1Assembler;
use super::h264::H264Assembler;
use super::h265::H265Assembler;
use super::vp8::Vp8Assembler;
use super::vp9::Vp9Assembler;
use super::{Assembler, Malformed, Unit};

fn assemble(mut assembler: impl Assembler, payloads: &[&[u8]]) -> Result<Unit, Malformed> {
    for payload in payloads {
        assembler.append(payload)?;
    }
    assembler.finish()
}

#[test]
fn h264_refuses_what_it_cannot_order_and_fragments_that_do_not_meet() {
    let refused = |payloads: &[&[u8]]| assemble(H264Assembler::default(), payloads).is_err();
    for kind in [0, 25, 26, 27, 29, 30, 31] {
        assert!(refused(&[&[0x60 | kind, 1, 2, 3, 4]]), "type {kind}");
    }
    assert!(refused(&[&[0x78, 0, 4, 0x41, 0x9a]]), "STAP-A cut");
    assert!(refused(&[&[0x78, 0, 0, 0, 1, 0x41]]), "STAP-A with an empty unit");
    assert!(refused(&[&[0x78, 0, 1, 0x7c]]), "STAP-A with a FU-A in it");
    assert!(refused(&[&[0x7c, 0x01, 1]]), "FU-A without start");
    assert!(refused(&[&[0x7c, 0x81, 1]]), "FU-A without end");
    assert!(refused(&[&[0x7c, 0x81, 1], &[0x7c, 0x81, 1]]), "FU-A started twice");
    assert!(refused(&[&[0x7c, 0x81, 1], &[0x41, 0x9a], &[0x7c, 0x41, 1]]), "unit in between");
    assert!(refused(&[&[0x7c, 0x9c, 1], &[0x7c, 0x5c, 1]]), "FU-A of a FU-A");
    assert!(refused(&[]));

    let fu: [&[u8]; 3] = [&[0x7c, 0x85, 0x88], &[0x7c, 0x05], &[0x7c, 0x45, 9]];
    let unit = assemble(H264Assembler::default(), &fu).unwrap();
    assert_eq!(unit.data, [0, 0, 0, 3, 0x65, 0x88, 9], "an empty fragment is allowed");
    assert!(unit.keyframe && !unit.head_intact, "an IDR picture whose SPS is missing");
}

#[test]
fn h264_intra_pictures_after_an_sps_are_random_access_points() {
    let sps: &[u8] = &[0x67, 0x64, 0, 0x1f];
    let intra: &[u8] = &[0x41, 0x88, 1];
    let unit = assemble(H264Assembler::default(), &[sps, intra]).unwrap();
    assert!(unit.keyframe && unit.head_intact);
    assert!(!assemble(H264Assembler::default(), &[intra]).unwrap().keyframe);
    assert!(!assemble(H264Assembler::default(), &[sps, &[0x41, 0x9a, 1]]).unwrap().keyframe);
}

#[test]
fn h265_refuses_paci_and_broken_aggregates() {
    let refused = |payloads: &[&[u8]]| assemble(H265Assembler::default(), payloads).is_err();
    assert!(refused(&[&[50 << 1, 1, 0, 0, 0]]), "PACI");
    assert!(refused(&[&[48 << 1, 1, 0, 3, 2, 1]]), "AP cut");
    assert!(refused(&[&[48 << 1, 1, 0, 1, 2]]), "AP with half a header");
    assert!(refused(&[&[48 << 1, 1, 0, 2, 49 << 1, 1]]), "AP with a FU in it");
    assert!(refused(&[&[49 << 1, 1, 0xb0, 1]]), "FU of an AP");
    assert!(refused(&[&[2]]));
    let unit = assemble(H265Assembler::default(), &[&[49 << 1, 9, 0xd3, 0xaf]]).unwrap();
    assert_eq!(unit.data, [0, 0, 0, 3, 19 << 1, 9, 0xaf], "layer and temporal id are kept");
}

#[test]
fn vp8_descriptors_of_all_shapes() {
    let key = [0x10, 2, 0, 0x9d, 1, 0x2a, 0x80, 2, 0x68, 1];
    let descriptors: [&[u8]; 5] = [
        &[0x10],
        &[0x90, 0x00],
        &[0x90, 0x80, 0x7f],
        &[0x90, 0xc0, 0x80, 1, 2],
        &[0x90, 0xf0, 0xff, 0xff, 3, 4],
    ];
    for descriptor in descriptors {
        let payload = [descriptor, &key].concat();
        let unit = assemble(Vp8Assembler::default(), &[&payload, &[0x11, 7], &[0x00, 8]]).unwrap();
        assert_eq!(unit.data, [&key[..], &[7, 8]].concat(), "partition 1 starts within");
        assert!(unit.keyframe);
        assert_eq!(super::vp8::resolution(&payload), Some((640, 360)));
        for end in 0..=descriptor.len() {
            assert!(assemble(Vp8Assembler::default(), &[&payload[..end]]).is_err());
        }
    }
    assert!(assemble(Vp8Assembler::default(), &[&[0x00, 1]]).is_err(), "no start");
    assert!(assemble(Vp8Assembler::default(), &[&[0x11, 1]]).is_err(), "start of partition 1");
}

const VP9_KEY: [u8; 9] = [0x82, 0x49, 0x83, 0x42, 0, 0x27, 0xf0, 0x16, 0x70];

#[test]
fn vp9_spatial_layers_become_a_superframe() {
    // Non-flexible: I, L, B, E, V with a scalability structure of two layers.
    let mut base = vec![0b1010_1110, 0x81, 0x02, 0x00, 5];
    base.extend([0b0011_1000, 2, 128, 1, 104, 5, 0, 2, 208]); // 640x360, 1280x720
    base.extend([2, 0b0000_0100, 1, 0b0010_1000, 1, 2]); // two pictures with 1 and 2 references
    let structure_end = base.len();
    base.extend(VP9_KEY);
    let upper = [0b1010_1100, 0x81, 0x02, 0b0000_0011, 5, 0x86, 1, 2, 3];
    let unit = assemble(Vp9Assembler::default(), &[&base, &upper]).unwrap();
    let marker = 0b1100_0001;
    let index = [marker, 9, 4, marker];
    assert_eq!(unit.data, [&VP9_KEY[..], &[0x86, 1, 2, 3], &index].concat());
    assert!(unit.keyframe && unit.head_intact);
    assert_eq!(super::vp9::resolution(&base), Some((1280, 720)));
    assert!(super::vp9::starts_keyframe(&base) && !super::vp9::starts_keyframe(&upper));
    for end in 0..=structure_end {
        assert!(assemble(Vp9Assembler::default(), &[&base[..end]]).is_err());
    }
    let unit = assemble(Vp9Assembler::default(), &[&upper]).unwrap();
    assert!(!unit.head_intact, "the base layer is missing");
}

#[test]
fn vp9_references_of_flexible_mode() {
    let payload = |references: &[u8]| [&[0b1101_1100, 5], references, &[0x86, 1]].concat();
    for references in [&[2][..], &[3, 4], &[3, 5, 6]] {
        let unit = assemble(Vp9Assembler::default(), &[&payload(references)]).unwrap();
        assert_eq!(unit.data, [0x86, 1]);
    }
    assert!(assemble(Vp9Assembler::default(), &[&payload(&[3, 5, 7])]).is_err(), "four of them");
    let ten: Vec<&[u8]> = vec![&[0x08, 0x86]; 9];
    assert!(assemble(Vp9Assembler::default(), &ten).is_err(), "more layers than exist");
}

#[test]
fn av1_elements_with_and_without_sizes() {
    let expected = [0x32, 2, 0x30, 1, 0x22, 1, 7];
    let shapes: [&[&[u8]]; 5] = [
        &[&[0x00, 3, 0x30, 0x30, 1, 2, 0x20, 7]],       // W = 0
        &[&[0x20, 3, 0x30, 0x30, 1, 0x20, 7]],          // W = 2
        &[&[0x30, 1, 0x10, 3, 0x30, 0x30, 1, 0x20, 7]], // W = 3, a temporal delimiter
        &[&[0x20, 4, 0x32, 2, 0x30, 1, 0x22, 1, 7]],    // OBUs with their own size
        &[&[0x50, 0x30], &[0xd0, 0x30], &[0xa0, 1, 1, 0x20, 7]], // in fragments
    ];
    for payloads in shapes {
        let unit = assemble(Av1Assembler::default(), payloads).unwrap();
        assert_eq!(unit.data, expected, "{payloads:x?}");
        assert!(unit.head_intact && !unit.keyframe);
    }
    let refused = |payloads: &[&[u8]]| assemble(Av1Assembler::default(), payloads).is_err();
    assert!(refused(&[&[0x90, 1]]), "a continuation of nothing");
    assert!(refused(&[&[0x50, 0x30]]), "no end");
    assert!(refused(&[&[0x50, 0x30], &[0x10, 0x30]]), "not continued");
    assert!(refused(&[&[0x98, 1]]), "Z and N");
    assert!(refused(&[&[0x20, 9, 1]]), "size beyond the payload");
    assert!(refused(&[&[0x30, 1, 0x30]]), "fewer elements than W");
    assert!(refused(&[&[0x10, 0xb0, 1]]), "forbidden bit");
    assert!(refused(&[&[0x10, 0x10]]), "nothing but a temporal delimiter");
    let tiles = assemble(Av1Assembler::default(), &[&[0x10, 0x20, 7]]).unwrap();
    assert!(!tiles.head_intact, "tiles whose frame header is missing");
}
