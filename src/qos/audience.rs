//! How many viewers each table has, by transport. Touched when a viewer joins or
//! leaves and when somebody asks, never per packet.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How a viewer gets its media; the value of the `transport` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// WHEP.
    WebRtc,
    /// Low-latency HLS.
    LlHls,
}

impl Transport {
    /// Every transport.
    pub const ALL: [Self; 2] = [Self::WebRtc, Self::LlHls];

    /// The value of the `transport` metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WebRtc => "webrtc",
            Self::LlHls => "llhls",
        }
    }
}

/// Viewers by table and transport. Shared as `Arc<Audience>`.
///
/// A table is in the map only while somebody watches it, so it is as bounded as
/// the number of viewers.
#[derive(Default)]
pub struct Audience {
    tables: Mutex<HashMap<Arc<str>, [u64; Transport::ALL.len()]>>,
}

/// One viewer; dropping it means that the viewer has left.
pub struct ViewerGuard {
    audience: Arc<Audience>,
    table: Arc<str>,
    transport: Transport,
}

impl Audience {
    /// Counts one viewer of `table` until the guard is dropped.
    pub fn enter(self: &Arc<Self>, table: &str, transport: Transport) -> ViewerGuard {
        let table: Arc<str> = table.into();
        self.lock().entry(table.clone()).or_default()[transport as usize] += 1;
        ViewerGuard { audience: self.clone(), table, transport }
    }

    /// Viewers of `table` over `transport` now.
    pub fn count(&self, table: &str, transport: Transport) -> u64 {
        self.lock().get(table).map_or(0, |counts| counts[transport as usize])
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, [u64; Transport::ALL.len()]>> {
        // No code panics while it holds this lock; the map is whole in any case.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ViewerGuard {
    fn drop(&mut self) {
        let mut tables = self.audience.lock();
        let Some(counts) = tables.get_mut(&self.table) else { return };
        let count = &mut counts[self.transport as usize];
        *count = count.saturating_sub(1);
        if counts.iter().all(|count| *count == 0) {
            tables.remove(&self.table);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_follow_the_guards_and_empty_tables_go() {
        let audience = Arc::new(Audience::default());
        let first = audience.enter("demo", Transport::WebRtc);
        let second = audience.enter("demo", Transport::WebRtc);
        let third = audience.enter("demo", Transport::LlHls);
        assert_eq!(audience.count("demo", Transport::WebRtc), 2);
        drop((first, second));
        assert_eq!(audience.count("demo", Transport::WebRtc), 0);
        assert_eq!(audience.count("demo", Transport::LlHls), 1);
        drop(third);
        assert!(audience.lock().is_empty());
    }
}
