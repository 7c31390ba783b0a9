//! Reads the list of devices while it arrives, one device at a time.
//!
//! A list of 10,000 devices has about 20 MB. Only the devices are kept, and an endless list ends in an error
//! before it exceeds the shipped memory limit.
//!
//! The reader only finds where each device starts and ends. serde parses each device, and then the rest of
//! the list with a `0` in the place of each device. So an error of the reader is an error of the list, never
//! a shorter list.

use std::collections::HashSet;

use serde::Deserialize;

use super::{
    json::{self, Mismatch},
    wire,
};
use crate::model::{Device, TagSet, UnreadableDevices};

/// The longest JSON of one device, and of everything outside of the devices.
const PART_LIMIT: usize = 1024 * 1024;

/// The longest list: some 30,000 devices.
const LIST_LIMIT: usize = 64 * 1024 * 1024;

/// What all devices of a list may take in memory: some 24,000 of them.
const MEMORY_LIMIT: usize = 48 * 1024 * 1024;

/// The overhead of an allocation, roughly.
const ALLOCATION: usize = 16;
/// The size of a non-empty set of tags or routes: the first node of its tree.
const SET: usize = 300;
/// The size of an entry of such a set, roughly.
const ENTRY: usize = 64;

const MIB: usize = 1024 * 1024;

/// The part of a list of devices that has arrived.
#[derive(Debug, Default)]
pub(super) struct ListReader {
    devices: Vec<Device>,
    /// Devices whose identity cannot be read.
    skipped: UnreadableDevices,
    /// Everything outside of the devices, with a `0` in the place of each.
    envelope: Vec<u8>,
    /// The part of a device that has arrived.
    device: Vec<u8>,
    /// Whether the array of devices is open, and not yet closed.
    in_array: bool,
    /// Objects and arrays that are open.
    depth: usize,
    in_string: bool,
    escaped: bool,
    bytes: usize,
    record: usize,
    /// The sets of tags so far. Thousands of devices have one of a few.
    tag_sets: HashSet<TagSet>,
}

/// The list with a `0` in the place of each device.
#[derive(Deserialize)]
struct Envelope {
    devices: Vec<u8>,
}

impl ListReader {
    /// Takes the next part of the list.
    pub fn read(&mut self, chunk: &[u8]) -> Result<(), Mismatch> {
        self.bytes += chunk.len();
        // Before the chunk is read: an endless list ends here, whatever it consists of.
        bound(self.bytes, LIST_LIMIT, "for the list")?;
        // The beginning of the bytes that are not kept yet.
        let mut start = 0;
        for (at, byte) in chunk.iter().enumerate() {
            if self.in_string {
                self.pass_string(*byte);
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b'[' if self.depth == 1 && !self.in_array => {
                    self.keep(&chunk[start..=at])?;
                    start = at + 1;
                    self.depth += 1;
                    self.in_array = names_devices(&self.envelope);
                }
                b'{' | b'[' => self.depth += 1,
                b',' | b']' if self.in_array && self.depth == 2 => {
                    self.end_device(&chunk[start..at])?;
                    start = at;
                    if *byte == b']' {
                        self.in_array = false;
                        self.depth -= 1;
                    }
                    self.envelope.push(*byte);
                    start += 1;
                }
                // An unbalanced bracket is not judged here: serde refuses it later.
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
        }
        self.keep(&chunk[start..])
    }

    /// The devices, once the whole list has arrived, and those whose identity cannot be read.
    pub fn finish(self) -> Result<(Vec<Device>, UnreadableDevices), Mismatch> {
        let Envelope { devices } = json::parse(&self.envelope)?;
        if devices.len() == self.devices.len() + self.skipped.total {
            Ok((self.devices, self.skipped))
        } else {
            // For example a key that ends like the right one.
            Err(Mismatch::new("expected an array of devices"))
        }
    }

    /// Everything outside of the devices: the whole answer if it is no list.
    pub fn envelope(&self) -> &[u8] {
        &self.envelope
    }

    fn share_tags(&mut self, device: &mut Device) {
        if let Some(known) = self.tag_sets.get(&device.tags) {
            device.tags = known.clone();
        } else {
            self.tag_sets.insert(device.tags.clone());
        }
    }

    fn pass_string(&mut self, byte: u8) {
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' => self.escaped = true,
            b'"' => self.in_string = false,
            _ => {}
        }
    }

    /// Keeps bytes of the part that is being read.
    fn keep(&mut self, bytes: &[u8]) -> Result<(), Mismatch> {
        let (part, what) = if self.in_array {
            (&mut self.device, "for one device")
        } else {
            (&mut self.envelope, "outside of the devices")
        };
        part.extend_from_slice(bytes);
        bound(part.len(), PART_LIMIT, what)
    }

    /// Ends a device; the last bytes of it have not been kept.
    fn end_device(&mut self, rest: &[u8]) -> Result<(), Mismatch> {
        // A device that arrived within one chunk needs no copy.
        let device = if self.device.is_empty() {
            rest
        } else {
            self.keep(rest)?;
            &self.device
        };
        // Nothing between two separators: the envelope shows that.
        if !device.trim_ascii().is_empty() {
            let number = self.devices.len() + self.skipped.total;
            let place = format!("devices[{number}]");
            match wire::listed_device(device, &place).map_err(|mismatch| mismatch.within(&place))? {
                Ok(mut device) => {
                    self.share_tags(&mut device);
                    self.record += record(&device);
                    bound(self.record, MEMORY_LIMIT, "for the devices in memory")?;
                    self.devices.push(device);
                }
                Err(skipped) => self.skipped.push(skipped),
            }
            self.envelope.push(b'0');
            // Each device adds two bytes to the envelope, so a list of tiny devices must end at its
            // limit too.
            bound(self.envelope.len(), PART_LIMIT, "outside of the devices")?;
        }
        self.device.clear();
        Ok(())
    }
}

fn bound(found: usize, limit: usize, what: &str) -> Result<(), Mismatch> {
    if found <= limit {
        return Ok(());
    }
    let mib = limit / MIB;
    Err(Mismatch::new(&format!(
        "expected at most {mib} MiB {what}, found more"
    )))
}

/// Whether the array that opens here is that of the devices.
fn names_devices(envelope: &[u8]) -> bool {
    // JSON allows spaces around each of these tokens.
    let before = |bytes: &[u8], end: &[u8]| {
        let bytes = bytes.trim_ascii_end().strip_suffix(end)?;
        Some(bytes.len())
    };
    before(envelope, b"[")
        .and_then(|at| before(&envelope[..at], b":"))
        .and_then(|at| before(&envelope[..at], b"\"devices\""))
        .is_some()
}

/// The size of a device in memory, roughly.
fn record(device: &Device) -> usize {
    let texts: usize = [
        device.node_id.as_str(),
        &device.legacy_id,
        &device.name,
        &device.hostname,
        &device.user,
        &device.os,
        &device.client_version,
        &device.lock_error,
    ]
    .iter()
    .map(|text| text.len() + ALLOCATION)
    .sum();
    let tags = device.tags.iter().map(|tag| tag.as_str().len() + ENTRY);
    let routes: usize = [&device.enabled_routes, &device.advertised_routes]
        .into_iter()
        .flatten()
        .filter(|set| !set.is_empty())
        .map(|set| SET + ENTRY * set.len())
        .sum();
    // A vector that grows is copied into one twice as large.
    2 * size_of::<Device>() + texts + SET + tags.sum::<usize>() + routes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An endless list: its name, and its parts by number.
    type Endless = (&'static str, Box<dyn Fn(usize) -> String>);

    fn read(chunks: &[&[u8]]) -> Result<Vec<String>, String> {
        let mut reader = ListReader::default();
        for chunk in chunks {
            reader
                .read(chunk)
                .map_err(|mismatch| mismatch.to_string())?;
        }
        let (devices, _) = reader.finish().map_err(|mismatch| mismatch.to_string())?;
        Ok(devices.into_iter().map(|device| device.hostname).collect())
    }

    /// Whole, a byte at a time, and cut once at each place.
    fn read_in_all_ways(json: &str) -> Result<Vec<String>, String> {
        let json = json.as_bytes();
        let whole = read(&[json]);
        assert_eq!(read(&json.chunks(1).collect::<Vec<_>>()), whole);
        for at in 0..json.len() {
            assert_eq!(read(&[&json[..at], &json[at..]]), whole);
        }
        whole
    }

    #[test]
    fn list_is_parsed_whatever_the_chunk_boundaries() {
        for (json, hostnames) in [
            (r#"{"devices":[]}"#, vec![]),
            (" {\n \"devices\" : [ \t ] } \n", vec![]),
            (
                r#"{"devices":[{"nodeId":"n1","hostname":"a"} , {"nodeId":"n2","hostname":"b"}]}"#,
                vec!["a", "b"],
            ),
            (
                r#"{"next":[[1,2],{"devices":[3]}],"devices":[{"nodeId":"n1","hostname":"] , \" [{"}],"more":[{"x":","}]}"#,
                vec!["] , \" [{"],
            ),
            (
                r#"{"devices":[{"hostname":"\\","nodeId":"n1","tags":["tag:a","tag:b"],"x":{"devices":[1,2]}}]}"#,
                vec!["\\"],
            ),
        ] {
            let read: Result<Vec<String>, String> = read_in_all_ways(json);
            assert_eq!(
                read.as_deref(),
                Ok(hostnames
                    .iter()
                    .map(|name| (*name).to_owned())
                    .collect::<Vec<_>>()
                    .as_slice()),
                "{json}"
            );
        }
    }

    #[test]
    fn invalid_json_is_never_a_shorter_list() {
        for json in [
            "",
            "{}",
            "[]",
            "[[]]",
            "null",
            r#"{"devices":null}"#,
            r#"{"devices":{}}"#,
            r#"{"devices":[}"#,
            r#"{"devices":[]"#,
            r#"{"devices":[]}}"#,
            r#"{"devices":[]}{}"#,
            r#"{"devices":[0]}"#,
            r#"{"devices":[null]}"#,
            r#"{"devices":[[]]}"#,
            r#"{"devices":[{"nodeId":"n1"},]}"#,
            r#"{"devices":[,{"nodeId":"n1"}]}"#,
            r#"{"devices":[{"nodeId":"n1"} {"nodeId":"n2"}]}"#,
            r#"{"devices":[{"nodeId":"n1"}0]}"#,
            r#"{"devices":[{"nodeId":"n1"}],"devices":[{"nodeId":"n2"}]}"#,
            r#"{"x\"devices":[{"nodeId":"n1"}]}"#,
            r#"{"x\"devices":[{"nodeId":"n1"}],"devices":[]}"#,
            r#"{"devices\u0000":[{"nodeId":"n1"}]}"#,
            r#"{"dev\u0069ces":[{"nodeId":"n1"}]}"#,
            r#"{"devices":[{"nodeId":"n1"]}"#,
            r#"{"devices":[{"nodeId":"n1"}]"#,
            r#"{"devices":[{"nodeId":"n1","hostname":"a]}"#,
            r#"[{"devices":[{"nodeId":"n1"}]}]"#,
            r#"{"devices":"[]"}"#,
            r#"}{"devices":[{"nodeId":"n1"}]}"#,
        ] {
            let read = read_in_all_ways(json);
            assert!(read.is_err(), "{json}: {read:?}");
        }
    }

    #[test]
    fn an_error_names_its_path() {
        let json = r#"{"devices":[{"nodeId":"n1"},7]}"#;
        let error = read(&[json.as_bytes()]).unwrap_err();
        assert!(error.starts_with("devices[1]: invalid type"), "{error}");
    }

    #[test]
    fn a_device_without_a_readable_identity_is_skipped_and_counted() {
        let json = r#"{"devices":[{"nodeId":"n1"},{"nodeId":null,"name":"fra.tail1.ts.net"},
            {"nodeId":"../x","name":"a\u001bb"},{"name":7}]}"#;
        let mut reader = ListReader::default();
        reader.read(json.as_bytes()).unwrap();
        let (devices, skipped) = reader.finish().unwrap();
        assert_eq!(devices.len(), 1);
        assert_eq!(skipped.total, 3);
        let skipped: Vec<_> = skipped.first.iter().map(ToString::to_string).collect();
        assert_eq!(
            skipped,
            [
                "devices[1] (fra.tail1.ts.net): nodeId",
                "devices[2]: nodeId",
                "devices[3]: nodeId"
            ]
        );
    }

    #[test]
    fn endless_list_is_refused_at_the_size_limit() {
        let device = |number: usize| format!(r#"{{"nodeId":"n{number}","hostname":"h"}},"#);
        let endless: [Endless; 4] = [
            ("devices", Box::new(device)),
            ("spaces", Box::new(|_| " ".repeat(4096))),
            ("one device", Box::new(|_| r#"{"x":["#.repeat(1000))),
            (
                "unknown fields",
                Box::new(|number| {
                    format!(r#"{{"nodeId":"n{number}","x":"{}"}},"#, "x".repeat(99_999))
                }),
            ),
        ];
        for (what, part) in endless {
            let mut reader = ListReader::default();
            reader.read(br#"{"devices":["#).unwrap();
            let refused =
                (0..1_000_000).find_map(|number| reader.read(part(number).as_bytes()).err());
            let refused = refused.unwrap().to_string();
            assert!(refused.contains("expected at most"), "{what}: {refused}");
            assert!(
                reader.bytes <= LIST_LIMIT + 100_100 && reader.record <= MEMORY_LIMIT + 4096,
                "{what}"
            );
        }
    }
}
