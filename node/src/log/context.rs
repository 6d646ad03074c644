//! The trace that a caller's call belongs to (W3C Trace Context, <https://www.w3.org/TR/trace-context/>), as
//! environment variables carry it.

/// What a caller with tracing hands down: a line of ours joins its span by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// The trace: 32 hex digits.
    pub trace: String,
    /// The caller's span: 16 hex digits.
    pub parent: String,
    /// The caller's own words about it, where they are any.
    pub state: Option<String>,
}

/// The specification has at least so much kept of a `tracestate`.
const LONGEST_STATE: usize = 512;

/// Version, trace, span and flags with the dashes between.
const LENGTH: usize = 55;

impl Context {
    /// That of the process, by `TRACEPARENT` and `TRACESTATE`.
    pub fn of_process() -> Option<Self> {
        let text = |name| std::env::var_os(name).and_then(|value| value.into_string().ok());
        Self::read(&text("TRACEPARENT")?, text("TRACESTATE").as_deref())
    }

    /// Reads the two; `None` where the first is not as the specification has it. A version that is not known
    /// yet counts as far as it is like the first one.
    pub fn read(parent: &str, state: Option<&str>) -> Option<Self> {
        let (head, rest) = parent.split_at_checked(LENGTH)?;
        let mut parts = head.split('-');
        let mut part = |length: usize| {
            let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
            parts.next().filter(|p| p.len() == length && p.bytes().all(hex))
        };
        let (version, trace, span, _flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
        let more = if version == "00" { rest.is_empty() } else { rest.is_empty() || rest.starts_with('-') };
        let none = |text: &str| text.bytes().all(|b| b == b'0');
        if version == "ff" || !more || none(trace) || none(span) {
            return None;
        }
        let plain = |s: &&str| s.len() <= LONGEST_STATE && s.bytes().all(|b| (b' '..=b'~').contains(&b));
        let state = state.filter(|s| !s.is_empty()).filter(plain).map(str::to_owned);
        Some(Self { trace: trace.to_owned(), parent: span.to_owned(), state })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_specification_allows_is_taken_and_nothing_else() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let good = format!("00-{trace}-00f067aa0ba902b7-01");
        let read = Context::read(&good, Some("vendor=1")).unwrap();
        assert_eq!((read.trace.as_str(), read.parent.as_str()), (trace, "00f067aa0ba902b7"));
        assert_eq!(read.state.as_deref(), Some("vendor=1"));
        assert!(Context::read(&format!("01-{trace}-00f067aa0ba902b7-01-more"), None).is_some());
        for bad in [
            "",
            "00",
            &format!("{good}-more"),
            &format!("{good}0"),
            &format!("ff-{trace}-00f067aa0ba902b7-01"),
            &format!("01-{trace}-00f067aa0ba902b7-01more"),
            &format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
            &format!("00-{trace}-0000000000000000-01"),
            &format!("00-{}-00f067aa0ba902b7-01", trace.to_uppercase()),
            &format!("00-{trace}-00f067aa0ba902b7-0g"),
            &format!("00_{trace}_00f067aa0ba902b7_01"),
            &format!("00-{trace}00-f067aa0ba902b7-01"),
            &"é".repeat(40),
        ] {
            assert_eq!(Context::read(bad, None), None, "{bad}");
        }
        for state in ["", "a\nb", "é", &"x".repeat(513)] {
            assert_eq!(Context::read(&good, Some(state)).unwrap().state, None, "{state}");
        }
    }
}
