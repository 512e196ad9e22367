//! A synthetic H264 and Opus source: real structure (parameter sets, IDR, FU-A,
//! P frames), seeded sizes and contents.

use bytes::Bytes;

use super::link::Random;

/// Longest RTP payload.
const MAX_PAYLOAD: usize = 1100;

/// One RTP packet before it has a number.
#[derive(Clone)]
pub(super) struct Piece {
    pub(super) payload: Bytes,
    pub(super) marker: bool,
}

/// Writes bits from the most significant on (H.264 §7.2, Exp-Golomb §9.1).
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    used: usize,
}

impl Bits {
    fn put(&mut self, count: u32, value: u32) {
        for i in (0..count).rev() {
            if self.used.is_multiple_of(8) {
                self.bytes.push(0);
            }
            let at = self.bytes.len() - 1;
            self.bytes[at] |= (((value >> i) & 1) as u8) << (7 - self.used % 8);
            self.used += 1;
        }
    }

    fn ue(&mut self, value: u32) {
        let len = (value + 1).ilog2();
        self.put(len, 0);
        self.put(len + 1, value + 1);
    }
}

/// A baseline sequence parameter set (H.264 §7.3.2.1.1); sizes in pixels, multiples of 16.
fn sps(width: u32, height: u32) -> Vec<u8> {
    let mut bits = Bits::default();
    bits.put(8, 0x67);
    bits.put(8, 66);
    bits.put(8, 0xe0);
    bits.put(8, 31);
    bits.ue(0); // seq_parameter_set_id
    bits.ue(0); // log2_max_frame_num_minus4
    bits.ue(2); // pic_order_cnt_type
    bits.ue(1); // max_num_ref_frames
    bits.put(1, 0); // gaps_in_frame_num_value_allowed_flag
    bits.ue(width / 16 - 1);
    bits.ue(height / 16 - 1);
    bits.put(1, 1); // frame_mbs_only_flag
    bits.put(1, 0); // direct_8x8_inference_flag
    bits.put(1, 0); // frame_cropping_flag
    bits.put(1, 0); // vui_parameters_present_flag
    bits.put(1, 1); // rbsp_stop_one_bit
    bits.bytes
}

/// A NAL unit as RTP payloads (RFC 6184 §5.6 and §5.8).
fn packetize(nal: &[u8], last_of_frame: bool, out: &mut Vec<Piece>) {
    if nal.len() <= MAX_PAYLOAD {
        let payload = Bytes::copy_from_slice(nal);
        return out.push(Piece { payload, marker: last_of_frame });
    }
    let chunks: Vec<&[u8]> = nal[1..].chunks(MAX_PAYLOAD - 2).collect();
    for (i, chunk) in chunks.iter().enumerate() {
        let (start, end) = (i == 0, i + 1 == chunks.len());
        let indicator = (nal[0] & 0xe0) | 28;
        let header = (u8::from(start) << 7) | (u8::from(end) << 6) | (nal[0] & 0x1f);
        let payload = [&[indicator, header], *chunk].concat().into();
        out.push(Piece { payload, marker: end && last_of_frame });
    }
}

/// One access unit; an IDR with its parameter sets when `key`.
pub(super) fn video_frame(random: &mut Random, key: bool, size: (u32, u32)) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let scale = (size.0 * size.1) as usize / 1000;
    let (first, len) = if key {
        packetize(&sps(size.0, size.1), false, &mut pieces);
        packetize(&[0x68, 0xce, 0x3c, 0x80], false, &mut pieces);
        (0x65, scale * 20 + random.below(scale * 10))
    } else {
        (0x41, scale + random.below(scale * 4))
    };
    let mut nal = vec![first];
    nal.extend(random.bytes(len + 16));
    packetize(&nal, true, &mut pieces);
    pieces
}

/// 20 ms of Opus (RFC 6716 §3.1: full band CELT, stereo, one frame).
pub(super) fn audio_frame(random: &mut Random) -> Piece {
    let len = 80 + random.below(100);
    let mut payload = vec![0xfc];
    payload.extend(random.bytes(len));
    Piece { payload: payload.into(), marker: false }
}
