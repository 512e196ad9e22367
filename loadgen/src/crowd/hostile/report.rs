//! What an attack did, and what it did to others.

use serde::Serialize;

use crate::crowd::report::GroupReport;

/// What sources have sent and got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Tally {
    /// Hostile datagrams that the system took.
    pub packets: u64,
    /// Their bytes, UDP payload.
    pub bytes: u64,
    /// Hostile datagrams that it did not take.
    pub unsent: u64,
    /// Datagrams that came back meanwhile, the media of the sources' own sessions among them.
    pub received_packets: u64,
    /// Their bytes.
    pub received_bytes: u64,
}

impl Tally {
    pub(super) fn count(&mut self, sent: std::io::Result<usize>) {
        match sent {
            Ok(bytes) => {
                self.packets += 1;
                self.bytes += bytes as u64;
            }
            Err(_) => self.unsent += 1,
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
        self.unsent += other.unsent;
        self.received_packets += other.received_packets;
        self.received_bytes += other.received_bytes;
    }
}

/// What an attack cost the server, whose process id was given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cost {
    /// Cores in use before the attack, with the same sessions: 1 is one core.
    pub cores_before: f64,
    /// Cores in use during it.
    pub cores: f64,
    /// The difference per hostile datagram, in nanoseconds of CPU.
    pub nanos_per_packet: f64,
    /// Resident memory before, in bytes.
    pub rss_before: u64,
    /// Resident memory at the end.
    pub rss: u64,
    /// Open files before.
    pub files_before: u64,
    /// Open files at the end.
    pub files: u64,
}

/// One kind of attack; or none, for comparison.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KindReport {
    /// `none`, or the kind as the command line names it.
    pub kind: &'static str,
    /// Sources that attacked.
    pub sources: usize,
    /// Sources whose session was over before the attack was.
    pub ended: usize,
    /// Seconds of attack.
    pub seconds: f64,
    /// What they sent.
    #[serde(flatten)]
    pub tally: Tally,
    /// What it cost the server.
    pub server: Option<Cost>,
    /// What the good viewers beside them saw, from their join to the end of the attack.
    pub beside: Option<GroupReport>,
}

/// All kinds that were run, in order.
#[derive(Clone, Debug, Default, Serialize)]
pub struct HostileReport {
    /// One each.
    pub kinds: Vec<KindReport>,
}
