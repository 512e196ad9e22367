//! The control information of transport-wide feedback
//! (draft-holmer-rmcat-transport-wide-cc-extensions-01 §3.1): which packets
//! arrived, as run-length and bit-vector chunks, and when, as deltas of 250 µs.

use std::time::Duration;

/// Resolution of an arrival time (§3.1.5).
pub const ARRIVAL_TICK: Duration = Duration::from_micros(250);

/// Packets that one message reports on at most. 400 keep it under 1000 bytes
/// even when each needs a two-byte delta.
pub const MAX_STATUSES: usize = 400;

/// The reference time counts 64 ms, which are 256 ticks (§3.1).
const TICKS_PER_REFERENCE: u64 = 256;

/// One packet that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Its transport-wide sequence number.
    pub seq: u16,
    /// When, in [`ARRIVAL_TICK`]s since an epoch that stays the same for the session.
    pub ticks: u64,
}

/// Status of a packet (§3.1.1).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Symbol {
    NotReceived = 0,
    SmallDelta = 1,
    LargeDelta = 2,
}

pub(super) struct Encoded {
    /// From the base sequence number on, without padding.
    pub(super) control: Vec<u8>,
    /// Arrivals of the input that are in it.
    pub(super) covered: usize,
}

/// `None` when not even the first arrival fits a message that begins at `base_seq`.
pub(super) fn encode(count: u8, base_seq: u16, arrivals: &[Arrival]) -> Option<Encoded> {
    let first = arrivals.first()?;
    let reference = first.ticks / TICKS_PER_REFERENCE;
    let mut previous = reference * TICKS_PER_REFERENCE;
    let mut symbols = Vec::new();
    let mut deltas = Vec::new();
    let mut covered = 0;
    for arrival in arrivals {
        let place = usize::from(arrival.seq.wrapping_sub(base_seq));
        let delta = i128::from(arrival.ticks) - i128::from(previous);
        let Ok(delta) = i16::try_from(delta) else { break };
        if place >= MAX_STATUSES || place < symbols.len() {
            break;
        }
        symbols.resize(place, Symbol::NotReceived);
        // One byte holds 0..=255 ticks, two bytes the rest with its sign (§3.1.5).
        if let Ok(small) = u8::try_from(delta) {
            symbols.push(Symbol::SmallDelta);
            deltas.push(small);
        } else {
            symbols.push(Symbol::LargeDelta);
            deltas.extend_from_slice(&delta.to_be_bytes());
        }
        previous = arrival.ticks;
        covered += 1;
    }
    if covered == 0 {
        return None;
    }
    let mut control = Vec::with_capacity(8 + symbols.len() / 3 + deltas.len());
    control.extend_from_slice(&base_seq.to_be_bytes());
    control.extend_from_slice(&(symbols.len() as u16).to_be_bytes());
    // 24 bits of reference time wrap, 8 bits of count follow.
    control.extend_from_slice(&((reference as u32) << 8 | u32::from(count)).to_be_bytes());
    push_chunks(&symbols, &mut control);
    control.extend_from_slice(&deltas);
    Some(Encoded { control, covered })
}

/// Greedy: a run when it says more than a vector could, else 14 one-bit
/// symbols when they suffice, else 7 of two bits (§3.1.2 to §3.1.4). Places
/// past the end are zero; the status count of the message hides them.
fn push_chunks(mut symbols: &[Symbol], out: &mut Vec<u8>) {
    const TWO_BIT_VECTOR: u16 = 0xc000;
    const ONE_BIT_VECTOR: u16 = 0x8000;
    while let Some(&first) = symbols.first() {
        let run = symbols.iter().take_while(|&&symbol| symbol == first).count();
        let next = symbols.get(..14).unwrap_or(symbols);
        let one_bit = next.iter().all(|&symbol| symbol != Symbol::LargeDelta);
        let vector = if one_bit { 14 } else { 7 };
        let (chunk, taken) = if run >= vector || run == symbols.len() {
            // At most MAX_STATUSES, which is less than the 13 bits hold.
            ((first as u16) << 13 | run as u16, run)
        } else if one_bit {
            let bits = next.iter().enumerate();
            (bits.fold(ONE_BIT_VECTOR, |chunk, (i, &s)| chunk | (s as u16) << (13 - i)), next.len())
        } else {
            let next = next.get(..7).unwrap_or(next);
            let bits = next.iter().enumerate();
            let chunk =
                bits.fold(TWO_BIT_VECTOR, |chunk, (i, &s)| chunk | (s as u16) << (12 - 2 * i));
            (chunk, next.len())
        };
        out.extend_from_slice(&chunk.to_be_bytes());
        symbols = symbols.get(taken..).unwrap_or_default();
    }
}
