//! What can be read from a line of a log.

use jiff::Timestamp;

/// Whether klog's own time of a line (`E1123 11:59:00.123456`, UTC in a container) lies in the last `seconds`. A
/// component that is well logs nothing for days, so that its last lines may tell of a start long ago.
pub fn is_recent(line: &str, now: Timestamp, seconds: i64) -> bool {
    let mut words = line.split_whitespace();
    let (Some(day), Some(time)) = (words.next().and_then(|w| w.get(1..)), words.next()) else { return false };
    let today = now.strftime("%m%d").to_string();
    let of_day = |time: &str| -> Option<i64> {
        let mut parts = time.split(['.', ':']).map(|p| p.parse::<i64>().ok());
        Some(parts.next()?? * 3600 + parts.next()?? * 60 + parts.next()??)
    };
    let age = of_day(time).map(|t| now.as_second().rem_euclid(86_400) - t);
    // Just after midnight the line is of yesterday.
    let age = age.map(|a| if day == today { a } else { a + 86_400 });
    age.is_some_and(|a| (-5..seconds).contains(&a))
}

/// Whether a program says that the kernel has no IPv6 (EAFNOSUPPORT, in the words of Python, Go, Node.js and libc).
pub fn lacks_ipv6(line: &str) -> bool {
    line.contains("ddress family not supported") || line.contains("EAFNOSUPPORT")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_line_is_as_old_as_it_says() {
        let line = "E1123 11:59:30.000000       1 reflector.go:166] Failed to watch";
        for (now, recent) in
            [("2026-11-23T12:00:00Z", true), ("2026-11-23T18:00:00Z", false), ("2026-11-24T11:59:40Z", false)]
        {
            assert_eq!(is_recent(line, now.parse().unwrap(), 300), recent, "{now}");
        }
        let late = "E1123 23:59:30.000000 1 x";
        assert!(is_recent(late, "2026-11-24T00:00:10Z".parse().unwrap(), 300));
        assert!(!is_recent("panic: no time", "2026-11-24T00:00:10Z".parse().unwrap(), 300));
    }
}
