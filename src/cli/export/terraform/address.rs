//! Addresses of resources: `module.web["web-1"].tailscale_device_tags.this[0]`.

/// The address in the configuration, without the keys of instances: Terraform accepts no key in a `removed` block.
pub(super) fn of_configuration(address: &str) -> String {
    let mut configured = String::new();
    let (mut depth, mut is_quoted, mut is_escaped) = (0_usize, false, false);
    for letter in address.chars() {
        match letter {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            // A key may contain brackets.
            '"' if depth > 0 => is_quoted = !is_quoted,
            '[' if !is_quoted => depth += 1,
            ']' if !is_quoted => depth = depth.saturating_sub(1),
            _ if depth == 0 => configured.push(letter),
            _ => {}
        }
    }
    configured
}

/// The last key of `for_each`, unescaped.
fn last_key(address: &str) -> Option<String> {
    let (_, rest) = address.rsplit_once("[\"")?;
    let (key, _) = rest.rsplit_once("\"]")?;
    serde_json::from_str(&format!("\"{key}\"")).ok()
}

/// Names that say nothing.
const GENERIC: [&str; 4] = ["this", "main", "default", "self"];

/// A short name for what a resource in the configuration is about: those of its modules and its own.
pub(super) fn name(configured: &str) -> String {
    let mut parts = configured.split('.').filter(|part| *part != "module");
    let mut names: Vec<&str> = Vec::new();
    while let Some(part) = parts.next() {
        if part.starts_with("tailscale_device_") {
            names.extend(parts.next());
        } else {
            names.push(part);
        }
    }
    if names.len() > 1 {
        names.retain(|name| !GENERIC.contains(name));
    }
    names.join("-")
}

/// A short name for the device of an instance.
pub(super) fn device_name(address: &str) -> String {
    last_key(address).unwrap_or_else(|| name(&of_configuration(address)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_instances_are_left_out_of_addresses() {
        for (address, configured, of_device) in [
            (
                "tailscale_device_tags.fra",
                "tailscale_device_tags.fra",
                "fra",
            ),
            (
                "tailscale_device_tags.fra[0]",
                "tailscale_device_tags.fra",
                "fra",
            ),
            (
                r#"module.web["a.b]\"[c"].tailscale_device_tags.this[0]"#,
                "module.web.tailscale_device_tags.this",
                r#"a.b]"[c"#,
            ),
            (
                "module.site[1].module.router.tailscale_device_key.this",
                "module.site.module.router.tailscale_device_key.this",
                "site-router",
            ),
        ] {
            assert_eq!(of_configuration(address), configured);
            assert_eq!(device_name(address), of_device);
        }
    }
}
