//! RTP headers that are written once for all viewers that agreed on the same, and
//! only filled in for each packet: five fields and at most two times.

use std::sync::Arc;

use crate::rtp::extensions::PlayoutDelay;
use crate::rtp::{HeaderFields, write_header};
use crate::webrtc::negotiated::ExtensionIds;

/// Longest header: fixed part, and the three extensions in the two-byte form.
const MAX_HEADER: usize = 12 + 4 + 20;

/// Forms of a header that stay ready for the next viewer that wants them.
const MAX_SHARED: usize = 64;

const PADDING_BIT: u8 = 1 << 5;
const MARKER_BIT: u8 = 1 << 7;

/// What decides the form of a viewer's headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HeaderForm {
    /// The ids that were agreed on.
    pub(super) ids: ExtensionIds,
    /// Whether a packet may say when it was sent. One that is resent under its own
    /// number must not: a second plaintext would give the key stream away (RFC 7714 §8.4).
    pub(super) send_time: bool,
    /// What players are told of their delay.
    pub(super) playout_delay: PlayoutDelay,
}

/// What differs from packet to packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeaderValues {
    pub(super) fields: HeaderFields,
    /// When the packet is sent, as `abs-send-time`.
    pub(super) send_time: [u8; 3],
    /// When it was captured, as `abs-capture-time`.
    pub(super) capture: [u8; 8],
    /// The packet ends with RTP padding.
    pub(super) padded: bool,
}

/// Which of a track's headers a packet gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stamps {
    /// No capture time.
    None,
    /// Capture time.
    Capture,
    /// Capture time and playout delay.
    CaptureAndPlayout,
}

/// The headers of all viewers that agreed on the same extensions.
pub(super) struct Headers {
    form: HeaderForm,
    plain: Template,
    capture: Template,
    playout: Template,
}

impl Headers {
    fn new(form: HeaderForm) -> Self {
        Self {
            plain: Template::new(&form, Stamps::None),
            capture: Template::new(&form, Stamps::Capture),
            playout: Template::new(&form, Stamps::CaptureAndPlayout),
            form,
        }
    }

    /// Writes a header to the front of `out`; returns its length, or `None` without room.
    pub(super) fn write(
        &self,
        out: &mut [u8],
        stamps: Stamps,
        values: &HeaderValues,
    ) -> Option<usize> {
        let template = match stamps {
            Stamps::None => &self.plain,
            Stamps::Capture => &self.capture,
            Stamps::CaptureAndPlayout => &self.playout,
        };
        template.write(out, values)
    }
}

/// The forms in use; viewers that agreed on the same share one.
#[derive(Default)]
pub(super) struct HeaderForms(Vec<Arc<Headers>>);

impl HeaderForms {
    /// The headers of `form`.
    pub(super) fn get(&mut self, form: HeaderForm) -> Arc<Headers> {
        if let Some(known) = self.0.iter().find(|headers| headers.form == form) {
            return known.clone();
        }
        if self.0.len() >= MAX_SHARED {
            // Viewers choose the ids, so there may be more forms than are worth keeping.
            self.0.retain(|headers| Arc::strong_count(headers) > 1);
        }
        let headers = Arc::new(Headers::new(form));
        if self.0.len() < MAX_SHARED {
            self.0.push(headers.clone());
        }
        headers
    }
}

/// One header, and where its times go.
struct Template {
    bytes: [u8; MAX_HEADER],
    len: usize,
    send_time: Option<usize>,
    capture: Option<usize>,
}

impl Template {
    fn new(form: &HeaderForm, stamps: Stamps) -> Self {
        let playout = form.playout_delay.write();
        let ids = &form.ids;
        let mut elements: Vec<(u8, &[u8])> = Vec::with_capacity(3);
        elements.extend(ids.abs_send_time.filter(|_| form.send_time).map(|id| (id, &[0; 3][..])));
        let with_capture = stamps != Stamps::None;
        elements.extend(ids.abs_capture_time.filter(|_| with_capture).map(|id| (id, &[0; 8][..])));
        let with_playout = stamps == Stamps::CaptureAndPlayout;
        elements.extend(ids.playout_delay.filter(|_| with_playout).map(|id| (id, &playout[..])));
        let mut bytes = [0; MAX_HEADER];
        // Ids are 1 to 255, as the SDP reader lets no other pass, and then it fits.
        let len = write_header(&mut bytes, &HeaderFields::default(), &elements).unwrap_or(0);
        let two_bytes = elements.iter().any(|(id, _)| *id > 14);
        let prefix = if two_bytes { 2 } else { 1 };
        let mut at = 12 + 4;
        let mut place = |wanted: Option<u8>| {
            let value = elements.iter().find(|(id, _)| Some(*id) == wanted)?.1;
            at += prefix;
            let start = at;
            at += value.len();
            Some(start)
        };
        let send_time = place(ids.abs_send_time.filter(|_| form.send_time));
        let capture = place(ids.abs_capture_time.filter(|_| with_capture));
        Self { bytes, len, send_time, capture }
    }

    fn write(&self, out: &mut [u8], values: &HeaderValues) -> Option<usize> {
        // A copy of constant length is a few instructions; what is behind the header
        // is overwritten.
        let out = out.first_chunk_mut::<MAX_HEADER>()?;
        *out = self.bytes;
        let fields = &values.fields;
        out[0] |= if values.padded { PADDING_BIT } else { 0 };
        out[1] = fields.payload_type & 0x7f | if fields.marker { MARKER_BIT } else { 0 };
        out[2..4].copy_from_slice(&fields.sequence.to_be_bytes());
        out[4..8].copy_from_slice(&fields.timestamp.to_be_bytes());
        out[8..12].copy_from_slice(&fields.ssrc.to_be_bytes());
        if let Some(at) = self.send_time {
            out.get_mut(at..at + 3)?.copy_from_slice(&values.send_time);
        }
        if let Some(at) = self.capture {
            out.get_mut(at..at + 8)?.copy_from_slice(&values.capture);
        }
        Some(self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtp::RtpHeader;

    fn form(ids: [Option<u8>; 3], send_time: bool) -> HeaderForm {
        let ids = ExtensionIds {
            abs_send_time: ids[0],
            abs_capture_time: ids[1],
            playout_delay: ids[2],
            ..ExtensionIds::default()
        };
        HeaderForm { ids, send_time, playout_delay: PlayoutDelay::from_millis(10, 500) }
    }

    fn values() -> HeaderValues {
        HeaderValues {
            fields: HeaderFields {
                marker: true,
                payload_type: 96,
                sequence: 0x1234,
                timestamp: 0x89ab_cdef,
                ssrc: 0xcafe_babe,
            },
            send_time: [1, 2, 3],
            capture: [4, 5, 6, 7, 8, 9, 10, 11],
            padded: false,
        }
    }

    /// Every combination of agreed ids, in the one-byte and the two-byte form.
    #[test]
    fn every_form_parses_and_says_what_it_should() {
        for bits in 0..64u8 {
            let base = if bits & 32 == 0 { 3 } else { 200 };
            let id = |bit: u8| (bits & 1 << bit != 0).then_some(base + bit);
            let form = form([id(0), id(1), id(2)], bits & 8 != 0);
            let headers = Headers::new(form);
            let mut lengths = Vec::new();
            for stamps in [Stamps::None, Stamps::Capture, Stamps::CaptureAndPlayout] {
                let padded = bits & 16 != 0;
                let values = HeaderValues { padded, ..values() };
                let mut out = [0xff; 60];
                let len = headers.write(&mut out, stamps, &values).unwrap();
                out[len..].fill(0);
                out[59] = u8::from(padded);
                let header = RtpHeader::parse(&out).unwrap();
                assert_eq!((header.sequence, header.timestamp), (0x1234, 0x89ab_cdef));
                assert_eq!((header.ssrc, header.payload_type), (0xcafe_babe, 96));
                assert!(header.marker);
                let value = |wanted: Option<u8>| wanted.and_then(|id| header.extension(id));
                let sent = form.send_time.then_some(&[1u8, 2, 3][..]);
                assert_eq!(value(id(0)), id(0).and(sent));
                let captured = (stamps != Stamps::None).then_some(&values.capture[..]);
                assert_eq!(value(id(1)), id(1).and(captured));
                let delay = value(id(2)).map(PlayoutDelay::parse);
                let told = (stamps == Stamps::CaptureAndPlayout).then_some(form.playout_delay);
                assert_eq!(delay, id(2).and(told).map(Some));
                lengths.push(len);
            }
            assert!(lengths.is_sorted(), "{lengths:?}");
        }
    }

    #[test]
    fn forms_are_shared_and_those_out_of_use_make_room() {
        let mut forms = HeaderForms::default();
        let first = forms.get(form([Some(1), None, None], true));
        assert!(Arc::ptr_eq(&first, &forms.get(form([Some(1), None, None], true))));
        for id in 2..=255 {
            drop(forms.get(form([Some(id), None, None], true)));
            assert!(forms.0.len() <= MAX_SHARED);
        }
        assert!(Arc::ptr_eq(&first, &forms.get(form([Some(1), None, None], true))));
    }

    #[test]
    fn without_room_nothing_is_written() {
        let headers = Headers::new(form([Some(1), Some(2), Some(3)], true));
        assert_eq!(headers.write(&mut [0; MAX_HEADER - 1], Stamps::None, &values()), None);
    }
}
