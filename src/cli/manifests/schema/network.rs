//! Addresses, networks, URLs and durations, parsed as by the API server's CEL library (Go's `netip`,
//! `net/url` and `time`).

use std::net::IpAddr;

use ipnet::IpNet;

/// An IP address. Refuses IPv4-mapped IPv6 addresses and zones, as the library does.
pub fn ip(text: &str) -> Option<IpAddr> {
    let addr: IpAddr = text.parse().ok()?;
    let mapped = matches!(addr, IpAddr::V6(addr) if addr.to_ipv4_mapped().is_some());
    (!mapped).then_some(addr)
}

/// A network, possibly with host bits.
pub fn cidr(text: &str) -> Option<IpNet> {
    let (addr, bits) = text.split_once('/')?;
    let digits = bits.bytes().all(|b| b.is_ascii_digit());
    // Go's netip refuses a prefix length with a leading zero.
    if !digits || (bits != "0" && bits.starts_with('0')) {
        return None;
    }
    IpNet::new(ip(addr)?, bits.parse().ok()?).ok()
}

/// The scheme and the host of a URL, with its port; each may be empty.
pub fn url(text: &str) -> Option<(&str, &str)> {
    if text.is_empty() || text.chars().any(|c| c.is_ascii_control()) {
        return None;
    }
    let (scheme, after_scheme) = scheme(text)?;
    let rest = after_scheme.split(['#', '?']).next().unwrap_or_default();
    if !rest.starts_with('/') {
        // For example mailto:a@b. Without a scheme the URL is relative, which isURL refuses.
        return (!scheme.is_empty()).then_some((scheme, ""));
    }
    let Some(after_slashes) = rest.strip_prefix("//") else {
        return Some((scheme, ""));
    };
    let authority = after_slashes.split('/').next().unwrap_or_default();
    // The last @, as in Go: a password may contain others.
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    let (name, port) = match host.strip_prefix('[') {
        Some(inner) => inner.split_once(']')?,
        None => host.find(':').map_or((host, ""), |at| host.split_at(at)),
    };
    let port_is_number = port.strip_prefix(':').map_or(port.is_empty(), |digits| {
        digits.bytes().all(|b| b.is_ascii_digit())
    });
    (port_is_number && name.chars().all(may_be_in_host)).then_some((scheme, host))
}

fn may_be_in_host(c: char) -> bool {
    c.is_ascii_alphanumeric() || !c.is_ascii() || "-_.~!$&'()*+,;=:".contains(c)
}

/// The part before the first colon, if it can be a scheme. `None` if it is empty.
fn scheme(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && !"+-.".contains(c));
    match end {
        Some(0) if text.starts_with(':') => None,
        Some(end)
            if text[end..].starts_with(':')
                && text.starts_with(|c: char| c.is_ascii_alphabetic()) =>
        {
            Some((&text[..end], &text[end + 1..]))
        }
        _ => Some(("", text)),
    }
}

/// Nanoseconds of a duration such as `1h30m` or `1.5s`, by Go's `time.ParseDuration`.
pub fn duration(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.as_bytes().first()? {
        b'-' => (-1.0, &text[1..]),
        b'+' => (1.0, &text[1..]),
        _ => (1.0, text),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut total = 0.0_f64;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let end = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        total += number * unit;
        rest = &rest[end..];
    }
    let total = sign * total;
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "checked just before; rounding beyond 2^53 nanoseconds is below a microsecond"
    )]
    let fits = (total.abs() < i64::MAX as f64).then_some(total as i64);
    // A sign alone is no duration.
    fits.filter(|_| text.len() > 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_parse_as_in_go() {
        for text in [
            "10.0.0.0/8",
            "10.0.0.1/8",
            "::/0",
            "fd00:0::/8",
            "0.0.0.0/0",
        ] {
            assert!(cidr(text).is_some(), "{text}");
        }
        for text in [
            "10.0.0.0",
            "10.0.0.0/08",
            "10.0.0.0/33",
            "10.0.0/8",
            "010.0.0.0/8",
            "::ffff:10.0.0.0/104",
            "10.0.0.0/+8",
            "fe80::1%eth0/64",
        ] {
            assert!(cidr(text).is_none(), "{text}");
        }
    }

    #[test]
    fn urls_parse_as_in_go() {
        for (text, parts) in [
            (
                "https://api.tailscale.com",
                Some(("https", "api.tailscale.com")),
            ),
            (
                "http://127.0.0.1:8080/x?y#z",
                Some(("http", "127.0.0.1:8080")),
            ),
            ("http://[::1]:80", Some(("http", "[::1]:80"))),
            ("https://me:it@host", Some(("https", "host"))),
            ("/path", Some(("", ""))),
            ("mailto:a@b", Some(("mailto", ""))),
            ("api.tailscale.com", None),
            ("http://a b", None),
            ("http://a:b", None),
            ("://a", None),
            ("", None),
        ] {
            assert_eq!(url(text), parts, "{text}");
        }
    }

    #[test]
    fn durations_parse_as_in_go() {
        assert_eq!(duration("1h30m"), Some(5_400_000_000_000));
        assert_eq!(duration("1.5s"), Some(1_500_000_000));
        assert_eq!(duration("-2ms"), Some(-2_000_000));
        assert_eq!(duration("0"), Some(0));
        for text in ["", "1", "s", "1d", "-", "1s2"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }
}
