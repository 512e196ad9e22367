//! Every metric of Railbird. Dashboards, alerts and the autoscaler read these
//! names: they are a contract, written out in `docs/metrics.md` and frozen by a test.
//!
//! Base units, `_total` on counters. Labels are closed sets, except `table` and
//! `layer`, whose series exist only while the table is live.

/// What a family's values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only rises, until its series ends.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Observations in buckets.
    Histogram,
}

impl Kind {
    /// As the exposition format and the documentation name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One metric name and what belongs to it.
#[derive(Debug)]
pub struct Family {
    /// The full name.
    pub name: &'static str,
    /// Type of its values.
    pub kind: Kind,
    /// Label names, in the order in which values are given.
    pub labels: &'static [&'static str],
    /// What it means, one sentence.
    pub help: &'static str,
}

macro_rules! families {
    ($($ident:ident $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(
            #[doc = $help]
            pub static $ident: Family =
                Family { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help };
        )*
        /// All families, in the order of the documentation.
        pub static CATALOGUE: &[&Family] = &[$(&$ident),*];
    };
}

families! {
    BUILD_INFO Gauge "railbird_build_info" ["version"] "Always 1; the label names the build.";
    READY Gauge "railbird_ready" [] "1 while the gateway takes new viewers.";
    TABLES Gauge "railbird_tables" [] "Tables that are live.";
    VIEWERS Gauge "railbird_viewers" ["table", "transport"] "Viewers now.";
    SESSIONS_STARTED Counter "railbird_sessions_started_total" ["kind", "transport"] "Sessions whose media path was established; of LL-HLS, those that asked for a media playlist.";
    SESSIONS_ENDED Counter "railbird_sessions_ended_total" ["kind", "transport", "reason"] "Sessions that are over, by why.";
    SESSIONS_REFUSED Counter "railbird_sessions_refused_total" ["kind", "reason"] "Sessions refused because something is full, by what.";
    TIME_TO_FIRST_FRAME Histogram "railbird_time_to_first_frame_seconds" ["transport"] "From a viewer's first request to the first frame sent to it.";

    INGEST_PACKETS Counter "railbird_ingest_packets_total" ["table", "layer"] "RTP packets taken in.";
    INGEST_BYTES Counter "railbird_ingest_bytes_total" ["table", "layer"] "RTP payload bytes taken in.";
    INGEST_FRAMES Counter "railbird_ingest_frames_total" ["table", "layer"] "Access units taken in.";
    INGEST_KEYFRAMES Counter "railbird_ingest_keyframes_total" ["table", "layer"] "Random access points taken in.";
    INGEST_FPS Gauge "railbird_ingest_fps" ["table", "layer"] "Access units per second over the last two seconds.";
    INGEST_BITRATE Gauge "railbird_ingest_bitrate_bps" ["table", "layer"] "Payload bits per second over the last two seconds.";
    INGEST_LOST Counter "railbird_ingest_lost_packets_total" ["table", "layer"] "Packets of the publisher that never came, not even resent.";
    INGEST_RECOVERED Counter "railbird_ingest_recovered_packets_total" ["table", "layer"] "Packets of the publisher that came after they had been asked for again.";

    EGRESS_PACKETS Counter "railbird_egress_packets_total" ["table", "transport"] "RTP packets sent to viewers, without resends.";
    EGRESS_BYTES Counter "railbird_egress_bytes_total" ["table", "transport"] "Media sent to viewers: RTP payload without resends, files of LL-HLS.";
    EGRESS_HEADROOM Gauge "railbird_egress_headroom_ratio" [] "What is left for WebRTC viewers of workers, bandwidth and places, the least of them; 0 refuses them.";
    EGRESS_LIMIT Gauge "railbird_egress_limit_bps" [] "Bits per second that may be sent; 0 when there is no limit.";
    SEND_DROPPED Counter "railbird_send_dropped_total" ["reason"] "Datagrams that could not be sent.";
    VIEWERS_OVERRUN Counter "railbird_viewers_overrun_total" ["table"] "Times that a viewer fell so far behind that it was moved to the live edge.";
    VIEWER_FRAMES_DROPPED Counter "railbird_viewer_frames_dropped_total" ["table", "reason"] "Frames that single viewers were not sent: late means that they were too far behind.";
    VIEWER_NACKS Counter "railbird_viewer_nacks_total" ["table"] "Packets that viewers asked for again.";
    RESENDS Counter "railbird_resends_total" ["table", "result"] "Packets that viewers asked for again, by what came of it.";
    LAYER_SWITCHES Counter "railbird_layer_switches_total" ["table", "reason"] "Changes of the layer that a viewer is sent, pauses and resumptions of its video among them.";
    VIEWER_STALLS Counter "railbird_viewer_stalls_total" ["table", "transport"] "Times that a viewer's playback ran dry; of LL-HLS, told from what it fetched and when.";
    VIEWER_STALLED Counter "railbird_viewer_stalled_seconds_total" ["table", "transport"] "Time for which viewers' playback stood still then.";
    KEYFRAME_REQUESTS Counter "railbird_keyframe_requests_total" ["table", "direction"] "Keyframe requests: asked by viewers, answered with the GOP at their start (replayed), ignored because a viewer asks all the time (refused), forwarded to publishers.";
    MEDIA_RTT Histogram "railbird_media_rtt_seconds" ["transport"] "Round-trip times from viewers' receiver reports.";

    MEDIA_DATAGRAMS Counter "railbird_media_datagrams_received_total" [] "Datagrams received on the media port.";
    MEDIA_BYTES Counter "railbird_media_bytes_received_total" [] "UDP payload bytes received on the media port.";
    MEDIA_FORWARDED Counter "railbird_media_datagrams_forwarded_total" [] "Datagrams passed on to the worker that owns their peer.";
    MEDIA_DATAGRAMS_SENT Counter "railbird_media_datagrams_sent_total" [] "Datagrams sent on the media port.";
    MEDIA_MESSAGES_SENT Counter "railbird_media_messages_sent_total" [] "Messages in which the kernel took them; GSO makes these fewer.";
    GSO_WORKERS Gauge "railbird_gso_workers" [] "Media threads that give the kernel runs of datagrams as one message (GSO).";
    GSO_REFUSED Counter "railbird_gso_refusals_total" ["reason"] "Runs of datagrams that the kernel would not take as one message; they were sent one by one.";
    DSCP_REFUSED Counter "railbird_dscp_refusals_total" ["transport"] "Datagrams and HTTP connections that go unmarked because the system refused their DSCP.";
    SRTP_SESSIONS Counter "railbird_srtp_sessions_total" ["profile"] "Sessions whose DTLS handshake is done, by SRTP profile.";
    REJECTED_INPUT Counter "railbird_rejected_input_total" ["stage", "reason"] "Network input that was dropped.";
    WORKERS Gauge "railbird_workers" [] "Media threads that run.";
    WORKER_BUSY Counter "railbird_worker_busy_seconds_total" ["worker"] "Time a media thread spent working; its rate is its load, 1 is full.";
    WORKER_VIEWERS Gauge "railbird_worker_viewers" ["worker"] "WebRTC viewers that a media thread owns.";
    MAILBOX_DROPPED Counter "railbird_mailbox_dropped_total" ["mailbox"] "Messages between threads that were dropped because a mailbox was full.";

    HLS_REQUESTS Counter "railbird_hls_requests_total" ["resource"] "LL-HLS requests, by what was asked for.";
    HLS_HELD Gauge "railbird_hls_held_requests" [] "Requests that wait for a part or playlist to come.";
    HLS_HOLD_FAILED Counter "railbird_hls_hold_failures_total" ["reason"] "Requests that were not held to their end: held too long, or too many held.";
    HLS_UNACCOUNTED Counter "railbird_hls_unaccounted_requests_total" ["reason"] "Requests below a multivariant playlist that were served without belonging to a session.";
    HLS_POSITION Histogram "railbird_hls_position_seconds" ["table"] "How far behind the newest media of its rendition fetched media was.";
    HLS_DELIVERY Histogram "railbird_hls_delivery_ratio" ["table"] "Time that viewers' connections took to take media, in lengths of that media; from 1 on a viewer falls behind. What fits the kernel's buffer is taken at once.";
    HLS_BYTES Counter "railbird_hls_bytes_total" [] "Bytes of LL-HLS answers' bodies.";
    HLS_KEYFRAMES Counter "railbird_hls_keyframe_requests_total" [] "Keyframes asked for by the packagers, before throttling.";
    HLS_PARTS Counter "railbird_hls_parts_total" [] "Parts made.";
    HLS_SEGMENTS Counter "railbird_hls_segments_total" [] "Segments completed.";
    HLS_GAPS Counter "railbird_hls_gap_segments_total" [] "Segments that are gaps because no media came.";
    HLS_UNALIGNED Counter "railbird_hls_unaligned_segments_total" [] "Video segments that begin without a keyframe, because it was late.";
    HLS_FAILURES Counter "railbird_hls_packager_failures_total" [] "Tables whose packaging failed by a fault of the gateway, and began anew.";
    HLS_FRAMES_DROPPED Counter "railbird_hls_frames_dropped_total" ["reason"] "Frames that no part holds.";

    HTTP_REQUESTS Counter "railbird_http_requests_total" ["listener", "route", "status"] "HTTP requests answered, by route and class of status.";
    HTTP_CONNECTIONS Gauge "railbird_http_connections" ["listener"] "TCP connections open.";
    HTTP_REFUSED Counter "railbird_http_connections_refused_total" ["listener", "reason"] "TCP connections that the gateway closed before serving them.";
    TLS_RELOADS Counter "railbird_tls_reloads_total" ["result"] "Times that a changed certificate was read.";
}
