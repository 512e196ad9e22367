//! What is announced, and that peers can come by it: IPv6 beside IPv4 on the one media
//! port, interfaces and variables as sources, and what a wrong source says.

mod common;

use std::process::Command;

use common::{Dealer, Gateway, assert_whole, watching};
use railbird_loadgen::watch;

/// Whether this machine has IPv6 at all: containers may not.
fn has_ipv6() -> bool {
    std::net::UdpSocket::bind("[::1]:0").is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_that_has_only_ipv6_is_served_beside_a_publisher_on_ipv4() {
    if !has_ipv6() {
        eprintln!("skipped: no IPv6 on this machine");
        return;
    }
    let listen = r#"["127.0.0.1:0", "[::1]:0"]"#;
    let mut gateway = Gateway::start_at(listen, r#"["::1", "127.0.0.1"]"#, "");
    assert_eq!(gateway.media.ip().to_string(), "::1", "the first in the list is the first");
    // Both bind to the address that leads to the listener they were given.
    let _dealer = Dealer::start(&gateway, "demo", None).await;
    let v6 = gateway.http_all.iter().find(|at| at.is_ipv6()).unwrap();
    let mut config = watching(&gateway, "demo", 2.0);
    config.whep_url = format!("http://{v6}/whep/demo");
    let report = watch(config).await.unwrap();
    assert_whole(&report);
    assert!(report.frames_complete > 20 && report.audio.packets > 50, "{report:?}");
    // And one over IPv4 on the same port.
    let report = watch(watching(&gateway, "demo", 1.0)).await.unwrap();
    assert_whole(&report);
    gateway.assert_healthy();
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_announce_what_interfaces_and_variables_yield_once_each() {
    let gateway = Gateway::start_at(
        r#"["127.0.0.1:0"]"#,
        r#"["203.0.113.9", "lo", "127.0.0.1", "env:NODE_IPS"]"#,
        "",
    );
    let announced: Vec<_> = gateway.media_all.iter().map(|at| at.ip().to_string()).collect();
    let lo: &[&str] = if has_ipv6() { &["::1", "127.0.0.1"] } else { &["127.0.0.1"] };
    let expected = [&["203.0.113.9"], lo, &["198.51.100.1", "198.51.100.2"]].concat();
    assert_eq!(announced, expected);
}

#[test]
fn a_source_that_yields_nothing_ends_the_start_with_one_line() {
    let start = |addresses: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_railbird"))
            .args(["serve", "--config", "configs/railbird.toml"])
            .env("RAILBIRD__MEDIA__ADDRESSES", addresses)
            .env("RAILBIRD__MEDIA__PORT", "0")
            .env("RAILBIRD__HTTP__LISTEN", "127.0.0.1:0")
            .env("RAILBIRD__ADMIN__LISTEN", "127.0.0.1:0")
            .output()
            .unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let said = start("nosuch0");
    assert!(said.contains("media.addresses: there is no interface \"nosuch0\""), "{said}");
    let said = start("env:RAILBIRD_TEST_UNSET");
    assert!(said.contains("variable RAILBIRD_TEST_UNSET is not set"), "{said}");
    let said = start("192.0.2.300");
    assert!(said.contains("RAILBIRD__MEDIA__ADDRESSES: media.addresses: "), "{said}");
    assert!(said.contains("expected an IPv4 or IPv6 address without port"), "{said}");
}
