//! The marks on the wire: a gateway on a host of its own, real viewers on another, and
//! tshark on the cable between them.
#![allow(clippy::disallowed_methods, reason = "tests measure and pace by the clock")]

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use common::network::{Capture, Host, in_namespace, run};
use common::{Dealer, Gateway, LATER, assert_whole, wait_until};
use railbird_loadgen::peer::OPUS;
use railbird_loadgen::{WatchConfig, watch};

const NODE_V4: &str = "192.0.2.2";
const NODE_V6: &str = "2001:db8::2";

/// What the gateway sent, by what it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Audio,
    Video,
    Control,
    Http,
}

/// The configuration, each kind with a code point of its own.
const MARKS: [(Kind, &str, u8); 4] = [
    (Kind::Audio, "audio = \"EF\"", 46),
    (Kind::Video, "video = \"AF41\"", 34),
    (Kind::Control, "control = 40", 40),
    (Kind::Http, "hls = \"AF31\"", 26),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_packet_on_the_wire_is_marked_as_configured() {
    if !in_namespace("every_packet_on_the_wire_is_marked_as_configured") {
        return;
    }
    let node = cable().await;
    let dscp: Vec<_> = MARKS.iter().map(|(_, line, _)| *line).collect();
    let gateway = Gateway::spawn(
        node.command(env!("CARGO_BIN_EXE_railbird")),
        &format!(
            "[admin]\nlisten = \"{NODE_V4}:9090\"\n\
             [http]\nlisten = [\"{NODE_V4}:8080\", \"[{NODE_V6}]:8080\"]\n\
             [media]\naddresses = [\"{NODE_V4}\", \"{NODE_V6}\"]\n[dscp]\n{}\n",
            dscp.join("\n")
        ),
    );
    let capture = Capture::start(
        "players",
        &format!("src host ({NODE_V4} or {NODE_V6}) and (udp src port 8443 or tcp src port 8080)"),
    );
    let dealer = Dealer::start(&gateway, "demo", None).await;
    for host in [NODE_V4.to_owned(), format!("[{NODE_V6}]")] {
        let url = format!("http://{host}:8080");
        let mut config = WatchConfig::new(format!("{url}/whep/demo"));
        (config.duration, config.decode) = (Duration::from_secs(3), false);
        assert_whole(&watch(config).await.unwrap());
        let playlist = format!("{url}/hls/demo/index.m3u8");
        wait_until(&format!("{playlist} is there"), LATER, async || {
            let answer = gateway.client.get(&playlist).send().await.unwrap();
            (answer.status() == 200).then_some(())
        })
        .await;
    }
    let metrics = gateway.metrics().await;
    dealer.stop().await;
    let seen = look_at(capture).await;
    for version in [4, 6] {
        for (kind, line, code) in MARKS {
            let marks =
                seen.get(&(version, kind)).unwrap_or_else(|| panic!("no {kind:?}: {seen:?}"));
            assert!(marks.keys().all(|mark| *mark == (code, 0)), "IPv{version}, {line}: {marks:?}");
        }
        // Three seconds of 50 audio packets and 30 frames each.
        assert!(seen[&(version, Kind::Audio)].values().sum::<u64>() > 100, "{seen:?}");
        assert!(seen[&(version, Kind::Video)].values().sum::<u64>() > 60, "{seen:?}");
    }
    assert_eq!(metrics.sum("railbird_dscp_refusals_total", &[]), 0.0);
    assert_eq!(metrics.sum("railbird_gso_refusals_total", &[]), 0.0);
    assert_eq!(metrics.sum("railbird_send_dropped_total", &[]), 0.0);
    let workers = metrics.sum("railbird_workers", &[]);
    assert_eq!(metrics.sum("railbird_gso_workers", &[]), workers);
    let sent = |what: &str| metrics.sum(&format!("railbird_media_{what}_sent_total"), &[]);
    assert!(sent("messages") < sent("datagrams"), "nothing was merged");
}

/// Makes the node, and the cable from here to it.
async fn cable() -> Host {
    let node = Host::new().await;
    run(&format!("ip link add players type veth peer name node netns {}", node.pid()));
    for address in ["192.0.2.1/24", "2001:db8::1/64 nodad"] {
        run(&format!("ip address add {address} dev players"));
    }
    run("ip link set players up");
    // The viewers' WebRTC stack joins the multicast group of mDNS.
    run("ip route add 224.0.0.0/4 dev players");
    for address in [format!("{NODE_V4}/24"), format!("{NODE_V6}/64 nodad")] {
        node.run(&format!("ip address add {address} dev node"));
    }
    node.run("ip link set node up");
    node
}

/// Packets by IP version, kind, and mark with the ECN bits.
type Seen = BTreeMap<(u8, Kind), BTreeMap<(u8, u8), u64>>;

async fn look_at(capture: Capture) -> Seen {
    let fields = [
        "ip.dsfield.dscp",
        "ip.dsfield.ecn",
        "ipv6.tclass.dscp",
        "ipv6.tclass.ecn",
        "udp.payload",
        "tcp.len",
    ];
    let mut seen = Seen::new();
    for packet in capture.stop(&fields).await {
        let [v4, v4_ecn, v6, v6_ecn, datagram, segment] = packet.as_slice() else {
            panic!("{packet:?}");
        };
        let (version, dscp, ecn) = if v4.is_empty() { (6, v6, v6_ecn) } else { (4, v4, v4_ecn) };
        let kind = match (datagram.as_str(), segment.as_str()) {
            // The kernel answers SYN and request before the gateway has the connection.
            ("", "0") => continue,
            ("", _) => Kind::Http,
            (datagram, _) => kind_of(datagram),
        };
        let mark = (dscp.parse().unwrap(), ecn.parse().unwrap());
        *seen.entry((version, kind)).or_default().entry(mark).or_default() += 1;
    }
    seen
}

/// By the first two bytes (RFC 7983, RFC 5761 §4), given in hexadecimal.
fn kind_of(datagram: &str) -> Kind {
    let byte = |at: usize| u8::from_str_radix(&datagram[at..at + 2], 16).unwrap();
    match (byte(0), byte(2)) {
        (0..=127 | 192.., _) | (_, 192..=223) => Kind::Control,
        (_, second) if second & 0x7f == OPUS => Kind::Audio,
        _ => Kind::Video,
    }
}
