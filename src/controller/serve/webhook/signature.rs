//! The signature of a webhook: `Tailscale-Webhook-Signature: t=<unix seconds>,v1=<hex>`.
//!
//! `v1` is the HMAC-SHA256 of `<t>.<body>` under the secret of the endpoint
//! (<https://tailscale.com/kb/1213/webhooks#verifying-an-event-signature>).

use jiff::{SignedDuration, Timestamp};
use ring::hmac;
use secrecy::{ExposeSecret as _, SecretString};

/// Why a webhook is refused. For logs only: the sender learns nothing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("its signature is missing or cannot be parsed")]
    Unreadable,
    #[error("it is signed with another secret, or was changed in transit")]
    Forged,
    #[error("it was signed more than five minutes ago, or the clock of this machine is fast")]
    Old,
    #[error(
        "it was signed more than five minutes in the future, or the clock of this machine is slow"
    )]
    Early,
}

/// How far the time of a signature may be from now, either way: as in Tailscale's own example.
const TOLERANCE: SignedDuration = SignedDuration::from_mins(5);
/// Signatures that are tried. There are two while a secret is replaced; each costs a pass over the
/// body.
const MAX_SIGNATURES: usize = 4;

/// Whether `header` holds a signature of `body` under `secret` that is not too far from `now`.
pub(super) fn verify(
    secret: &SecretString,
    header: &str,
    body: &[u8],
    now: Timestamp,
) -> Result<(), Refusal> {
    let parts = || {
        header
            .split(',')
            .filter_map(|part| part.trim().split_once('='))
    };
    let (_, time) = parts()
        .find(|(name, _)| *name == "t")
        .ok_or(Refusal::Unreadable)?;
    let signed_at = time
        .parse()
        .ok()
        .and_then(|seconds| Timestamp::from_second(seconds).ok())
        .ok_or(Refusal::Unreadable)?;

    let signed = [time.as_bytes(), b".", body].concat();
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose_secret().as_bytes());
    let mut signatures = parts()
        .filter(|(name, _)| *name == "v1")
        .filter_map(|(_, hex)| bytes_of(hex))
        .take(MAX_SIGNATURES)
        .peekable();
    signatures.peek().ok_or(Refusal::Unreadable)?;
    // Compares in constant time.
    if !signatures.any(|tag| hmac::verify(&key, &signed, &tag).is_ok()) {
        return Err(Refusal::Forged);
    }
    // The time is part of what is signed, so it means something only once the signature is valid.
    match now.duration_since(signed_at) {
        age if age > TOLERANCE => Err(Refusal::Old),
        age if age < -TOLERANCE => Err(Refusal::Early),
        _ => Ok(()),
    }
}

fn bytes_of(hex: &str) -> Option<Vec<u8>> {
    // With an odd number of digits, the last pair would have no second digit.
    if hex.is_empty() || !hex.len().is_multiple_of(2) {
        return None;
    }
    let digits: Vec<u32> = hex
        .chars()
        .map(|digit| digit.to_digit(16))
        .collect::<Option<_>>()?;
    digits
        .chunks(2)
        .map(|pair| u8::try_from(pair[0] * 16 + pair[1]).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] = br#"[{"type":"test"}]"#;
    /// `printf '1700000000.[{"type":"test"}]' | openssl dgst -sha256 -hmac tskey-webhook-a`
    const OURS: &str = "630639f9621944eeb1de85c13ffee2afd21680c08f8a0de75f9427595d65e6df";
    /// The same under tskey-webhook-b.
    const OTHER: &str = "a6553fd5cdb95c5372f40e7fb7614395deffc6b0b51ee9c73c29511fd91d6d0e";

    fn at(header: &str, seconds: i64) -> Result<(), Refusal> {
        let now = Timestamp::from_second(1_700_000_000 + seconds).unwrap();
        verify(&"tskey-webhook-a".into(), header, BODY, now)
    }

    #[test]
    fn signature_is_valid_for_its_secret_body_and_time_only() {
        let t = "t=1700000000";
        for (header, expected) in [
            (format!("{t},v1={OURS}"), Ok(())),
            (format!("v1={OURS}, {t}"), Ok(())),
            (format!("{t},v1={}", OURS.to_uppercase()), Ok(())),
            // Several, as while a secret is replaced; unknown parts are ignored.
            (format!("{t},v1={OTHER},v1={OURS}"), Ok(())),
            (format!("{t},v0=aa,v1={OURS},v2=zz,x"), Ok(())),
            (format!("{t},v1=zz,v1={OURS}"), Ok(())),
            (format!("{t},v1={OTHER}"), Err(Refusal::Forged)),
            (format!("{t},v1={}", &OURS[..62]), Err(Refusal::Forged)),
            (format!("{t},v1={OURS}00"), Err(Refusal::Forged)),
            // The time is signed too, as it is written.
            (format!("t=1700000001,v1={OURS}"), Err(Refusal::Forged)),
            (format!("t=+1700000000,v1={OURS}"), Err(Refusal::Forged)),
            (format!("{t},v0={OURS}"), Err(Refusal::Unreadable)),
            (format!("{t},v1="), Err(Refusal::Unreadable)),
            (format!("{t},v1={}ä", &OURS[..63]), Err(Refusal::Unreadable)),
            (format!("v1={OURS}"), Err(Refusal::Unreadable)),
            (format!("t=,v1={OURS}"), Err(Refusal::Unreadable)),
            (
                format!("t=99999999999999999,v1={OURS}"),
                Err(Refusal::Unreadable),
            ),
            (String::new(), Err(Refusal::Unreadable)),
        ] {
            assert_eq!(at(&header, 0), expected, "{header}");
        }
        let header = format!("{t},v1={OURS}");
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        let changed = verify(&"tskey-webhook-a".into(), &header, b"[]", now);
        assert_eq!(changed, Err(Refusal::Forged));
    }

    #[test]
    fn signature_is_valid_for_five_minutes_before_and_after_its_time() {
        let header = format!("t=1700000000,v1={OURS}");
        for (seconds, expected) in [
            (300, Ok(())),
            (301, Err(Refusal::Old)),
            (-300, Ok(())),
            (-301, Err(Refusal::Early)),
        ] {
            assert_eq!(at(&header, seconds), expected, "{seconds}");
        }
    }
}
