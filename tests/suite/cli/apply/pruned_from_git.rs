//! `--prune-from REVISION` finds the earlier manifests wherever they were.

use std::{os::unix::fs::symlink, path::Path};

use super::{
    pruned::{AFTER, edited, git, policies},
    *,
};

fn commit(tailnet: &Tailnet) {
    git(tailnet.folder.path(), &["add", "--all"]);
    git(tailnet.folder.path(), &["commit", "--quiet", "-m", "a"]);
}

/// A tailnet whose manifests in `now` are committed, and declare one key more than those that are written next.
async fn committed() -> Tailnet {
    let tailnet = edited().await;
    git(tailnet.folder.path(), &["init", "--quiet"]);
    commit(&tailnet);
    tailnet
}

fn edit(tailnet: &Tailnet, file: &str) {
    fs::write(tailnet.path(file), policies(AFTER)).unwrap();
}

async fn plan(tailnet: &Tailnet, path: &str, args: &[&str]) -> Ran {
    let plan = ["plan", "-f", path, "--prune-from", "HEAD"];
    tailnet.run(&[&plan, args].concat()).await
}

/// The plan prunes the key on both devices.
async fn prunes(tailnet: &Tailnet, path: &str) {
    let out = plan(tailnet, path, &[]).await.with_code(2);
    assert_eq!(out.matches("no longer declared").count(), 2, "{out}");
}

#[tokio::test]
async fn a_renamed_folder_and_a_renamed_file_are_found() {
    let tailnet = committed().await;
    git(tailnet.folder.path(), &["mv", "now", "later"]);
    edit(&tailnet, "later/a.yaml");
    prunes(&tailnet, "later").await;
    prunes(&tailnet, "./later/a.yaml").await;
    git(
        tailnet.folder.path(),
        &["mv", "later/a.yaml", "later/b.yaml"],
    );
    prunes(&tailnet, "later").await;
    prunes(&tailnet, "later/b.yaml").await;
    let absolute = tailnet.path("later");
    prunes(&tailnet, absolute.to_str().unwrap()).await;
}

#[tokio::test]
async fn links_are_followed_as_they_were_at_the_revision() {
    let tailnet = edited().await;
    let link = |target: &str, link: &str| {
        let _ = fs::remove_file(tailnet.path(link));
        symlink(Path::new(target), tailnet.path(link)).unwrap();
    };
    git(tailnet.folder.path(), &["init", "--quiet"]);
    fs::rename(tailnet.path("now"), tailnet.path("v1")).unwrap();
    fs::create_dir(tailnet.path("links")).unwrap();
    link("v1", "current");
    link("../v1/a.yaml", "links/b.yaml");
    commit(&tailnet);
    fs::create_dir(tailnet.path("v2")).unwrap();
    edit(&tailnet, "v2/a.yaml");
    link("v2", "current");
    link("../v2/a.yaml", "links/b.yaml");
    for path in ["current", "current/a.yaml", "links", "links/b.yaml"] {
        prunes(&tailnet, path).await;
    }
}

#[tokio::test]
async fn no_earlier_manifest_is_an_error_unless_it_is_allowed() {
    let tailnet = committed().await;
    fs::create_dir(tailnet.path("new")).unwrap();
    fs::write(tailnet.path("new/a.yaml"), policies("exitNode: false")).unwrap();
    let ran = plan(&tailnet, "new", &[]).await;
    let nothing =
        "tsdp: --prune-from HEAD: git finds no manifest at new, neither there nor renamed since\n";
    let error = "tsdp: --prune-from HEAD: found no earlier policy. Name the former folder, or add --allow-empty if \
                 there was none\n";
    assert_eq!((ran.code, ran.err), (Some(1), format!("{nothing}{error}")));
    let ran = plan(&tailnet, "new", &["--allow-empty"]).await;
    assert_eq!(ran.err, nothing);
    ran.with_code(2);
    fs::create_dir(tailnet.path("empty")).unwrap();
    let ran = tailnet
        .run(&["plan", "-f", "new", "--prune-from", "empty"])
        .await;
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.err
            .contains("--prune-from empty: found no earlier policy"),
        "{}",
        ran.err
    );
}

#[tokio::test]
async fn a_commit_that_corrects_an_invalid_manifest_can_be_planned() {
    let tailnet = committed().await;
    fs::write(
        tailnet.path("now/broken.yaml"),
        super::pruned::policy("third", "device: {hostname: nas}, tags: [nas]"),
    )
    .unwrap();
    fs::write(tailnet.path("now/text.yaml"), [0xff]).unwrap();
    commit(&tailnet);
    fs::remove_file(tailnet.path("now/broken.yaml")).unwrap();
    fs::remove_file(tailnet.path("now/text.yaml")).unwrap();
    edit(&tailnet, "now/a.yaml");
    let ran = plan(&tailnet, "now", &[]).await;
    insta::assert_snapshot!(ran.err, @r"
    tsdp: --prune-from HEAD: these manifests are not valid. What their policies declared is unknown, and stays as it is:
      HEAD:now/text.yaml: cannot be read: it is not UTF-8 text
      HEAD:now/broken.yaml:2:129: spec.tags[0]: 'nas' is not a valid tag. Write tag:nas
    ");
    let out = ran.with_code(2);
    assert_eq!(out.matches("no longer declared").count(), 2, "{out}");
}
