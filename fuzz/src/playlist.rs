//! Playlists as the load generator's LL-HLS clients read them, from servers that nobody
//! vouches for.

use railbird_loadgen::hls::multivariant::{Choice, Multivariant};
use railbird_loadgen::hls::playlist::{MediaPlaylist, Segment};
use railbird_loadgen::hls::timeline::{Ask, Cursor, Ledger, Next, Start};

/// Playlists of one rendition, one after the other, with a NUL between them; each is
/// also read as a multivariant playlist. A client takes no more media from a playlist
/// than it lists.
pub fn playlist(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut ledger = Ledger::default();
    let mut cursor: Option<Cursor> = None;
    let mut ask = None;
    for text in text.split('\0') {
        if let Ok(list) = Multivariant::read(text) {
            assert!(!list.variants.is_empty());
            for choice in [Choice::First, Choice::Highest, Choice::Lowest] {
                assert!(list.choose(choice).is_some());
            }
        }
        let Ok(list) = MediaPlaylist::read(text) else { continue };
        ledger.check(&list, ask);
        ask = Some(Ask::after(&list));
        let listed = |segment: &Segment| 1 + segment.parts.len();
        let most: usize = list.segments.iter().map(listed).sum();
        assert!(most <= text.len());
        let utc = list.edge_utc().unwrap_or_default();
        let start = Start::at_utc(&list, utc.saturating_sub(1_500_000));
        let Some(start) = start.or_else(|| Start::at_edge(&list)) else { continue };
        let cursor = cursor.get_or_insert_with(|| Cursor::at(start.place));
        let mut taken = 0;
        while let Next::Item(item) = cursor.next(&list) {
            assert!(item.resource.range.is_none_or(|(at, len)| at.checked_add(len).is_some()));
            taken += 1;
            assert!(taken <= most);
        }
    }
}
