//! Reads `cargo metadata`: the packages of the workspace and all their dependencies.

use std::path::PathBuf;

use serde_json::Value;

use crate::Result;
use crate::process::{cargo, output};

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

/// Returns all packages in `Cargo.lock`. Cargo downloads missing ones.
///
/// # Errors
/// If Cargo fails, or prints something unexpected.
pub(crate) fn packages() -> Result<Vec<Package>> {
    ask("--all-features")
}

/// Returns the members of the workspace.
///
/// # Errors
/// As for [`packages`].
pub(crate) fn members() -> Result<Vec<Package>> {
    ask("--no-deps")
}

fn ask(which: &str) -> Result<Vec<Package>> {
    let told = output(&mut cargo(&format!("metadata --format-version 1 --locked {which}")));
    let told = told.ok_or("`cargo metadata --locked` failed: run it to see why")?;
    let told: Value = serde_json::from_str(&told).map_err(|error| format!("`cargo metadata`: {error}"))?;
    let packages = told["packages"].as_array().ok_or("`cargo metadata` lists no packages")?;
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
}
