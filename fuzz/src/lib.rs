//! What is fuzzed: one function per reader of hostile bytes, `fn(&[u8])`, which
//! panics when a promise of that reader is broken.
//!
//! This library knows nothing of libFuzzer. `fuzz_targets/` wraps each function
//! for cargo-fuzz; `tests/fuzz_smoke.rs` of the gateway includes this file and
//! runs them all on stable over `corpus/` and seeded mutations of it.

mod container;
mod http;
mod media;
mod peer;
mod playlist;
mod records;
mod rewrite;
mod sdp;
mod session;
mod text;

pub use container::mp4;
pub use http::{hls, http_headers};
pub use media::{codec, depacketizer};
pub use peer::{classify, rtcp, rtp, srtp, stun};
pub use playlist::playlist;
pub use rewrite::rewrite;
pub use sdp::{sdp_fragment, sdp_offer};
pub use session::{dtls, dtls_handshake, whip_receiver};
pub use text::{config, names};

/// One fuzz target.
pub struct Target {
    /// Its name: of the binary in `fuzz_targets/`, and of its folder in `corpus/`.
    pub name: &'static str,
    /// Takes one input.
    pub run: fn(&[u8]),
    /// An input takes milliseconds: it does cryptography with public keys.
    pub costly: bool,
    /// Folders with more seeds, relative to `fuzz/`; cargo-fuzz takes them as
    /// further arguments.
    pub samples: &'static [&'static str],
}

impl Target {
    const fn new(name: &'static str, run: fn(&[u8])) -> Self {
        Self { name, run, costly: false, samples: &[] }
    }
}

/// Recorded offers that the gateway's own tests use.
const OFFERS: &[&str] = &["../src/webrtc/sdp/testdata"];

/// All of them.
pub const TARGETS: &[Target] = &[
    Target::new("classify", classify),
    Target::new("stun", stun),
    Target::new("dtls", dtls),
    Target { costly: true, ..Target::new("dtls_handshake", dtls_handshake) },
    Target::new("srtp", srtp),
    Target::new("rtp", rtp),
    Target::new("rtcp", rtcp),
    Target::new("whip_receiver", whip_receiver),
    Target::new("depacketizer", depacketizer),
    Target::new("rewrite", rewrite),
    Target::new("codec", codec),
    Target { samples: OFFERS, ..Target::new("sdp_offer", sdp_offer) },
    Target::new("sdp_fragment", sdp_fragment),
    Target::new("hls", hls),
    Target::new("http_headers", http_headers),
    Target::new("playlist", playlist),
    Target::new("mp4", mp4),
    Target::new("names", names),
    Target { samples: &["../configs"], ..Target::new("config", config) },
];
