//! All errors at once with their places, the environment, and the shipped sample.

use std::time::Duration;

use super::raw::Document;
use super::*;

const SAMPLE: &str = "configs/railbird.toml";

fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn errors(text: &str, variables: &[(&str, &str)]) -> Vec<String> {
    let errors = parse("x.toml", text, env(variables)).expect_err("the text is wrong");
    errors.iter().map(ToString::to_string).collect()
}

/// The sample as the schema would write it.
fn rendered() -> String {
    let mut document = Document::new("", "", []);
    checked::read(&mut document);
    let mut text = String::from(
        "# Every key of Railbird with its default. Keys may be left out. A variable such as\n\
         # RAILBIRD__MEDIA__PORT=9000 overrides media.port; lists are then separated by commas.\n",
    );
    let mut section = "";
    for key in document.asked() {
        if key.section != section {
            section = key.section;
            text.push_str(&format!("\n[{section}]\n"));
        }
        text.push_str(&format!("# {}\n{} = {}\n", key.doc, key.key, key.default));
    }
    text
}

#[test]
fn sample_file_is_complete_and_equals_the_defaults() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(SAMPLE);
    if std::env::var_os("RAILBIRD_BLESS").is_some() {
        std::fs::write(&path, rendered()).unwrap();
    }
    let sample = std::fs::read_to_string(&path).unwrap();
    assert_eq!(sample, rendered(), "run this test with RAILBIRD_BLESS=1 to write the sample anew");
    assert_eq!(parse(SAMPLE, &sample, []).unwrap(), parse("", "", []).unwrap());
}

#[test]
fn all_errors_come_at_once_with_their_places() {
    let text = "[http]\nlisten = [\"nowhere\"]\ntls_key = \"key.pem\"\n\n[media]\nport = 70000\nprot = 1\n\
                ingest_timeout = 10\n\n[hsl]\npart = \"1s\"\n";
    assert_eq!(
        errors(text, &[]),
        [
            "x.toml:2:10: http.listen: \"nowhere\" does not fit; expected an address and port, such as \"0.0.0.0:8080\" or \"[::]:8080\"",
            "x.toml:6:8: media.port: 70000 does not fit; expected a whole number from 0 to 65535",
            "x.toml:7:1: media.prot: unknown key; did you mean `port`?",
            "x.toml:8:18: media.ingest_timeout: 10 does not fit; expected a time from \"500ms\" to \"1h\", such as \"500ms\", \"2s\" or \"5m\"",
            "x.toml:10:2: hsl: unknown section; did you mean `hls`?",
            "x.toml: http.tls_certificate: a key without its certificate; expected both or none",
        ]
        .map(str::to_owned)
        .as_slice()
    );
}

#[test]
fn syntax_errors_do_not_hide_the_rest() {
    let found = errors("[media]\nport = = 1\nworkers = \"many\"\n", &[]);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("x.toml:2:8: not valid TOML: "), "{}", found[0]);
    assert!(found[1].starts_with("x.toml:3:11: media.workers: "), "{}", found[1]);
}

#[test]
fn code_points_are_names_or_numbers() {
    let text = "[dscp]\naudio = \"ef\"\nvideo = 34\ncontrol = \"off\"\nhls = \"26\"\n";
    let marks = parse("x.toml", text, []).unwrap().dscp;
    let tos = [marks.audio, marks.video, marks.control, marks.hls].map(|dscp| dscp.tos());
    assert_eq!(tos, [0xb8, 0x88, 0, 0x68]);
    let variables = env(&[("RAILBIRD__DSCP__AUDIO", "46"), ("RAILBIRD__DSCP__HLS", "CS3")]);
    let marks = parse("x.toml", "", variables).unwrap().dscp;
    assert_eq!([marks.audio, marks.hls].map(|dscp| dscp.tos()), [0xb8, 0x60]);
    let expected = "expected a code point such as \"AF41\", \"EF\", \"CS0\" or \"off\", or a number from 0 to 63";
    assert_eq!(
        errors("[dscp]\naudio = \"AF44\"\nvideo = 64\nhls = true\nvidoe = 1\n", &[]),
        [
            format!("x.toml:2:9: dscp.audio: \"AF44\" does not fit; {expected}"),
            format!("x.toml:3:9: dscp.video: 64 does not fit; {expected}"),
            format!("x.toml:4:7: dscp.hls: true does not fit; {expected}"),
            "x.toml:5:1: dscp.vidoe: unknown key; did you mean `video`?".to_owned(),
        ]
    );
}

#[test]
fn values_that_contradict_each_other_are_refused() {
    let found = errors("[hls]\npart = \"1500ms\"\nwindow = \"8s\"\nrestart_wait = \"9s\"\n", &[]);
    assert_eq!(
        found,
        [
            "x.toml:2:8: hls.part: a segment of 2s has not room for two parts of 1500ms; expected hls.part to be half of hls.segment or less",
            "x.toml:3:10: hls.window: 8s is less than six segments of 2s, which players need to start; expected \"12s\" or more",
            "x.toml:4:16: hls.restart_wait: 9s is more than the window: at its end nothing but gaps would be listed; expected hls.window (8s) or less",
        ]
    );
    let found = errors("[media]\nplayout_delay_min = \"1s\"\n[demo]\nwidth = 1300\n", &[]);
    assert!(found[0].starts_with("x.toml:2:21: media.playout_delay_min: more than the most"));
    assert!(found[1].starts_with("x.toml:4:9: demo.width: 1300x720 is no picture"));
}

#[test]
fn a_profile_gives_the_lengths_that_are_not_given() {
    let lengths = |text: &str| {
        let hls = parse("x.toml", text, []).unwrap().hls;
        (hls.part.as_millis(), hls.segment.as_millis())
    };
    assert_eq!(lengths(""), (500, 2000));
    assert_eq!(lengths("[hls]\nprofile = \"close\"\n"), (200, 1000));
    assert_eq!(lengths("[hls]\nprofile = \"far\"\n"), (1000, 4000));
    assert_eq!(lengths("[hls]\nprofile = \"close\"\nsegment = \"1500ms\"\n"), (200, 1500));
    assert_eq!(lengths("[hls]\npart = \"250ms\"\n"), (250, 2000));
    let found = errors("[hls]\nprofile = \"far\"\nsegment = \"1s\"\n", &[]);
    assert!(
        found[0].starts_with("x.toml:3:11: hls.segment: a segment of 1s has not room"),
        "{found:?}"
    );
    let found = errors("[hls]\nprofile = \"near\"\n", &[]);
    assert!(found[0].contains("one of \"balanced\", \"close\", \"far\""), "{found:?}");
}

#[test]
fn announced_addresses_come_from_several_kinds_of_sources() {
    let text = "[media]\naddresses = [\"192.0.2.7\", \"eth0\", \"env:NODE_IP\", \"2001:db8::7\"]\n";
    let sources = parse("x.toml", text, []).unwrap().media.addresses;
    let written: Vec<_> = sources.iter().map(ToString::to_string).collect();
    assert_eq!(written, ["192.0.2.7", "eth0", "env:NODE_IP", "2001:db8::7"]);
    let found = errors("[media]\naddresses = [\"eth0\",\n  \"192.0.2.1:8443\"]\n", &[]);
    assert_eq!(
        found,
        [
            "x.toml:2:13: media.addresses: \"192.0.2.1:8443\" does not fit; expected an IPv4 or IPv6 \
          address without port, an interface such as \"eth0\", or a variable such as \"env:NODE_IP\""
        ]
    );
}

#[test]
fn environment_overrides_the_file() {
    let variables = env(&[
        ("RAILBIRD__MEDIA__PORT", "9000"),
        ("RAILBIRD__HTTP__LISTEN", "127.0.0.1:0, [::1]:0"),
        ("RAILBIRD__MEDIA__ADDRESSES", ""),
        ("RAILBIRD__HLS__PART", "200ms"),
        ("PATH", "/bin"),
    ]);
    let config = parse("x.toml", "[media]\nport = 1\n", variables).unwrap();
    assert_eq!(config.media.port, 9000);
    assert_eq!(config.http.listen.len(), 2);
    assert!(config.media.addresses.is_empty());
    assert_eq!(config.hls.part, Duration::from_millis(200));
}

#[test]
fn errors_of_the_environment_name_the_variable() {
    let variables = [
        ("RAILBIRD__LOG__FORMAT", "xml"),
        ("RAILBIRD__MEDIA__PROT", "1"),
        ("RAILBIRD__DEMO__TABLE", "no spaces"),
    ];
    assert_eq!(
        errors("", &variables),
        [
            "RAILBIRD__DEMO__TABLE: demo.table: \"no spaces\" does not fit; expected a table name: 1 to 64 of A-Z a-z 0-9 _ -",
            "RAILBIRD__LOG__FORMAT: log.format: \"xml\" does not fit; expected one of \"auto\", \"human\", \"json\"",
            "RAILBIRD__MEDIA__PROT: overrides no key; did you mean `RAILBIRD__MEDIA__PORT`?",
        ]
        .map(str::to_owned)
        .as_slice()
    );
}

#[test]
fn a_missing_file_is_one_error() {
    let found = load(Some(Path::new("/nonexistent/railbird.toml"))).unwrap_err().to_string();
    assert!(found.starts_with("/nonexistent/railbird.toml: cannot be read: "), "{found}");
}
