//! kubectl's flags before the command: `kubectl tsdp -n network approve databases`.

use std::ffi::OsString;

/// The flags that kubectl takes before its command too, each with a value.
const COMMON: [&str; 4] = ["-n", "--namespace", "--context", "--kubeconfig"];

/// The arguments of the process, with such flags after the command, which decides whether it takes them.
pub(super) fn after_command(arguments: Vec<OsString>) -> Vec<OsString> {
    let mut arguments = arguments.into_iter();
    let mut ordered: Vec<_> = arguments.next().into_iter().collect();
    let mut flags = Vec::new();
    while let Some(argument) = arguments.next() {
        let text = argument.to_string_lossy().into_owned();
        if COMMON.contains(&text.as_str()) {
            flags.push(argument);
            flags.extend(arguments.next());
        } else if is_common_with_value(&text) {
            flags.push(argument);
        } else if text == "--log" || text == "--log-format" {
            ordered.push(argument);
            ordered.extend(arguments.next());
        } else {
            ordered.push(argument);
            // Everything after the command is its own.
            if !text.starts_with('-') {
                break;
            }
        }
    }
    ordered.extend(flags);
    ordered.extend(arguments);
    ordered
}

/// `-nnetwork` or `--namespace=network`.
fn is_common_with_value(text: &str) -> bool {
    match text.split_once('=') {
        Some((flag, _)) if flag.starts_with("--") => COMMON.contains(&flag),
        _ => text.starts_with("-n") && !text.starts_with("--"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ordered(line: &str) -> String {
        let arguments = line.split(' ').map(OsString::from).collect();
        let ordered = after_command(arguments).into_iter();
        let words: Vec<_> = ordered.map(|it| it.into_string().unwrap()).collect();
        words.join(" ")
    }

    #[test]
    fn flags_of_kubectl_move_behind_the_command() {
        for (given, expected) in [
            ("tsdp -n a approve x", "tsdp approve -n a x"),
            (
                "tsdp --namespace=a approve x",
                "tsdp approve --namespace=a x",
            ),
            (
                "tsdp -na --context c approve x",
                "tsdp approve -na --context c x",
            ),
            ("tsdp --log debug -n a plan", "tsdp --log debug plan -n a"),
            ("tsdp approve x -n a", "tsdp approve x -n a"),
            ("tsdp -h", "tsdp -h"),
            ("tsdp -n", "tsdp -n"),
        ] {
            assert_eq!(ordered(given), expected);
        }
    }
}
