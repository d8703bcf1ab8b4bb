//! Reads `cargo metadata`: the packages of a workspace and all their dependencies.

use std::path::PathBuf;

use serde_json::Value;

use crate::Result;
use crate::process::{cargo, output};

/// The manifest of the workspace with all libraries and programs.
pub(crate) const WORKSPACE: &str = "Cargo.toml";

/// A package in Cargo.lock.
#[derive(Debug)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    /// Licence as in the manifest: `MIT OR Apache-2.0`, or the old form with `/`. Empty if there is none.
    pub(crate) license: String,
    /// URL of its repository, or empty.
    pub(crate) repository: String,
    /// Directory of its files.
    pub(crate) dir: PathBuf,
    /// Whether it is in this repository.
    pub(crate) is_ours: bool,
    /// Whether it may be published.
    pub(crate) is_public: bool,
}

/// Returns all packages in the `Cargo.lock` of a workspace. Cargo downloads missing ones.
///
/// # Errors
/// If Cargo fails, or prints something unexpected.
pub(crate) fn packages(manifest: &str) -> Result<Vec<Package>> {
    read_all(&ask(manifest, "--all-features")?)
}

/// Returns the members of the workspace.
///
/// # Errors
/// As for [`packages`].
pub(crate) fn members() -> Result<Vec<Package>> {
    read_all(&ask(WORKSPACE, "--no-deps")?)
}

/// What `cargo metadata` prints.
fn ask(manifest: &str, which: &str) -> Result<Value> {
    let line = format!("metadata --format-version 1 --locked --manifest-path {manifest} {which}");
    let printed = output(&mut cargo(&line)).ok_or_else(|| format!("`cargo {line}` failed: run it to see why"))?;
    serde_json::from_str(&printed).map_err(|error| format!("`cargo metadata`: {error}"))
}

fn read_all(metadata: &Value) -> Result<Vec<Package>> {
    let packages = metadata["packages"].as_array().ok_or("`cargo metadata` lists no packages")?;
    packages.iter().map(|package| read(package).ok_or_else(|| format!("`cargo metadata` lists {package}"))).collect()
}

fn read(package: &Value) -> Option<Package> {
    let text = |name: &str| package[name].as_str().unwrap_or_default().to_owned();
    Some(Package {
        name: package["name"].as_str()?.into(),
        version: package["version"].as_str()?.into(),
        license: text("license"),
        repository: text("repository"),
        dir: PathBuf::from(package["manifest_path"].as_str()?).parent()?.into(),
        is_ours: package["source"].is_null(),
        // The registries to which it may be published; null means all.
        is_public: package["publish"].as_array().is_none_or(|registries| !registries.is_empty()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    #[test]
    fn packages_are_read() {
        let ours: Value = serde_json::from_str(
            r#"{"name": "xtask", "version": "0.2.0", "license": "MIT", "repository": null, "source": null,
                "manifest_path": "/tree/xtask/Cargo.toml", "publish": []}"#,
        )
        .unwrap();
        let ours = read(&ours).unwrap();
        assert_eq!((ours.is_ours, ours.is_public, ours.dir), (true, false, "/tree/xtask".into()));
        let other: Value = serde_json::from_str(
            r#"{"name": "syn", "version": "2.0.1", "license": "MIT", "source": "registry",
                "manifest_path": "/syn/Cargo.toml", "publish": null}"#,
        )
        .unwrap();
        let other = read(&other).unwrap();
        assert_eq!((other.is_ours, other.is_public, other.repository.as_str()), (false, true, ""));
    }

    /// `1.85` or `1.85.0`. A package that asks for no version gets the lowest.
    fn rust_version(package: &Value) -> [u32; 3] {
        let text = package["rust_version"].as_str().unwrap_or_default();
        let mut numbers = text.split('.').map(|number| number.parse().unwrap_or(0));
        std::array::from_fn(|_| numbers.next().unwrap_or(0))
    }

    /// Returns the ids of all packages that `root` is built from: dependencies of each platform, but not those of tests.
    fn dependencies<'a>(nodes: &BTreeMap<&str, &'a Value>, root: &'a str) -> BTreeSet<&'a str> {
        let (mut found, mut open) = (BTreeSet::new(), vec![root]);
        while let Some(id) = open.pop() {
            for dependency in nodes[id]["deps"].as_array().unwrap() {
                let is_of_tests = |kind: &Value| kind["kind"] == "dev";
                let id = dependency["pkg"].as_str().unwrap();
                if !dependency["dep_kinds"].as_array().unwrap().iter().all(is_of_tests) && found.insert(id) {
                    open.push(id);
                }
            }
        }
        found
    }

    /// A package cannot be built with an older compiler than its dependencies.
    #[test]
    fn rust_version_is_at_least_that_of_each_dependency() {
        let metadata = ask(WORKSPACE, "--all-features").unwrap();
        let by_id = |list: &str| -> BTreeMap<&str, &Value> {
            let entries = metadata.pointer(list).unwrap().as_array().unwrap();
            entries.iter().map(|entry| (entry["id"].as_str().unwrap(), entry)).collect()
        };
        let (packages, nodes) = (by_id("/packages"), by_id("/resolve/nodes"));
        let mut pairs = 0;
        for id in metadata["workspace_members"].as_array().unwrap() {
            let ours = packages[id.as_str().unwrap()];
            for dependency in dependencies(&nodes, id.as_str().unwrap()).into_iter().map(|id| packages[id]) {
                let (name, version) = (&ours["name"], &ours["rust_version"]);
                let (other, asks) = (&dependency["name"], &dependency["rust_version"]);
                assert!(rust_version(ours) >= rust_version(dependency), "{name} {version}: {other} asks for {asks}");
                pairs += 1;
            }
        }
        assert!(pairs > 100, "{pairs} dependencies were compared");
    }
}
