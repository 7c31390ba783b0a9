//! How many files there are, and which devices share one.

use std::collections::BTreeSet;

use super::super::{
    description::{Facts, Id},
    files::{Candidate, FileKey, Files},
};
use crate::model::Tag;

fn device(number: usize, tags: &[String], user: &str, os: &str) -> Candidate {
    let tags = tags.iter().map(|tag| Tag::reported(format!("tag:{tag}")));
    Candidate {
        id: Id::Node(format!("n{number}CNTRL")),
        label: format!("host-{number}"),
        facts: Facts {
            tags: tags.collect(),
            user: user.to_owned(),
            os: os.to_owned(),
            ..Facts::default()
        },
    }
}

fn tagged(number: usize, tags: &[&str]) -> Candidate {
    let tags: Vec<String> = tags.iter().map(ToString::to_string).collect();
    device(number, &tags, "", "linux")
}

fn keys(devices: &[Candidate]) -> Vec<FileKey> {
    let files = Files::new(devices, devices);
    devices.iter().map(|device| files.of(device)).collect()
}

#[test]
fn a_large_tailnet_of_varied_devices_has_few_files() {
    for (count, max) in [(20, 20), (300, 40), (1_000, 40), (10_000, 400)] {
        for varied in [7, 31, 1_009] {
            let systems = ["linux", "macOS", "windows", "iOS", "android"];
            let devices = (0..count).map(|number| {
                let tags = [number % varied, number / 3 % 11, number / 5 % 13];
                let tags: Vec<String> = tags.iter().map(|tag| format!("t{tag}")).collect();
                let tags = &tags[..number % 4];
                let user = format!("user{}@example.com", number % varied);
                device(number, tags, &user, systems[number % 5])
            });
            let devices: Vec<Candidate> = devices.collect();
            let files: BTreeSet<FileKey> = keys(&devices).into_iter().collect();
            assert!(
                files.len() <= max,
                "{} files for {count} devices",
                files.len()
            );
            assert!(
                files.len() >= 5,
                "{} files for {count} devices",
                files.len()
            );
        }
    }
}

#[test]
fn a_device_that_gains_or_loses_a_tag_stays_in_its_file() {
    let group = |tags: &[&str], from: usize| -> Vec<Candidate> {
        (from..from + 5)
            .map(|number| tagged(number, tags))
            .collect()
    };
    let mut devices = [group(&["fra", "server"], 10), group(&["ams", "server"], 20)].concat();
    let before = keys(&devices);
    for tags in [&["fra", "new", "server"][..], &["fra"], &["server"]] {
        devices[2] = tagged(12, tags);
        let after = keys(&devices);
        assert_eq!(before, after, "{tags:?}");
    }
    devices[2] = tagged(12, &["other"]);
    assert_eq!(keys(&devices)[2], FileKey::Device(devices[2].id.clone()));
}
