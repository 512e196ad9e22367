//! Headers that real encoders wrote (libx264, libx265, libvpx, libaom, SVT-AV1,
//! rav1e), what they must read as, and what must not happen with broken ones.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

fn sized(units: &[Vec<u8>]) -> Vec<u8> {
    units.iter().flat_map(|u| [&(u.len() as u32).to_be_bytes()[..], u].concat()).collect()
}

const H264_BASELINE_720P: &str = "6742c01fda014016ec0440000003004000000c83c60ca8";
const H264_MAIN_1080P: &str = "674d4028eca03c0113f2e022000003000200000300641e30632c";
const H264_INTERLACED_576: &str = "674d401ef405a126c044000003000400000300c87c50aa80";
const H264_HIGH422_10BIT: &str = "677a001eb6cb405017fc4e0220000003002000000641e2c5d4";
const H265_VPS: &str = "40010c01ffff016000000300900000030000030078959409";
const H265_MAIN_1080P: &str = "420101016000000300900000030000030078a003c0801107cb965654a4c2f01680\
                               80000003008000000c84";
const H265_MAIN10_362: &str = "42010102200000030090000003000003003fa005020171f236595952930bc05a02\
                               0000030002000003003210";
const H265_PPS: &str = "4401c073c189";
const VP8_KEY: &str = "10ae009d012a800268010087088585889984880a83b8a022";
const VP9_KEY: &str = "824983420027f016760638241c184a1009005fcdf7f7ffb4";
const VP9_PROFILE3_KEY: &str = "b124c1a100013d80aeb031c120e0c2c0804a405fcdf7f3ff";
const AV1_AOM: &str = "12000a0b0000000cc4f75d36be40103280";
const AV1_SVT: &str = "12000a0b0000002d4cffb3cfbf9404";
const AV1_RAV1E: &str = "12000a0e000000fa627fb38842a20404042832";

#[test]
fn h264_parameter_sets_of_x264() {
    let expect = [
        (H264_BASELINE_720P, 1280, 720, "avc1.42c01f", true, Some(0)),
        (H264_MAIN_1080P, 1920, 1080, "avc1.4d4028", true, Some(2)),
        (H264_INTERLACED_576, 720, 576, "avc1.4d401e", false, None),
        (H264_HIGH422_10BIT, 640, 360, "avc1.7a001e", true, None),
    ];
    for (text, width, height, codec, frames_only, reorder) in expect {
        let sps = h264::Sps::parse(&hex(text)).unwrap();
        assert_eq!((sps.width, sps.height), (width, height), "{text}");
        assert_eq!(sps.codec_string(), codec);
        assert_eq!(sps.frames_only, frames_only);
        if reorder.is_some() {
            assert_eq!(sps.max_reorder_frames, reorder, "{text}");
        }
    }
    let sps = h264::Sps::parse(&hex(H264_HIGH422_10BIT)).unwrap();
    assert_eq!((sps.chroma_format, sps.bit_depth_luma, sps.bit_depth_chroma), (2, 10, 10));
}

#[test]
fn h264_slices_tell_where_a_picture_starts() {
    let idr = h264::SliceStart::parse(&hex("6588843a0c6001c1")).unwrap();
    assert_eq!(idr, h264::SliceStart { first: true, intra: true });
    let inter = h264::SliceStart::parse(&hex("419a21af0610e1e7")).unwrap();
    assert_eq!(inter, h264::SliceStart { first: true, intra: false });
    let later = h264::SliceStart::parse(&[0x41, 0b0100_0110]).unwrap();
    assert!(!later.first);
    assert_eq!(h264::SliceStart::parse(&[0x41]), None);
}

#[test]
fn h265_parameter_sets_of_x265() {
    let sps = h265::Sps::parse(&hex(H265_MAIN_1080P)).unwrap();
    assert_eq!((sps.width, sps.height, sps.bit_depth_luma), (1920, 1080, 8));
    assert_eq!(sps.codec_string(), "hvc1.1.6.L120.90");
    let sps = h265::Sps::parse(&hex(H265_MAIN10_362)).unwrap();
    assert_eq!((sps.width, sps.height), (640, 362), "cropped from 368");
    assert_eq!((sps.bit_depth_luma, sps.bit_depth_chroma, sps.chroma_format), (10, 10, 1));
    assert_eq!(sps.codec_string(), "hvc1.2.4.L63.90");
}

#[test]
fn parameter_sets_are_collected_once() {
    let units = [H265_VPS, H265_MAIN_1080P, H265_PPS, H265_PPS, "2801ac74110c"].map(hex);
    let data = sized(&units);
    let sets = h265::ParameterSets::collect(&data);
    assert_eq!(
        (sets.vps, sets.sps, sets.pps),
        (vec![&units[0][..]], vec![&units[1][..]], vec![&units[2][..]])
    );
    let units = [H264_BASELINE_720P, "68ce0fc8", H264_BASELINE_720P, "6588843a"].map(hex);
    let data = sized(&units);
    let sets = h264::ParameterSets::collect(&data);
    assert_eq!((sets.sps, sets.pps), (vec![&units[0][..]], vec![&units[1][..]]));
}

#[test]
fn vp9_headers_of_libvpx() {
    let header = vp9::KeyframeHeader::parse(&hex(VP9_KEY)).unwrap();
    assert_eq!((header.profile, header.bit_depth), (0, 8));
    assert_eq!((header.width, header.height), (640, 360));
    assert_eq!(header.codec_string(), "vp09.00.21.08");
    let header = vp9::KeyframeHeader::parse(&hex(VP9_PROFILE3_KEY)).unwrap();
    assert_eq!((header.profile, header.bit_depth), (3, 10));
    assert_eq!((header.width, header.height), (636, 350));
    for interframe in ["86004092f1214004", "b300204978809dc2"] {
        assert!(!vp9::is_keyframe(&hex(interframe)));
    }
}

#[test]
fn a_vp9_superframe_has_the_size_of_its_top_layer() {
    // An interframe that spells out 1280x720: marker 10, profile 00, no
    // show_existing, inter, shown, not resilient; reset 00, refresh, three
    // references, none found; two sizes of 16 bits.
    let mut bits = String::from("10000110") + "00" + "00000001" + &"0010".repeat(3) + "000";
    bits += &format!("{:016b}{:016b}", 1280 - 1, 720 - 1);
    while !bits.len().is_multiple_of(8) {
        bits.push('0');
    }
    let upper: Vec<u8> = (0..bits.len())
        .step_by(8)
        .map(|i| u8::from_str_radix(&bits[i..i + 8], 2).unwrap())
        .collect();
    let base = hex(VP9_KEY);
    let mut data = [&base[..], &upper].concat();
    vp9::append_superframe_index(&mut data, &[base.len(), upper.len()]);
    assert_eq!(resolution(Codec::Vp9, &data), Some((1280, 720)));
    assert_eq!(resolution(Codec::Vp9, &base), Some((640, 360)));
    for end in 0..data.len() {
        let _ = resolution(Codec::Vp9, &data[..end]);
    }
}

#[test]
fn av1_sequence_headers_of_three_encoders() {
    let expect = [(AV1_AOM, 636, 350, 8), (AV1_SVT, 1280, 720, 10), (AV1_RAV1E, 640, 360, 8)];
    for (text, width, height, depth) in expect {
        let header = av1::SequenceHeader::find(&hex(text)).unwrap();
        assert_eq!((header.width, header.height), (width, height));
        assert_eq!((header.bit_depth, header.profile, header.monochrome), (depth, 0, false));
    }
    assert_eq!(codec_string(Codec::Av1, &hex(AV1_AOM)).unwrap(), "av01.0.01M.08");
    assert_eq!(codec_string(Codec::Av1, &hex(AV1_SVT)).unwrap(), "av01.0.05M.10");
    assert_eq!(codec_string(Codec::Av1, &hex(AV1_RAV1E)).unwrap(), "av01.0.31M.08");
}

#[test]
fn leb128_round_trips_and_is_bounded() {
    for value in [0, 1, 127, 128, 16_383, 16_384, u32::MAX as usize] {
        let mut bytes = Vec::new();
        av1::write_leb128(&mut bytes, value);
        assert_eq!(av1::read_leb128(&bytes), Some((value, &[][..])));
        assert_eq!(av1::read_leb128(&bytes[..bytes.len() - 1]), None);
    }
    assert_eq!(av1::read_leb128(&[0xff; 16]), None);
    assert_eq!(av1::read_leb128(&[0xff, 0xff, 0xff, 0xff, 0x1f]), None, "more than 32 bits");
}

fn keyframe_samples() -> Vec<(Codec, Vec<u8>)> {
    vec![
        (Codec::H264, sized(&[hex(H264_BASELINE_720P), hex("68ce0fc8")])),
        (Codec::H264, sized(&[hex(H264_INTERLACED_576)])),
        (Codec::H264, sized(&[hex(H264_HIGH422_10BIT)])),
        (Codec::H265, sized(&[hex(H265_VPS), hex(H265_MAIN10_362), hex(H265_PPS)])),
        (Codec::Vp8, hex(VP8_KEY)),
        (Codec::Vp9, hex(VP9_PROFILE3_KEY)),
        (Codec::Av1, hex(AV1_AOM)),
        (Codec::Av1, hex(AV1_RAV1E)),
    ]
}

#[test]
fn one_function_reads_every_codec() {
    let sizes: Vec<_> =
        keyframe_samples().iter().map(|(codec, data)| resolution(*codec, data).unwrap()).collect();
    assert_eq!(sizes[..4], [(1280, 720), (720, 576), (640, 360), (640, 362)]);
    assert_eq!(sizes[4..], [(640, 360), (636, 350), (636, 350), (640, 360)]);
    assert_eq!(codec_string(Codec::Vp8, &hex(VP8_KEY)).as_deref(), Some("vp8"));
    assert_eq!(codec_string(Codec::Opus, &[0x78]).as_deref(), Some("opus"));
    assert_eq!(resolution(Codec::Opus, &[0x78]), None);
}

#[test]
fn broken_headers_never_panic() {
    let read = |codec, data: &[u8]| {
        let _ = (resolution(codec, data), codec_string(codec, data), opus::duration(data));
        let _ = (h264::Sps::parse(data), h265::Sps::parse(data), av1::SequenceHeader::parse(data));
        let _ = (h264::SliceStart::parse(data), h265::is_first_slice(data));
    };
    let mut rng = StdRng::seed_from_u64(4);
    for (codec, sample) in keyframe_samples() {
        for end in 0..sample.len() {
            read(codec, &sample[..end]);
        }
        for _ in 0..5_000 {
            let mut broken = sample.clone();
            for _ in 0..rng.random_range(1..6) {
                let at = rng.random_range(0..broken.len());
                broken[at] = rng.random();
            }
            read(codec, &broken);
            let start = rng.random_range(0..broken.len());
            read(codec, &broken[start..]);
        }
    }
    for first in [0x67, 0x42, 0x0a, 0x12, 0x82, 0x00] {
        for _ in 0..5_000 {
            let mut garbage: Vec<u8> = (0..rng.random_range(1..80)).map(|_| rng.random()).collect();
            garbage[0] = first;
            for codec in Codec::ALL {
                read(codec, &garbage);
            }
        }
    }
}
