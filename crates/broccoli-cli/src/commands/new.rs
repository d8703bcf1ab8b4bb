//! `broccoli new DIR`: creates a task crate that builds anywhere.
//!
//! This module has the template, and a copy of the SDK's sources, so that a task crate needs neither a clone of
//! Broccoli nor a published crate. It never writes into a directory that is not empty.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use broccoli_node::name::{NAME_LEN_MAX, is_builtin, is_name};

use crate::exit::Failure;
use crate::output;

/// The directory that `new` creates.
#[derive(clap::Args, Debug)]
pub(crate) struct NewArgs {
    /// Directory to create; its name becomes the name of the module
    dir: PathBuf,
}

/// Why no crate was created.
#[derive(Debug)]
pub(crate) enum NewError {
    /// The name of the directory is not valid for a module.
    Name(String),
    /// The name of the directory is the name of a built-in module.
    Builtin(String),
    /// The directory exists and is not empty.
    NotEmpty(PathBuf),
    /// A file or directory could not be read or written.
    Io(PathBuf, io::Error),
}

impl fmt::Display for NewError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(
                f,
                "{name:?} is not a valid name for a module: use letters, digits, _ and -, with a letter first, at most \
                 {NAME_LEN_MAX} characters, and no reserved word"
            ),
            Self::Builtin(name) => {
                write!(f, "the module {name} is part of every node: choose another name, such as my-{name}")
            }
            Self::NotEmpty(dir) => write!(f, "{} is not empty: choose a new directory", dir.display()),
            Self::Io(path, error) => write!(f, "cannot write {}: {error}", path.display()),
        }
    }
}

impl From<NewError> for Failure {
    fn from(error: NewError) -> Failure {
        match error {
            NewError::Name(_) | NewError::Builtin(_) | NewError::NotEmpty(_) => Failure::usage(error),
            NewError::Io(..) => Failure::failed(error),
        }
    }
}

/// Creates the crate, and prints what to do with it.
///
/// # Errors
/// See [`NewError`].
pub(crate) fn run(args: NewArgs) -> Result<(), Failure> {
    let module = create(&args.dir)?;
    let dir = args.dir.display();
    output::print(format_args!(
        "{dir}/src/lib.rs contains two tasks. Next:\n\n  broccoli deploy {dir}\n  \
         broccoli run \"{module}.hello.s('you')\""
    ))
}

/// Returns the name of the module.
fn create(dir: &Path) -> Result<String, NewError> {
    let at_dir = |error| NewError::Io(dir.to_path_buf(), error);
    let name = crate_name(dir)?;
    let module = name.replace('-', "_");
    fs::create_dir_all(dir).map_err(at_dir)?;
    if fs::read_dir(dir).map_err(at_dir)?.next().is_some() {
        return Err(NewError::NotEmpty(dir.to_path_buf()));
    }
    for (path, text) in TEMPLATE {
        write(&dir.join(path), &text.replace("MODULE", &module).replace("NAME", &name))?;
    }
    for (path, text) in SDK {
        write(&dir.join(".broccoli").join(path), text)?;
    }
    Ok(module)
}

fn crate_name(dir: &Path) -> Result<String, NewError> {
    // So that `.` has a name too.
    let dir = std::path::absolute(dir).map_err(|error| NewError::Io(dir.to_path_buf(), error))?;
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let starts_well = name.starts_with(|first: char| first.is_ascii_alphabetic());
    if is_builtin(&name) {
        return Err(NewError::Builtin(name.into_owned()));
    }
    if starts_well && is_name(&name.replace('-', "_")) && !RESERVED.contains(&&*name) {
        Ok(name.into_owned())
    } else {
        Err(NewError::Name(name.into_owned()))
    }
}

fn write(path: &Path, text: &str) -> Result<(), NewError> {
    let at_path = |error| NewError::Io(path.to_path_buf(), error);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(at_path)?;
    }
    fs::write(path, text).map_err(at_path)
}

/// Names that Cargo refuses for a package, or that other crates have.
const RESERVED: &[&str] = &[
    "Self",
    "abstract",
    "alloc",
    "as",
    "async",
    "await",
    "become",
    "box",
    "break",
    "broccoli-abi",
    "broccoli-macros",
    "broccoli-sdk",
    "const",
    "continue",
    "core",
    "crate",
    "do",
    "dyn",
    "else",
    "enum",
    "extern",
    "false",
    "final",
    "fn",
    "for",
    "gen",
    "if",
    "impl",
    "in",
    "let",
    "loop",
    "macro",
    "match",
    "mod",
    "move",
    "mut",
    "override",
    "priv",
    "proc-macro",
    "proc-macro2",
    "pub",
    "quote",
    "ref",
    "return",
    "self",
    "static",
    "std",
    "struct",
    "super",
    "syn",
    "test",
    "trait",
    "true",
    "try",
    "type",
    "typeof",
    "unsafe",
    "unsized",
    "use",
    "virtual",
    "where",
    "while",
    "yield",
];

/// Files of the crate. `NAME` stands for its name, `MODULE` for the name of its module.
const TEMPLATE: &[(&str, &str)] = &[
    ("Cargo.toml", include_str!("../../template/task-crate.toml")),
    ("Cargo.lock", include_str!("../../template/Cargo.lock")),
    ("README.md", include_str!("../../template/README.md")),
    (".gitignore", include_str!("../../template/gitignore")),
    ("src/lib.rs", include_str!("../../template/lib.rs")),
    (".cargo/config.toml", super::build::CARGO_CONFIG),
];

macro_rules! sdk {
    ($($name:literal: $($file:literal)+;)+) => {
        &[$(
            (concat!($name, "/Cargo.toml"), include_str!(concat!("../../template/sdk/", $name, "/package.toml"))),
            $((
                concat!($name, "/src/", $file),
                include_str!(concat!("../../template/sdk/", $name, "/src/", $file)),
            ),)+
        )+]
    };
}

/// The sources of the SDK, with manifests that do not need the workspace.
const SDK: &[(&str, &str)] = sdk! {
    "broccoli-abi": "board.rs" "cbor.rs" "lib.rs";
    "broccoli-macros": "lib.rs";
    "broccoli-sdk": "arena.rs" "board.rs" "canvas.rs" "codec.rs" "failure.rs" "host.rs" "lib.rs" "num.rs" "rt.rs" "types.rs" "value.rs";
};

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_sources_of_the_sdk_are_complete() {
        let mut expected = BTreeSet::new();
        for name in ["broccoli-abi", "broccoli-macros", "broccoli-sdk"] {
            expected.insert(format!("{name}/Cargo.toml"));
            for entry in fs::read_dir(format!("../{name}/src")).unwrap() {
                expected.insert(format!("{name}/src/{}", entry.unwrap().file_name().display()));
            }
        }
        // The description of functions is for hosts, and so are the functions of every node.
        assert!(expected.remove("broccoli-abi/src/describe.rs"));
        assert!(expected.remove("broccoli-abi/src/builtin.rs"));
        let embedded: BTreeSet<String> = SDK.iter().map(|(path, _)| (*path).to_owned()).collect();
        assert_eq!(embedded, expected);
    }

    #[test]
    fn the_sdk_has_the_version_of_the_program() {
        let version = format!("\nversion = \"{}\"\n", env!("CARGO_PKG_VERSION"));
        for (path, text) in SDK.iter().filter(|(path, _)| path.ends_with("Cargo.toml")) {
            assert!(text.contains(&version), "{path} has another version");
        }
        let lock = include_str!("../../template/Cargo.lock");
        assert_eq!(lock.matches(&version).count(), 3, "three crates of the SDK");
    }

    #[test]
    fn the_versions_of_dependencies_are_those_of_the_workspace() {
        let packages = |lock: &str| -> BTreeSet<String> {
            lock.split("[[package]]\n").skip(1).map(|package| package.trim_end().to_owned()).collect()
        };
        let workspace = packages(&fs::read_to_string("../../Cargo.lock").unwrap());
        let registry = packages(include_str!("../../template/Cargo.lock"));
        let registry: Vec<_> = registry.iter().filter(|package| package.contains("source = ")).collect();
        assert_eq!(registry.len(), 4);
        for package in registry {
            assert!(workspace.contains(package), "not in Cargo.lock of the workspace:\n{package}");
        }
    }

    #[test]
    fn folders_name_modules() {
        let name = |dir: &str| crate_name(Path::new(dir)).map_err(|error| error.to_string());
        assert_eq!(name("/some/my-tasks2"), Ok("my-tasks2".into()));
        assert_eq!(name("."), Ok("broccoli-cli".into()));
        for bad in ["2x", "_x", "a.b", "a b", "ä", "fn", "test", "broccoli-sdk", "/"] {
            assert!(name(bad).is_err(), "{bad}");
        }
        assert_eq!(
            [name("/x/sys"), name("board")].map(|name| name.map_err(|error| error
                .split(':')
                .next()
                .unwrap()
                .to_owned())),
            ["sys", "board"].map(|name| Err(format!("the module {name} is part of every node"))),
        );
        assert_eq!(
            name("/x/a.b"),
            Err(
                "\"a.b\" is not a valid name for a module: use letters, digits, _ and -, with a letter first, at most \
                 64 characters, and no reserved word"
                    .into()
            )
        );
    }
}
