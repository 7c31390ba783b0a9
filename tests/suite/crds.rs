//! The definitions under `crds/` are the ones that the code generates.

use std::{fs, path::Path};

#[test]
fn the_folder_crds_matches_the_code() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds");
    let generated = tsdp::cli::crds::files().unwrap();
    for (name, content) in &generated {
        let found = fs::read_to_string(folder.join(name)).unwrap_or_default();
        assert!(
            found == *content,
            "crds/{name} is not what the code generates; fix it with: cargo run -- crds --out crds"
        );
    }
    for entry in fs::read_dir(&folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            generated.iter().any(|(generated, _)| *generated == name),
            "crds/{name} is generated from nothing: remove it"
        );
    }
}
