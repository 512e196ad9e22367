//! Hostile viewers beside good ones, against the built gateway: the good ones must not
//! notice, and what was dropped must be counted by its reason.

mod common;

use std::time::Duration;

use common::{Dealer, Gateway};
use railbird_loadgen::crowd::hostile::{self, HostileConfig, HostileReport, Kind};

/// Good viewers.
const GOOD: usize = 30;
/// What an allocator keeps of the buffers of a flood.
const SLACK: u64 = 24 << 20;
/// Sockets of connections that HTTP clients keep open.
const FILES: u64 = 16;

async fn attack(gateway: &Gateway) -> HostileReport {
    let mut config = HostileConfig::new(gateway.url("/whep/demo"), Kind::ALL.to_vec());
    config.server_pid = Some(gateway.pid());
    (config.beside, config.verify) = (GOOD, 0.1);
    (config.sources, config.rate) = (2, 2_000.0);
    config.hop_every = Duration::from_millis(15);
    (config.quiet, config.duration) = (Duration::from_millis(200), Duration::from_secs(2));
    hostile::run(config, std::future::pending()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn good_viewers_do_not_notice_the_hostile_ones_and_each_kind_is_counted() {
    let mut gateway = Gateway::start("workers = 1\nmax_worker_load = 0\n");
    let _dealer = Dealer::start(&gateway, "demo", None).await;
    let report = attack(&gateway).await;
    let kinds: Vec<&str> = report.kinds.iter().map(|kind| kind.kind).collect();
    let expected = ["none"].into_iter().chain(Kind::ALL.iter().map(|kind| kind.as_str()));
    assert_eq!(kinds, expected.collect::<Vec<_>>());
    for kind in &report.kinds {
        let name = kind.kind;
        let good = kind.beside.as_ref().unwrap();
        assert_eq!((good.connected, good.first_frames, good.failed), (GOOD, GOOD, 0), "{name}");
        let damage = (good.video.lost, good.audio.lost, good.frames_damaged, good.auth_failures);
        assert_eq!(damage, (0, 0, 0, 0), "{name}: {good:?}");
        // Of 60: on a machine that is too busy the dealer encodes fewer. None of what it
        // sends is lost, which is what counts.
        assert!(good.frames > GOOD as u64 * 20, "{name}: {good:?}");
        let server = kind.server.unwrap();
        assert!(server.rss <= server.rss_before + SLACK, "{name}: {server:?}");
        assert!(server.files <= server.files_before + FILES, "{name}: {server:?}");
        assert_eq!(kind.ended, 0, "{name}: misbehaviour does not end a session");
        let least = match name {
            "none" => 0,
            "address-hop" => 50,
            _ => 1_000,
        };
        assert!(kind.tally.packets >= least, "{name}: {:?}", kind.tally);
    }
    // All that is left of the attacks is what was counted.
    gateway.wait_viewers(0).await;
    let metrics = gateway.metrics().await;
    for (reason, least) in [
        ("rtcp_flood", 3_000.0),
        ("srtp_replayed", 500.0),
        ("rtp_unexpected", 500.0),
        ("stun_wrong_integrity", 50.0),
        ("stun_unknown_ufrag", 500.0),
        ("stun_flood", 500.0),
        ("stun_too_many_moves", 20.0),
    ] {
        let labels = [("stage", "media"), ("reason", reason)];
        let count = metrics.sum("railbird_rejected_input_total", &labels);
        assert!(count >= least, "{reason}: {count}");
    }
    let sum = |name, label| metrics.sum(name, &[label]);
    assert!(sum("railbird_keyframe_requests_total", ("direction", "refused")) > 1_000.0);
    let resends = |result| sum("railbird_resends_total", ("result", result));
    assert!(resends("refused") + resends("missed") > 10_000.0);
    // A few hundred made-up round-trip times would drown the true ones.
    assert!(sum("railbird_media_rtt_seconds_count", ("transport", "webrtc")) < 2_000.0);
    gateway.assert_healthy();
}
