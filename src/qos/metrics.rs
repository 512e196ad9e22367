//! The values behind the names: a few handles that are counted into directly, and
//! sources that are asked when somebody scrapes.
//!
//! Media threads count into plain atomics of their own; a source reads those at
//! scrape time. So a packet costs no registry access, and the series of a table
//! exist exactly as long as a source reports it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};
use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry, TextEncoder,
};

use super::histogram::Observed;
use super::names::{self, Family, Kind};

/// Seconds; startup is aimed at under 1.5 s (WebRTC) and 2.5 s (LL-HLS).
const STARTUP_BUCKETS: &[f64] =
    &[0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 4.0, 6.0, 10.0];

/// Seconds; 120 ms is the bound that operators alert on.
const RTT_BUCKETS: &[f64] = &[0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.3, 0.5, 1.0, 2.0];

/// The way between a session and the gateway; the value of the `transport` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// WHEP and WHIP.
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

/// Takes the samples of one scrape. Equal label values add up, so that each worker
/// may report its share.
#[derive(Default)]
pub struct Scrape {
    families: BTreeMap<&'static str, (&'static Family, Series)>,
}

/// Values by their labels' values.
type Series = BTreeMap<Vec<String>, Value>;

enum Value {
    Number(f64),
    Observed(Observed),
}

impl Scrape {
    /// Adds `value` to the series of `family` with these label values, given in the
    /// order of [`Family::labels`]. A wrong number of labels drops the sample.
    pub fn add(&mut self, family: &'static Family, labels: &[&str], value: f64) {
        debug_assert_ne!(family.kind, Kind::Histogram, "{}: use observed", family.name);
        let Some(series) = self.series(family, labels) else { return };
        match series.entry(owned(labels)).or_insert(Value::Number(0.0)) {
            Value::Number(sum) => *sum += value,
            Value::Observed(_) => {}
        }
    }

    /// [`Self::add`] for what a histogram held.
    pub fn observed(&mut self, family: &'static Family, labels: &[&str], value: Observed) {
        debug_assert_eq!(family.kind, Kind::Histogram, "{}: use add", family.name);
        let Some(series) = self.series(family, labels) else { return };
        match series.entry(owned(labels)) {
            Entry::Vacant(place) => _ = place.insert(Value::Observed(value)),
            Entry::Occupied(mut place) => {
                if let Value::Observed(sum) = place.get_mut() {
                    sum.add(&value);
                }
            }
        }
    }

    fn series(&mut self, family: &'static Family, labels: &[&str]) -> Option<&mut Series> {
        debug_assert_eq!(family.labels.len(), labels.len(), "{}", family.name);
        let fits = family.labels.len() == labels.len();
        let entry = self.families.entry(family.name);
        fits.then(|| &mut entry.or_insert_with(|| (family, Series::new())).1)
    }

    /// [`Self::add`] for counts.
    pub fn count(&mut self, family: &'static Family, labels: &[&str], value: u64) {
        self.add(family, labels, value as f64);
    }

    fn into_families(self) -> Vec<MetricFamily> {
        self.families.into_values().map(|(family, series)| to_proto(family, series)).collect()
    }
}

type Source = Box<dyn Fn(&mut Scrape) + Send + Sync>;

/// All metrics of the process. Cheap to clone; all clones are the same metrics.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    sources: Arc<Mutex<Vec<Source>>>,
    sessions_started: IntCounterVec,
    sessions_ended: IntCounterVec,
    sessions_refused: IntCounterVec,
    time_to_first_frame: HistogramVec,
    media_rtt: HistogramVec,
    srtp_sessions: IntCounterVec,
    http_requests: IntCounterVec,
    tls_reloads: IntCounterVec,
}

impl Metrics {
    /// Metrics that start at zero.
    pub fn new() -> Self {
        let registry = Registry::new();
        let sources: Arc<Mutex<Vec<Source>>> = Arc::default();
        let asked = Box::new(Asked { sources: sources.clone() });
        // Cannot fail: the catalogue's names are distinct, which a test shows.
        let _ = registry.register(asked);
        let metrics = Self {
            sources,
            sessions_started: counter(&registry, &names::SESSIONS_STARTED),
            sessions_ended: counter(&registry, &names::SESSIONS_ENDED),
            sessions_refused: counter(&registry, &names::SESSIONS_REFUSED),
            time_to_first_frame: histogram(&registry, &names::TIME_TO_FIRST_FRAME, STARTUP_BUCKETS),
            media_rtt: histogram(&registry, &names::MEDIA_RTT, RTT_BUCKETS),
            srtp_sessions: counter(&registry, &names::SRTP_SESSIONS),
            http_requests: counter(&registry, &names::HTTP_REQUESTS),
            tls_reloads: counter(&registry, &names::TLS_RELOADS),
            registry,
        };
        metrics.add_source(|scrape| {
            scrape.add(&names::BUILD_INFO, &[env!("CARGO_PKG_VERSION")], 1.0);
        });
        metrics
    }

    /// Asks `source` at each scrape. Meant for the parts of the process as they are
    /// built: sources are never removed.
    pub fn add_source(&self, source: impl Fn(&mut Scrape) + Send + Sync + 'static) {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(source));
    }

    /// A session's media path stands. `kind` is `publisher` or `viewer`.
    pub fn session_started(&self, kind: &'static str, transport: Transport) {
        self.sessions_started.with_label_values(&[kind, transport.as_str()]).inc();
    }

    /// A session is over. The reason is from a closed set of the transport.
    pub fn session_ended(&self, kind: &'static str, transport: Transport, reason: &'static str) {
        self.sessions_ended.with_label_values(&[kind, transport.as_str(), reason]).inc();
    }

    /// A session was refused because something is full. The reason is from a closed set.
    pub fn session_refused(&self, kind: &'static str, reason: &'static str) {
        self.sessions_refused.with_label_values(&[kind, reason]).inc();
    }

    /// A DTLS handshake ended with this SRTP profile.
    pub fn srtp_session(&self, profile: &'static str) {
        self.srtp_sessions.with_label_values(&[profile]).inc();
    }

    /// A viewer's first frame left, `after` its first request.
    pub fn first_frame(&self, transport: Transport, after: Duration) {
        let observer = self.time_to_first_frame.with_label_values(&[transport.as_str()]);
        observer.observe(after.as_secs_f64());
    }

    /// A round-trip time was measured.
    pub fn media_rtt(&self, transport: Transport, rtt: Duration) {
        self.media_rtt.with_label_values(&[transport.as_str()]).observe(rtt.as_secs_f64());
    }

    /// A request was answered. `route` is a route's pattern, never a path.
    pub fn http_request(&self, listener: &'static str, route: &str, status: u16) {
        let class = match status {
            100..=199 => "1xx",
            200..=299 => "2xx",
            300..=399 => "3xx",
            400..=499 => "4xx",
            _ => "5xx",
        };
        self.http_requests.with_label_values(&[listener, route, class]).inc();
    }

    /// A changed certificate was taken (`true`) or found broken.
    pub fn tls_reload(&self, taken: bool) {
        self.tls_reloads.with_label_values(&[if taken { "ok" } else { "error" }]).inc();
    }

    /// Everything in the Prometheus text format.
    pub fn render(&self) -> String {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics cannot be written");
        }
        String::from_utf8(text).unwrap_or_default()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Runs the sources when the registry collects.
struct Asked {
    sources: Arc<Mutex<Vec<Source>>>,
}

impl Collector for Asked {
    fn desc(&self) -> Vec<&Desc> {
        Vec::new()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut scrape = Scrape::default();
        for source in self.sources.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            source(&mut scrape);
        }
        scrape.into_families()
    }
}

fn owned(labels: &[&str]) -> Vec<String> {
    labels.iter().map(|label| (*label).to_owned()).collect()
}

fn to_proto(family: &'static Family, series: Series) -> MetricFamily {
    let metric = |(values, value): (Vec<String>, Value)| {
        let pair = |(name, value): (&&str, String)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value(value);
            pair
        };
        let mut metric = Metric::from_label(family.labels.iter().zip(values).map(pair).collect());
        match value {
            Value::Observed(observed) => metric.set_histogram(histogram_proto(&observed)),
            Value::Number(value) if family.kind == Kind::Counter => {
                let mut counter = Counter::default();
                counter.set_value(value);
                metric.set_counter(counter);
            }
            Value::Number(value) => {
                let mut gauge = Gauge::default();
                gauge.set_value(value);
                metric.set_gauge(gauge);
            }
        }
        metric
    };
    let mut proto = MetricFamily::default();
    proto.set_name(family.name.to_owned());
    proto.set_help(family.help.to_owned());
    proto.set_field_type(match family.kind {
        Kind::Counter => MetricType::COUNTER,
        Kind::Gauge => MetricType::GAUGE,
        Kind::Histogram => MetricType::HISTOGRAM,
    });
    proto.set_metric(series.into_iter().map(metric).collect());
    proto
}

fn histogram_proto(observed: &Observed) -> Histogram {
    let mut count = 0;
    let bucket = |(bound, observations): &(f64, u64)| {
        count += observations;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound);
        bucket.set_cumulative_count(count);
        bucket
    };
    let buckets = observed.buckets.iter().map(bucket).collect();
    let mut proto = Histogram::default();
    proto.set_bucket(buckets);
    proto.set_sample_count(count + observed.above);
    proto.set_sample_sum(observed.sum);
    proto
}

fn counter(registry: &Registry, family: &'static Family) -> IntCounterVec {
    let options = Opts::new(family.name, family.help);
    // The catalogue is a constant whose names and labels a test shows to be valid and distinct.
    let vec = IntCounterVec::new(options, family.labels).expect("a valid name and labels");
    registry.register(Box::new(vec.clone())).expect("a distinct name");
    vec
}

fn histogram(registry: &Registry, family: &'static Family, buckets: &[f64]) -> HistogramVec {
    let options = HistogramOpts::new(family.name, family.help).buckets(buckets.to_vec());
    // As for counters; the buckets rise.
    let vec = HistogramVec::new(options, family.labels).expect("a valid name, labels and buckets");
    registry.register(Box::new(vec.clone())).expect("a distinct name");
    vec
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const CONTRACT: &str = include_str!("../../docs/metrics.md");

    #[test]
    fn the_document_lists_exactly_the_catalogue() {
        let row = |family: &&Family| {
            let labels: Vec<_> = family.labels.iter().map(|l| format!("`{l}`")).collect();
            let kind = family.kind.as_str();
            format!("| `{}` | {kind} | {} | {} |", family.name, labels.join(", "), family.help)
        };
        let expected: Vec<_> = names::CATALOGUE.iter().map(row).collect();
        let listed: Vec<_> =
            CONTRACT.lines().filter(|line| line.starts_with("| `railbird_")).collect();
        assert_eq!(listed, expected, "docs/metrics.md should hold:\n{}", expected.join("\n"));
    }

    #[test]
    fn names_are_distinct_and_follow_the_conventions() {
        let mut seen = HashSet::new();
        for family in names::CATALOGUE {
            assert!(seen.insert(family.name), "{} twice", family.name);
            assert!(family.name.starts_with("railbird_"), "{}", family.name);
            assert_eq!(family.name.ends_with("_total"), family.kind == Kind::Counter);
        }
    }

    #[test]
    fn sources_add_up_and_vanish_with_what_they_report() {
        let metrics = Metrics::new();
        let live = Arc::new(std::sync::atomic::AtomicBool::new(true));
        for share in [2, 3] {
            let live = live.clone();
            metrics.add_source(move |scrape| {
                if live.load(std::sync::atomic::Ordering::Relaxed) {
                    scrape.count(&names::RESENDS, &["demo", "sent"], share);
                }
            });
        }
        let series = "railbird_resends_total{table=\"demo\",result=\"sent\"} 5\n";
        assert!(metrics.render().contains(series), "{}", metrics.render());
        live.store(false, std::sync::atomic::Ordering::Relaxed);
        assert!(!metrics.render().contains("railbird_resends_total"));
    }

    #[test]
    fn text_has_help_type_and_the_directly_counted() {
        let metrics = Metrics::new();
        metrics.session_started("viewer", Transport::WebRtc);
        metrics.session_ended("viewer", Transport::LlHls, "idle");
        metrics.add_source(|scrape| {
            let histogram = super::super::Histogram::new(&[0.5, 1.0]);
            [0.25, 0.75, 3.0].iter().for_each(|value| histogram.observe(*value));
            scrape.observed(&names::HLS_POSITION, &["demo"], histogram.read());
            scrape.observed(&names::HLS_POSITION, &["demo"], histogram.read());
        });
        metrics.first_frame(Transport::WebRtc, Duration::from_millis(180));
        metrics.media_rtt(Transport::WebRtc, Duration::from_millis(42));
        metrics.http_request("public", "/whep/{table}", 201);
        metrics.tls_reload(false);
        let text = metrics.render();
        for line in [
            "# TYPE railbird_sessions_started_total counter",
            "railbird_sessions_started_total{kind=\"viewer\",transport=\"webrtc\"} 1",
            "railbird_sessions_ended_total{kind=\"viewer\",reason=\"idle\",transport=\"llhls\"} 1",
            "# TYPE railbird_hls_position_seconds histogram",
            "railbird_hls_position_seconds_bucket{table=\"demo\",le=\"0.5\"} 2",
            "railbird_hls_position_seconds_bucket{table=\"demo\",le=\"1\"} 4",
            "railbird_hls_position_seconds_bucket{table=\"demo\",le=\"+Inf\"} 6",
            "railbird_hls_position_seconds_sum{table=\"demo\"} 8",
            "railbird_hls_position_seconds_count{table=\"demo\"} 6",
            "railbird_time_to_first_frame_seconds_bucket{transport=\"webrtc\",le=\"0.2\"} 1",
            "railbird_media_rtt_seconds_count{transport=\"webrtc\"} 1",
            "railbird_http_requests_total{listener=\"public\",route=\"/whep/{table}\",status=\"2xx\"} 1",
            "railbird_tls_reloads_total{result=\"error\"} 1",
        ] {
            assert!(text.lines().any(|l| l == line), "no `{line}` in\n{text}");
        }
    }
}
