//! The devices of a shared policy, and the expression that selects exactly them.

use std::fmt::Write as _;

use ring::digest::{SHA256, digest};

use crate::plan::Expression;

/// A part of the devices that share settings.
pub(super) struct Share<T> {
    /// What tells its name from those of the other parts; empty if it is the only one.
    pub suffix: String,
    pub members: Vec<T>,
}

/// An expression that holds for these devices and for no other one.
pub(super) fn expression(ids: &[String]) -> String {
    let ids: Vec<String> = ids.iter().map(|id| format!("'{id}'")).collect();
    format!("device.nodeId in [{}]", ids.join(", "))
}

/// Splits devices until each part fits into an expression. The hash of an id decides the part, so that a device
/// that joins or leaves changes one of them. Keeps the order within each part.
pub(super) fn split<T>(members: Vec<T>, id: impl Fn(&T) -> String) -> Vec<Share<T>> {
    let mut shares = Vec::new();
    let members = members.into_iter().map(|member| {
        let id = id(&member);
        (bits(&id), id, member)
    });
    split_at(String::new(), members.collect(), &mut shares);
    shares
}

/// The bits of a hash.
const BITS: usize = 256;

type Hashed<T> = (Vec<bool>, String, T);

fn split_at<T>(path: String, members: Vec<Hashed<T>>, shares: &mut Vec<Share<T>>) {
    if members.is_empty() {
        return;
    }
    let ids: Vec<String> = members.iter().map(|(_, id, _)| id.clone()).collect();
    let depth = path.len();
    let fits = expression(&ids).len() <= Expression::MAX_LENGTH;
    // A single id always fits, and different ids have different hashes.
    if fits || depth == BITS {
        let suffix = if path.is_empty() {
            path
        } else {
            format!("-{path}")
        };
        let members = members.into_iter().map(|(_, _, member)| member).collect();
        shares.push(Share { suffix, members });
        return;
    }
    let (ones, zeros): (Vec<_>, Vec<_>) = members.into_iter().partition(|(bits, _, _)| bits[depth]);
    split_at(format!("{path}0"), zeros, shares);
    split_at(format!("{path}1"), ones, shares);
}

fn bits(text: &str) -> Vec<bool> {
    let hash = digest(&SHA256, text.as_bytes());
    let bits = hash.as_ref().iter();
    bits.flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 == 1))
        .collect()
}

/// A short hash: eight hex digits.
pub(super) fn hex(text: &str) -> String {
    let hash = digest(&SHA256, text.as_bytes());
    let bytes = hash.as_ref().iter().take(4);
    bytes.fold(String::new(), |mut hex, byte| {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_joins_changes_one_part() {
        let parts = |count: usize| -> Vec<(String, Vec<String>)> {
            let ids = (0..count).map(|number| format!("n{number:06}CNTRL"));
            let shares = split(ids.collect(), Clone::clone);
            let shares = shares
                .into_iter()
                .map(|share| (share.suffix, share.members));
            shares.collect()
        };
        assert_eq!(parts(5).len(), 1);
        assert_eq!(parts(5)[0].0, "");
        let (before, after) = (parts(400), parts(401));
        for (_, ids) in &before {
            let expression = expression(ids);
            assert!(expression.len() <= Expression::MAX_LENGTH, "{expression}");
            assert!(expression.parse::<Expression>().is_ok(), "{expression}");
        }
        let ids: usize = before.iter().map(|(_, ids)| ids.len()).sum();
        assert_eq!(ids, 400);
        let same = before.iter().filter(|part| after.contains(part)).count();
        assert_eq!(before.len() - same, 1);
    }
}
