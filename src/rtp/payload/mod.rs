//! The payload formats, one file per codec: what a payload says about itself,
//! and how the payloads of one access unit become the frame's data.

pub(super) mod av1;
pub(super) mod h264;
pub(super) mod h265;
pub(super) mod nal;
pub(super) mod vp8;
pub(super) mod vp9;

#[cfg(test)]
mod tests;

/// A payload that breaks its format; the access unit it belongs to is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// What the payloads of one access unit came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unit {
    /// The frame's data.
    pub data: Vec<u8>,
    /// A decoder may start here.
    pub keyframe: bool,
    /// The unit shows that nothing is missing before its first payload. What
    /// comes right after lost packets is kept only then.
    pub head_intact: bool,
}

/// Puts one access unit together at a time. After an error, and to drop a unit,
/// the caller calls [`Self::reset`].
pub(super) trait Assembler: Send {
    /// Takes the next payload of the unit in.
    fn append(&mut self, payload: &[u8]) -> Result<(), Malformed>;

    /// Bytes gathered so far.
    fn len(&self) -> usize;

    /// Coded picture data is among them: without it there is no access unit yet,
    /// whatever the marker bit says (some senders set it on parameter sets).
    fn has_picture(&self) -> bool {
        self.len() > 0
    }

    /// Closes the unit and gets ready for the next.
    fn finish(&mut self) -> Result<Unit, Malformed>;

    /// Forgets the unit.
    fn reset(&mut self);
}
