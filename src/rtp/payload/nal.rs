//! What the payload formats of H.264 and H.265 share: NAL units written after
//! four-byte lengths, whole ones and ones that come in fragments.

use super::Malformed;

/// Bytes of a length field in a frame's data.
const LENGTH: usize = 4;

/// The NAL units of the access unit under construction.
#[derive(Default)]
pub(super) struct NalBuffer {
    data: Vec<u8>,
    /// Where the length field of the fragmented unit lies, while one is open.
    open: Option<usize>,
    /// A unit that holds picture data has come.
    has_picture: bool,
}

impl NalBuffer {
    /// Notes that the unit that comes next holds picture data.
    pub(super) fn note_picture(&mut self, is_picture: bool) {
        self.has_picture |= is_picture;
    }

    pub(super) fn has_picture(&self) -> bool {
        self.has_picture
    }

    pub(super) fn len(&self) -> usize {
        self.data.len()
    }

    /// Adds a whole unit. None may come between the fragments of another.
    pub(super) fn push(&mut self, unit: &[u8]) -> Result<(), Malformed> {
        if self.open.is_some() {
            return Err(Malformed);
        }
        let length = u32::try_from(unit.len()).map_err(|_| Malformed)?;
        self.data.extend_from_slice(&length.to_be_bytes());
        self.data.extend_from_slice(unit);
        Ok(())
    }

    /// Adds a fragment. `header` is the NAL unit header that the fragments left out.
    pub(super) fn push_fragment(
        &mut self,
        header: &[u8],
        fragment: &[u8],
        start: bool,
        end: bool,
    ) -> Result<(), Malformed> {
        // Either the unit starts here, or it is under way.
        if start == self.open.is_some() {
            return Err(Malformed);
        }
        if start {
            self.open = Some(self.data.len());
            self.data.extend_from_slice(&[0; LENGTH]);
            self.data.extend_from_slice(header);
        }
        self.data.extend_from_slice(fragment);
        if end {
            self.close()?;
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), Malformed> {
        let at = self.open.take().ok_or(Malformed)?;
        let (field, unit) = self
            .data
            .get_mut(at..)
            .and_then(|tail| tail.split_first_chunk_mut::<LENGTH>())
            .ok_or(Malformed)?;
        *field = u32::try_from(unit.len()).map_err(|_| Malformed)?.to_be_bytes();
        Ok(())
    }

    /// The data, unless it is empty or its last unit misses its end.
    pub(super) fn finish(&mut self) -> Result<Vec<u8>, Malformed> {
        let data = std::mem::take(&mut self.data);
        self.has_picture = false;
        let cut = self.open.take().is_some();
        if cut || data.is_empty() { Err(Malformed) } else { Ok(data) }
    }

    pub(super) fn reset(&mut self) {
        self.data.clear();
        self.open = None;
        self.has_picture = false;
    }
}

/// The units of an aggregation packet, each after its length in two bytes;
/// `None` in place of one that is malformed, and then no more.
pub(super) fn aggregated(mut rest: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let unit = rest.split_first_chunk::<2>().and_then(|(length, after)| {
            after.split_at_checked(usize::from(u16::from_be_bytes(*length)))
        });
        rest = unit.map_or(&[], |(_, after)| after);
        Some(unit.map(|(unit, _)| unit))
    })
}
