//! Sources of announced addresses, on interfaces and variables made up for it.

use super::*;
use crate::net::interfaces::InterfaceAddress;

/// A dual-stack host with a privacy address and a second interface.
fn host() -> Host {
    let address = |interface: &str, ip: &str, stable| InterfaceAddress {
        interface: interface.to_owned(),
        ip: ip.parse().unwrap(),
        stable,
    };
    Host {
        addresses: vec![
            address("lo", "127.0.0.1", true),
            address("lo", "::1", true),
            address("eth0", "192.0.2.7", true),
            address("eth0", "192.0.2.8", true),
            address("eth0", "fe80::1", true),
            address("eth0", "2001:db8::bad", false),
            address("eth0", "2001:db8::7", true),
            address("wlan0", "fe80::2", true),
        ],
        routes: vec!["2001:db8::bad".parse().unwrap(), "192.0.2.7".parse().unwrap()],
    }
}

fn environment(name: &str) -> Option<String> {
    let value = match name {
        "NODE_IP" => "198.51.100.1",
        "NODE_IPS" => "198.51.100.1, 2001:db8:1::1",
        "EMPTY" => " ",
        "NAME" => "198.51.100.1,node-1",
        _ => return None,
    };
    Some(value.to_owned())
}

fn resolved(sources: &[&str]) -> Vec<String> {
    let sources: Vec<_> = sources.iter().map(|text| text.parse().unwrap()).collect();
    let announced = resolve(&sources, &host(), environment).unwrap();
    announced.addresses.iter().map(ToString::to_string).collect()
}

fn refused(source: &str) -> String {
    resolve(&[source.parse().unwrap()], &host(), environment).unwrap_err().to_string()
}

#[test]
fn sources_are_told_apart_and_nonsense_is_refused() {
    let source = |text: &str| text.parse::<AddressSource>();
    assert_eq!(source("192.0.2.7"), Ok(AddressSource::Ip("192.0.2.7".parse().unwrap())));
    assert_eq!(source("2001:db8::7"), Ok(AddressSource::Ip("2001:db8::7".parse().unwrap())));
    assert_eq!(source("::ffff:192.0.2.7"), source("192.0.2.7"), "mapped IPv4 is IPv4");
    assert_eq!(source("enp3s0.100"), Ok(AddressSource::Interface("enp3s0.100".to_owned())));
    assert_eq!(source("env:NODE_IP"), Ok(AddressSource::Environment("NODE_IP".to_owned())));
    for bad in [
        "",
        "192.0.2.300",
        "192.0.2.7:8443",
        "[2001:db8::7]",
        "2001:db8::7%eth0",
        "0.0.0.0",
        "::",
        "224.0.0.1",
        "255.255.255.255",
        "fe80::1",
        "a-name-that-is-too-long",
        "eth0/24",
        "two words",
        "env:",
        "env:A=B",
    ] {
        assert_eq!(source(bad), Err(NoAddressSource), "{bad:?}");
    }
}

#[test]
fn an_interface_gives_its_lasting_global_addresses_alternating() {
    assert_eq!(resolved(&["eth0"]), ["2001:db8::7", "192.0.2.7", "192.0.2.8"]);
    assert_eq!(resolved(&["lo"]), ["::1", "127.0.0.1"]);
}

#[test]
fn variables_keep_their_order() {
    assert_eq!(resolved(&["env:NODE_IP"]), ["198.51.100.1"]);
    assert_eq!(resolved(&["env:NODE_IPS"]), ["198.51.100.1", "2001:db8:1::1"]);
}

#[test]
fn the_lists_order_counts_and_nothing_comes_twice() {
    let given = ["192.0.2.8", "env:NODE_IPS", "eth0", "192.0.2.8"];
    let expected = ["192.0.2.8", "198.51.100.1", "2001:db8:1::1", "2001:db8::7", "192.0.2.7"];
    assert_eq!(resolved(&given), expected);
}

#[test]
fn without_sources_the_default_routes_count_with_lasting_addresses() {
    assert_eq!(resolved(&[]), ["2001:db8::7", "192.0.2.7"]);
    let cut_off = Host { routes: Vec::new(), ..host() };
    let announced = resolve(&[], &cut_off, environment).unwrap();
    assert_eq!(announced.addresses, [IpAddr::from(Ipv4Addr::LOCALHOST)]);
}

#[test]
fn more_than_fit_are_left_out_and_counted() {
    let sources: Vec<_> = (0..20).map(|i| AddressSource::Ip([192, 0, 2, i].into())).collect();
    let announced = resolve(&sources, &host(), environment).unwrap();
    assert_eq!((announced.addresses.len(), announced.left_out), (MAX_ADDRESSES, 4));
    assert_eq!(announced.addresses[0], IpAddr::from([192, 0, 2, 0]));
}

#[test]
fn what_yields_nothing_is_an_error_that_says_what_was_expected() {
    assert_eq!(
        refused("eth1"),
        "there is no interface \"eth1\" that is up and has an address; there are: eth0, lo, wlan0"
    );
    let refusal = refused("wlan0");
    assert!(refusal.starts_with("interface \"wlan0\" has no global address"), "{refusal}");
    let expected = "expected IP addresses separated by commas";
    assert_eq!(
        refused("env:NONE"),
        format!("the environment variable NONE is not set; {expected}")
    );
    assert_eq!(
        refused("env:EMPTY"),
        format!("the environment variable EMPTY is not set; {expected}")
    );
    assert_eq!(
        refused("env:NAME"),
        format!("the environment variable NAME holds \"node-1\"; {expected}")
    );
}
