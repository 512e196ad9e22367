//! Which layer an SSRC belongs to.
//!
//! In order: the SSRCs of the offer; the mid and rid that a packet carries (RFC
//! 9143 §15, RFC 8852: `rid` on media, `repaired-rid` on its RTX); the payload
//! type, when only one track has it and it has one layer (publishers without
//! header extensions, e.g. ffmpeg). What was learned once is kept: browsers send
//! the names on the first packets only.

use std::time::{Duration, Instant};

use super::Reject;
use crate::rtp::RtpHeader;
use crate::rtp::extensions::{parse_mid, parse_rid};
use crate::webrtc::negotiated::ReceiveTrack;

/// SSRCs known of one track at most: three layers with RTX, and restarts. Past
/// it the SSRC that was replaced longest ago is forgotten; when none was
/// replaced, the packet is refused.
pub(super) const MAX_SSRCS_PER_TRACK: usize = 16;

/// An SSRC that was replaced may take its layer back after such a silence of
/// its successor; before, its packets are stragglers.
const TAKE_BACK: Duration = Duration::from_secs(2);

/// What a stream carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Media, and retransmissions when no RTX is agreed.
    Media,
    /// Retransmissions (RFC 4588).
    Rtx,
}

/// The result of binding: a place in the receiver's tracks, and a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bound {
    pub(super) track: usize,
    pub(super) layer: usize,
    pub(super) role: Role,
}

struct Entry {
    ssrc: u32,
    bound: Bound,
    /// Another SSRC took the layer over.
    replaced: bool,
    last_packet: Option<Instant>,
}

/// The SSRCs of all tracks. owner: the receiver.
pub(super) struct Binder {
    /// In the order in which they were learned; at most
    /// [`MAX_SSRCS_PER_TRACK`] a track, so that a scan is cheaper than a map.
    entries: Vec<Entry>,
}

impl Binder {
    pub(super) fn new(tracks: &[ReceiveTrack]) -> Self {
        let mut binder = Self { entries: Vec::new() };
        for (track, agreed) in tracks.iter().enumerate() {
            let layers = agreed.info.rids.len().min(MAX_SSRCS_PER_TRACK / 2);
            for (layer, pair) in agreed.ssrcs.iter().take(layers).enumerate() {
                let streams = [(Some(pair.media), Role::Media), (pair.rtx, Role::Rtx)];
                for (ssrc, role) in streams {
                    let Some(ssrc) = ssrc else { continue };
                    let bound = Bound { track, layer, role };
                    binder.entries.push(Entry { ssrc, bound, replaced: false, last_packet: None });
                }
            }
        }
        binder
    }

    /// The layer and role of a packet.
    pub(super) fn bind(
        &mut self,
        tracks: &[ReceiveTrack],
        header: &RtpHeader<'_>,
        now: Instant,
    ) -> Result<Bound, Reject> {
        if let Some(at) = self.entries.iter().position(|entry| entry.ssrc == header.ssrc) {
            return self.known(tracks, at, header.payload_type, now);
        }
        let bound = identify(tracks, header)?;
        self.make_room(bound.track)?;
        self.replace(bound);
        let last_packet = Some(now);
        self.entries.push(Entry { ssrc: header.ssrc, bound, replaced: false, last_packet });
        Ok(bound)
    }

    fn known(
        &mut self,
        tracks: &[ReceiveTrack],
        at: usize,
        payload_type: u8,
        now: Instant,
    ) -> Result<Bound, Reject> {
        let Some(entry) = self.entries.get(at) else { return Err(Reject::UnknownSsrc) };
        let bound = entry.bound;
        let agreed = tracks.get(bound.track).and_then(|track| role_of(track, payload_type));
        if agreed != Some(bound.role) {
            return Err(Reject::PayloadType);
        }
        if entry.replaced {
            let successor_speaks = self.entries.iter().any(|other| {
                other.bound == bound
                    && !other.replaced
                    && other
                        .last_packet
                        .is_some_and(|last| now.saturating_duration_since(last) < TAKE_BACK)
            });
            if successor_speaks {
                return Err(Reject::ReplacedSsrc);
            }
            self.replace(bound);
        }
        if let Some(entry) = self.entries.get_mut(at) {
            entry.replaced = false;
            entry.last_packet = Some(now);
        }
        Ok(bound)
    }

    fn replace(&mut self, bound: Bound) {
        let others = self.entries.iter_mut().filter(|entry| entry.bound == bound);
        others.for_each(|entry| entry.replaced = true);
    }

    fn make_room(&mut self, track: usize) -> Result<(), Reject> {
        if self.entries.iter().filter(|e| e.bound.track == track).count() < MAX_SSRCS_PER_TRACK {
            return Ok(());
        }
        let oldest = self.entries.iter().position(|e| e.bound.track == track && e.replaced);
        self.entries.remove(oldest.ok_or(Reject::TooManySsrcs)?);
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

fn role_of(track: &ReceiveTrack, payload_type: u8) -> Option<Role> {
    if payload_type == track.payload_type {
        Some(Role::Media)
    } else if Some(payload_type) == track.rtx_payload_type {
        Some(Role::Rtx)
    } else {
        None
    }
}

/// Binds an SSRC that was never seen by what its packet says.
fn identify(tracks: &[ReceiveTrack], header: &RtpHeader<'_>) -> Result<Bound, Reject> {
    let (track, agreed) = identify_track(tracks, header)?;
    let role = role_of(agreed, header.payload_type).ok_or(Reject::PayloadType)?;
    if agreed.info.rids.len() == 1 {
        return Ok(Bound { track, layer: 0, role });
    }
    let ids = &agreed.extensions;
    let text = |id: Option<u8>| id.and_then(|id| header.extension(id)).and_then(parse_rid);
    let name = match role {
        Role::Media => text(ids.rid),
        Role::Rtx => text(ids.repaired_rid),
    };
    let name = name.ok_or(Reject::UnknownSsrc)?;
    let layer = agreed.info.rids.iter().position(|rid| rid == name).ok_or(Reject::UnknownRid)?;
    Ok(Bound { track, layer, role })
}

fn identify_track<'a>(
    tracks: &'a [ReceiveTrack],
    header: &RtpHeader<'_>,
) -> Result<(usize, &'a ReceiveTrack), Reject> {
    // In a BUNDLE one id means the same extension in all sections (RFC 8843 §9.2).
    let mid_id = tracks.iter().find_map(|track| track.extensions.mid);
    if let Some(mid) = mid_id.and_then(|id| header.extension(id)).and_then(parse_mid) {
        let found = tracks.iter().enumerate().find(|(_, track)| track.mid == mid);
        return found.ok_or(Reject::UnknownMid);
    }
    let mut candidates =
        tracks.iter().enumerate().filter(|(_, t)| role_of(t, header.payload_type).is_some());
    let first = candidates.next().ok_or(Reject::PayloadType)?;
    if candidates.next().is_some() { Err(Reject::UnknownSsrc) } else { Ok(first) }
}
