//! Finds the programs: in `KUBEBUILDER_ASSETS`, else in the cache, else by a build.

use std::{
    env,
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{
    Error,
    build::{self, Programs},
    failed_to,
};

const GO_MOD: &str = include_str!("../../tests/control-plane/go.mod");
const GO_SUM: &str = include_str!("../../tests/control-plane/go.sum");

/// The programs of a control plane.
#[derive(Debug, Clone)]
pub struct Binaries {
    /// etcd, the store.
    pub etcd: PathBuf,
    /// The API server.
    pub kube_apiserver: PathBuf,
    /// The command line client of the same version.
    pub kubectl: PathBuf,
}

impl Binaries {
    /// The programs in the folder `KUBEBUILDER_ASSETS` (the convention of kubebuilder's envtest). If it is
    /// not set, the programs in the cache, built there first if need be.
    ///
    /// The build takes minutes and reports its progress on stderr. Concurrent tests and processes wait for
    /// the one that builds.
    pub async fn find_or_build() -> Result<Self, Error> {
        if let Some(folder) = env::var_os("KUBEBUILDER_ASSETS").filter(|folder| !folder.is_empty())
        {
            let folder = PathBuf::from(folder);
            return Self::of(&folder)
                .map_err(|program| Error::IncompleteAssets { folder, program });
        }
        let folder = in_cache("", &build::SERVERS).await?;
        Self::of(&folder).map_err(|program| Error::Io {
            what: format!("find {program} in {}", folder.display()),
            source: std::io::ErrorKind::NotFound.into(),
        })
    }

    /// kube-controller-manager, which few tests need: beside the other programs if it is there, else in the
    /// cache, built there first if need be.
    pub async fn kube_controller_manager(&self) -> Result<PathBuf, Error> {
        let name = "kube-controller-manager";
        let beside = self.kube_apiserver.with_file_name(name);
        if beside.is_file() {
            return Ok(beside);
        }
        let folder = in_cache("-controller-manager", &build::CONTROLLER_MANAGER).await?;
        Ok(folder.join(name))
    }

    /// The programs of a folder, or the name of a missing one.
    fn of(folder: &Path) -> Result<Self, &'static str> {
        let program = |name| {
            let path = folder.join(name);
            if path.is_file() { Ok(path) } else { Err(name) }
        };
        Ok(Self {
            etcd: program("etcd")?,
            kube_apiserver: program("kube-apiserver")?,
            kubectl: program("kubectl")?,
        })
    }
}

/// The folder of these programs in the cache, built if need be.
async fn in_cache(suffix: &str, what: &Programs) -> Result<PathBuf, Error> {
    let cache = cache()?;
    let name = format!("{}-{:016x}{suffix}", kubernetes_version(), pinned_hash());
    let folder = cache.join(&name);
    // Without the lock: the usual case must not wait for a build of something else.
    if is_whole(&folder, what) {
        return Ok(folder);
    }
    fs::create_dir_all(&cache).map_err(failed_to("make the folder", &cache))?;
    let _lock = lock(&cache.join(format!("{name}.lock"))).await?;
    // Once more: another process may have built it while this one waited.
    if !is_whole(&folder, what) {
        build_into(&folder, &cache, what).await?;
    }
    Ok(folder)
}

fn is_whole(folder: &Path, what: &Programs) -> bool {
    let mut names = what.names.iter();
    names.all(|name| folder.join(name).is_file())
}

/// Builds beside `folder` and renames, so that a folder of that name is always complete.
async fn build_into(folder: &Path, cache: &Path, what: &Programs) -> Result<(), Error> {
    let work = tempfile::Builder::new()
        .prefix("building-")
        // In the cache, as a rename works only within one file system.
        .tempdir_in(cache)
        .map_err(failed_to("make a folder in", cache))?;
    let programs = build::go_build(work.path(), what, GO_MOD, GO_SUM, kubernetes_version()).await?;
    fs::rename(&programs, folder).map_err(failed_to("rename to", folder))
}

fn cache() -> Result<PathBuf, Error> {
    let absolute = |name| {
        env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let caches = absolute("XDG_CACHE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
        .ok_or(Error::NoCache)?;
    Ok(caches.join("tsdp").join("control-plane"))
}

/// Waits for the lock. The system frees it when its holder ends, even by a crash.
async fn lock(path: &Path) -> Result<File, Error> {
    let file = File::create(path).map_err(failed_to("open", path))?;
    let since = Instant::now();
    let mut said = since;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(source)) => return Err(failed_to("lock", path)(source)),
        }
        if said.elapsed() >= build::PROGRESS_INTERVAL {
            said = Instant::now();
            build::say(&format!(
                "waiting for the local control plane, which another test or process builds ({} s)",
                since.elapsed().as_secs()
            ));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// The version that go.mod pins, such as `v1.36.3`.
fn kubernetes_version() -> &'static str {
    GO_MOD
        .lines()
        .find_map(|line| line.trim().strip_prefix("k8s.io/kubernetes "))
        .unwrap_or("unknown")
}

/// Names the cache folder after the pinned versions (FNV-1a: the same on every machine and toolchain).
fn pinned_hash() -> u64 {
    GO_MOD
        .bytes()
        .chain(GO_SUM.bytes())
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kubernetes_version_is_read_from_go_mod() {
        let version = kubernetes_version();
        let numbers: Vec<_> = version.strip_prefix('v').unwrap().split('.').collect();
        assert_eq!(numbers.len(), 3, "{version}");
        assert!(
            numbers.iter().all(|number| number.parse::<u16>().is_ok()),
            "{version}"
        );
    }
}
