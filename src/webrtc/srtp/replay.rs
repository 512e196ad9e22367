//! Replay protection and index estimation of one stream (RFC 3711 §3.3.1, §3.3.2).

/// Width of the replay window in packets; older ones are refused.
const WINDOW: u64 = 1024;
const WORDS: usize = (WINDOW / 64) as usize;

/// The receive state of one SSRC; made when its first packet has authenticated.
pub(super) struct Replay {
    /// Highest index accepted.
    highest: u64,
    /// Bit `i % WINDOW` is set when index `i` of the window was accepted.
    seen: [u64; WORDS],
}

impl Replay {
    pub(super) fn new(first: u64) -> Self {
        let mut new = Self { highest: first, seen: [0; WORDS] };
        new.mark(first);
        new
    }

    /// The 48-bit index that a 16-bit sequence number most likely stands for.
    pub(super) fn estimate(&self, sequence: u16) -> u64 {
        let rollover = self.highest >> 16;
        let last = self.highest as u16;
        let candidate = |rollover: u64| (rollover << 16) | u64::from(sequence);
        if last < 0x8000 {
            let wrapped_back = i32::from(sequence) - i32::from(last) > 0x8000;
            candidate(if wrapped_back { rollover.saturating_sub(1) } else { rollover })
        } else {
            let wrapped = i32::from(last) - 0x8000 > i32::from(sequence);
            candidate(rollover + u64::from(wrapped))
        }
    }

    /// Whether `index` may still be accepted.
    pub(super) fn is_fresh(&self, index: u64) -> bool {
        if index > self.highest {
            return true;
        }
        self.highest - index < WINDOW && self.seen[word(index)] & bit(index) == 0
    }

    /// Remembers an index that authenticated.
    pub(super) fn accept(&mut self, index: u64) {
        if index > self.highest {
            let from = self.highest + 1;
            if index - self.highest >= WINDOW {
                self.seen = [0; WORDS];
            } else {
                for skipped in from..index {
                    self.seen[word(skipped)] &= !bit(skipped);
                }
            }
            self.highest = index;
        }
        self.mark(index);
    }

    fn mark(&mut self, index: u64) {
        self.seen[word(index)] |= bit(index);
    }
}

fn word(index: u64) -> usize {
    ((index % WINDOW) / 64) as usize
}

fn bit(index: u64) -> u64 {
    1 << (index % 64)
}
