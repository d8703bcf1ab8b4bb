//! `cargo xtask notices`: writes the third-party notices of each file in `dist`, beside it.
//!
//! `cargo tree` names the crates in a program, and their packages contain the texts. The tool cargo-about does the same,
//! but it must be installed first, which takes minutes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::firmware::Chip;
use crate::metadata::{Package, WORKSPACE, packages};
use crate::process::{cargo, output};
use crate::{Result, dist, in_root, root};

/// A file that is carried to other machines.
pub(crate) struct Shipped {
    /// Its name in `dist`.
    pub(crate) file: String,
    /// The manifest of its workspace.
    manifest: &'static str,
    /// Its package and features, as arguments of Cargo.
    package: String,
    target: &'static str,
    /// Notices for code in it that does not come from a crate, or from one without the text of its licence.
    others: &'static str,
}

/// The program of `cargo xtask dist`.
pub(crate) fn program() -> Shipped {
    Shipped {
        file: dist::NAME.into(),
        manifest: WORKSPACE,
        package: dist::PROGRAM.into(),
        target: dist::TARGET,
        others: LIBRARIES,
    }
}

/// Libraries in that program that are no crates.
const LIBRARIES: &str = "\
It also contains parts of Rust's standard library (MIT or Apache-2.0; its notices are in each Rust installation, in
`share/doc/rust/COPYRIGHT-library.html`) and of the C library musl: Copyright © 2005-2020 Rich Felker, et al., under the MIT licence.
";

/// The image of `cargo xtask firmware` for a chip.
pub(crate) fn firmware(chip: Chip) -> Shipped {
    Shipped {
        file: format!("broccoli-{}.bin", chip.name()),
        manifest: "firmware/esp32/Cargo.toml",
        package: format!("-p broccoli-esp32 --features {}", chip.name()),
        target: chip.target(),
        others: include_str!("../../firmware/esp32/notices.md"),
    }
}

/// Licences whose text every file of notices contains, or that ask for no notice.
const KNOWN: &[&str] = &["MIT", "Apache-2.0", "0BSD"];

/// Beginnings of the names of licence files, in lower case.
const BEGINNINGS: &[&str] = &["licen", "copying", "copyright", "notice", "unlicense"];

/// Writes the notices of all files.
///
/// # Errors
/// As for [`write()`].
pub(crate) fn run() -> Result {
    for shipped in [program()].into_iter().chain(Chip::ALL.map(firmware)) {
        println!("{}", write(&shipped)?.display());
    }
    Ok(())
}

/// Writes the notices of one file, `dist/NAME.THIRD-PARTY.md`, and returns their path.
///
/// # Errors
/// If Cargo fails, a crate has no licence, or a file cannot be read or written.
pub(crate) fn write(shipped: &Shipped) -> Result<PathBuf> {
    let built = crates_in(shipped)?;
    let packages: Vec<Package> = packages(shipped.manifest)?
        .into_iter()
        .filter(|package| !package.is_ours && built.contains(&(package.name.clone(), package.version.clone())))
        .collect();
    let path = in_root("dist").join(format!("{}.THIRD-PARTY.md", shipped.file));
    let text = text(shipped, &packages)?;
    let written = fs::create_dir_all(in_root("dist")).and_then(|()| fs::write(&path, text));
    written.map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    Ok(path)
}

/// Returns name and version of each crate with code in the file.
fn crates_in(shipped: &Shipped) -> Result<BTreeSet<(String, String)>> {
    let Shipped { manifest, package, target, .. } = shipped;
    let which = format!("--manifest-path {manifest} {package} --target {target}");
    let tree = format!("tree --locked {which} -e normal,no-proc-macro --prefix none --format {{p}}");
    let lines = output(&mut cargo(&tree)).ok_or_else(|| format!("`cargo {tree}` failed: run it to see why"))?;
    Ok(lines.lines().filter_map(crate_of).collect())
}

/// Reads a line `name v1.2.3 …`.
fn crate_of(line: &str) -> Option<(String, String)> {
    let mut words = line.split_whitespace();
    Some((words.next()?.into(), words.next()?.strip_prefix('v')?.into()))
}

fn text(shipped: &Shipped, packages: &[Package]) -> Result<String> {
    let mut table = String::new();
    // Each text once, with the crates that use it.
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in packages {
        let Package { name, version, license, repository, dir, .. } = package;
        if license.is_empty() {
            return Err(format!(
                "{name} {version} has no licence in its manifest: look into {} and decide",
                dir.display()
            ));
        }
        let found = licences(dir, license).map_err(|error| format!("cannot read {}: {error}", dir.display()))?;
        if found.is_empty() && !is_known(license) && !shipped.others.contains(&format!("`{name}`")) {
            let dir = dir.display();
            return Err(format!(
                "{name} {version} has no file with its licence, {license}: look into {dir}, and add it"
            ));
        }
        let note = if found.is_empty() { "no text in its package" } else { "" };
        table += &format!("| [{name}]({repository}) | {version} | {license} | {note} |\n");
        for text in found {
            texts.entry(text).or_default().push(format!("{name} {version}"));
        }
    }
    let own = licences(root(), "").map_err(|error| format!("cannot read the licences of this project: {error}"))?;
    for text in own {
        texts.entry(text).or_default().push("broccoli".into());
    }
    let texts: String =
        texts.iter().map(|(text, names)| format!("\n### {}\n\n````text\n{text}\n````\n", names.join(", "))).collect();
    Ok(format!(
        "# Third-party notices\n\n\
         `{}` is a part of Broccoli, which is under MIT or Apache-2.0, at your choice. It contains code of the crates below.\n\
         A crate that offers a choice with MIT is used under MIT. Some packages contain no text of their licence; it is here\n\
         all the same.\n\n{}\n\
         | crate | version | licence | |\n|---|---|---|---|\n{table}\n## Texts\n{texts}",
        shipped.file, shipped.others
    ))
}

/// Tells whether a crate can be used under one of the licences in [`KNOWN`] alone.
fn is_known(license: &str) -> bool {
    !license.contains("AND") && license.split(['/', ' ']).any(|word| KNOWN.contains(&word))
}

/// Returns the texts of the licences under which the code in a directory is used.
fn licences(dir: &Path, license: &str) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_text = BEGINNINGS.iter().any(|beginning| name.to_lowercase().starts_with(beginning));
        if is_text && entry.path().is_file() {
            names.push(name);
        }
    }
    names.sort();
    let texts = needed(&names, license).map(|name| fs::read(dir.join(name)).map(|text| tidy(&text)));
    texts.collect()
}

/// Selects the licence files that are needed: only that of MIT, if the crate offers MIT and has a file for it.
fn needed<'a>(names: &'a [String], license: &str) -> impl Iterator<Item = &'a String> {
    let can_be_mit = !license.contains("AND") && license.split(['/', ' ']).any(|word| word == "MIT");
    let is = |name: &str, part: &str| name.to_lowercase().contains(part);
    let chosen = can_be_mit && names.iter().any(|name| is(name, "mit"));
    names.iter().filter(move |name| !chosen || is(name, "mit") || is(name, "notice") || is(name, "copyright"))
}

/// Removes differences in white space, so that equal texts are equal strings.
fn tidy(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    lines.join("\n").trim_matches('\n').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crates_are_read_from_a_tree() {
        let is = |name: &str, version: &str| Some((name.to_owned(), version.to_owned()));
        assert_eq!(crate_of("broccoli-cli v0.2.0 (/tree/crates/broccoli-cli)"), is("broccoli-cli", "0.2.0"));
        assert_eq!(crate_of("syn v2.0.1 (*)"), is("syn", "2.0.1"));
        assert_eq!(crate_of(""), None);
    }

    #[test]
    fn mit_is_chosen_where_it_can_be() {
        let files = ["COPYRIGHT", "LICENSE-APACHE", "LICENSE-MIT"].map(str::to_owned);
        let needed = |license: &str| needed(&files, license).count();
        assert_eq!(needed("MIT OR Apache-2.0"), 2);
        assert_eq!(needed("Apache-2.0/MIT"), 2);
        assert_eq!(needed("(MIT OR Apache-2.0) AND Unicode-3.0"), 3);
        assert_eq!(needed("Apache-2.0"), 3);
        // Without a file of its own, it may be in any.
        assert_eq!(super::needed(&["LICENSE".to_owned()], "MIT").count(), 1);
    }

    #[test]
    fn a_crate_without_the_text_of_a_rare_licence_is_an_error() {
        let package = |license: &str| Package {
            name: "riscy".into(),
            version: "1.0.0".into(),
            license: license.into(),
            repository: String::new(),
            dir: in_root("docs"),
            is_ours: false,
            is_public: true,
        };
        let written = |license| text(&program(), &[package(license)]);
        assert!(written("MIT OR ISC").unwrap().contains("| [riscy]() | 1.0.0 | MIT OR ISC | no text in its package |"));
        for license in ["ISC", "MIT AND ISC"] {
            let error = written(license).unwrap_err();
            assert!(error.starts_with(&format!("riscy 1.0.0 has no file with its licence, {license}: ")), "{error}");
        }
        assert_eq!(written("").unwrap_err().split(':').next(), Some("riscy 1.0.0 has no licence in its manifest"));
    }

    #[test]
    fn the_same_text_is_written_once() {
        assert_eq!(tidy(b"\r\nMIT  \r\nLicence\r\n\r\n"), "MIT\nLicence");
        assert_eq!(tidy(b"MIT\nLicence"), "MIT\nLicence");
    }
}
