//! What the viewers of a stream were sent, counted with the stream so that its
//! series live as long as it does.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! egress {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counts of one pass over a stream's viewers, or of a stream so far.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct EgressCounts {
            $($(#[$doc])* pub $name: u64,)*
        }

        /// The counts of a stream; workers add to them once a pass.
        #[derive(Default)]
        pub struct EgressTotals {
            $($name: AtomicU64,)*
        }

        impl EgressTotals {
            /// Adds what happened in a pass.
            pub fn add(&self, counts: &EgressCounts) {
                $(if counts.$name > 0 {
                    self.$name.fetch_add(counts.$name, Ordering::Relaxed);
                })*
            }

            /// The counts so far.
            pub fn snapshot(&self) -> EgressCounts {
                EgressCounts { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }
    };
}

egress! {
    /// RTP packets sent over WebRTC, without resends.
    packets,
    /// Their payload bytes.
    bytes,
    /// Sequence numbers asked for by NACK.
    nacked,
    /// Packets sent again.
    resent,
    /// Not sent again: no longer in the ring, or lost before it.
    resend_missed,
    /// Not sent again: the viewer's share for resends is used up, or it asks for too many.
    resend_refused,
    /// Keyframes that viewers asked for.
    keyframes_asked,
    /// Requests of viewers that ask for keyframes all the time, ignored.
    keyframes_refused,
    /// Times that a viewer asked for a keyframe at its start and was sent the GOP again.
    replays,
    /// Times that a viewer was too late, or overtaken by the ring, and was taken to a
    /// keyframe.
    overrun,
    /// Frames that these viewers were not sent.
    frames_late,
    /// Changes of viewers' layers: up, to one that fits or is tried.
    switched_up,
    /// Down, because the receiver's estimate is too low.
    switched_down_estimate,
    /// Down, because its reports show loss.
    switched_down_loss,
    /// As the viewer chose.
    switched_manual,
    /// Because the layer flows no more.
    switched_layer_gone,
    /// Video paused: the path does not carry the lowest layer.
    paused,
    /// Video tried again after that.
    resumed,
}
