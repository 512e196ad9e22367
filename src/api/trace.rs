//! W3C Trace Context (level 1): the `traceparent` of a request is taken up, or a
//! trace begun, so that log lines of one request share a `traceId` with the caller's.

use std::fmt;

/// Which trace a request belongs to, and this gateway's span in it. A request extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    trace: u128,
    span: u64,
    flags: u8,
}

impl TraceContext {
    /// Takes up the trace of `traceparent`, when it is valid, with a new span. Ids are
    /// never zero (§3.2.2): their lowest bit is set.
    pub fn of(traceparent: Option<&str>) -> Self {
        let (trace, flags) =
            traceparent.and_then(parse).unwrap_or_else(|| (rand::random::<u128>() | 1, 0));
        Self { trace, span: rand::random::<u64>() | 1, flags }
    }

    /// The trace's id, 32 hexadecimal digits.
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace)
    }
}

impl fmt::Display for TraceContext {
    /// The value of a `traceparent` header.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.span, self.flags)
    }
}

/// `version "-" trace-id "-" parent-id "-" flags`, lower-case hexadecimal (§3.2).
/// Later versions may append more after a dash (§3.2.2.1 and "Versioning").
fn parse(value: &str) -> Option<(u128, u8)> {
    let mut fields = value.split('-');
    let mut hex = |digits: usize| {
        let field = fields.next()?;
        let lower_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        let well_formed = field.len() == digits && field.bytes().all(lower_hex);
        well_formed.then(|| u128::from_str_radix(field, 16).ok()).flatten()
    };
    let (version, trace, parent, flags) = (hex(2)?, hex(32)?, hex(16)?, hex(2)?);
    let complete = version != 0 || fields.next().is_none();
    (version != 0xff && trace != 0 && parent != 0 && complete).then_some((trace, flags as u8 & 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_valid_trace_is_taken_up_with_a_span_of_its_own() {
        let given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let context = TraceContext::of(Some(given));
        assert_eq!(context.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        let sent = context.to_string();
        assert!(sent.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-") && sent.ends_with("-01"));
        assert_ne!(sent, given);
    }

    #[test]
    fn anything_else_begins_a_new_trace() {
        for bad in [
            "",
            "00",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        assert_ne!(TraceContext::of(None).trace_id(), TraceContext::of(None).trace_id());
    }
}
