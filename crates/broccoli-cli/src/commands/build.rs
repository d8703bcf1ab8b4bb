//! `broccoli build DIR`: builds a task crate into a module that every node accepts.
//!
//! This module calls Cargo and checks the result. It never signs or deploys.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use broccoli_node::Function;
use broccoli_node::module::{Engine, Limits, LoadError};
use serde_json::Value;

use crate::connect::variable;
use crate::exit::Failure;
use crate::output;

/// What `build` builds, and where it writes.
#[derive(clap::Args, Debug)]
pub(crate) struct BuildArgs {
    /// Directory of the task crate
    dir: PathBuf,
    /// Copy the module to this file
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// A module that nodes of this version accept.
#[derive(Debug)]
pub(crate) struct BuiltModule {
    /// Name of the crate, with `_` for `-`.
    pub(crate) name: String,
    /// The bytes of the module.
    pub(crate) wasm: Vec<u8>,
    /// The file that Cargo wrote.
    pub(crate) path: PathBuf,
    /// The functions in the module.
    pub(crate) functions: Vec<Function>,
}

/// Why there is no module.
#[derive(Debug)]
pub(crate) enum BuildError {
    /// The directory contains no `Cargo.toml`.
    NotACrate(PathBuf),
    /// Cargo is not installed.
    NoCargo,
    /// Rust's standard library for Wasm is not installed.
    NoTarget,
    /// The crate does not compile. Cargo has printed the reason.
    Compile,
    /// The crate does not compile, and this file has no `#![no_std]`.
    Std(PathBuf),
    /// The crate compiles, but not to a module.
    NoModule,
    /// The crate compiles to several modules, with these names.
    Several(Vec<String>),
    /// A node would refuse the module with this name.
    Refused(String, LoadError),
    /// A file could not be read or written.
    Io(PathBuf, io::Error),
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotACrate(dir) => {
                write!(f, "{} contains no Cargo.toml: `broccoli new DIR` creates a task crate", dir.display())
            }
            Self::NoCargo => write!(f, "cargo is not installed: get Rust from https://rustup.rs"),
            Self::NoTarget => write!(f, "Rust cannot build Wasm yet: run `rustup target add {TARGET}`"),
            Self::Compile => write!(f, "the crate does not compile; see above"),
            Self::Std(path) => write!(
                f,
                "the crate does not compile; see above. {} has no `#![no_std]`: make it the first line, because tasks \
                 run without an operating system",
                path.display()
            ),
            Self::NoModule => {
                write!(f, "the crate builds no module: put crate-type = [\"cdylib\"] under [lib] in its Cargo.toml")
            }
            Self::Several(names) => {
                write!(
                    f,
                    "the directory builds {} modules ({}): name the directory of one",
                    names.len(),
                    names.join(", ")
                )
            }
            Self::Refused(name, reason) => write!(f, "nodes would refuse {name}: {reason}"),
            Self::Io(path, error) => write!(f, "cannot use {}: {error}", path.display()),
        }
    }
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Failure {
        match error {
            BuildError::NotACrate(_) => Failure::usage(error),
            _ => Failure::failed(error),
        }
    }
}

/// Builds the crate, and prints what was built.
///
/// # Errors
/// See [`BuildError`].
pub(crate) fn run(args: BuildArgs) -> Result<(), Failure> {
    let module = build_dir(&args.dir)?;
    let path = args.output.as_ref().unwrap_or(&module.path);
    if args.output.is_some() {
        fs::write(path, &module.wasm).map_err(|error| BuildError::Io(path.clone(), error))?;
    }
    let mut text = format!("{}  {}  {}", module.name, output::size(module.wasm.len()), path.display());
    // The linker puts them into any order.
    let mut functions: Vec<&Function> = module.functions.iter().collect();
    functions.sort_by_key(|function| &function.name);
    for function in functions {
        text += &format!("\n  {function}");
    }
    output::print(text)
}

/// Builds the task crate in `dir` with Cargo, and checks the module as a node does. The output of Cargo goes to stderr.
///
/// # Errors
/// See [`BuildError`].
pub(crate) fn build_dir(dir: &Path) -> Result<BuiltModule, BuildError> {
    if !dir.join("Cargo.toml").is_file() {
        return Err(BuildError::NotACrate(dir.to_path_buf()));
    }
    require_target(dir)?;
    let (name, path) = compile(dir)?;
    let wasm = fs::read(&path).map_err(|error| BuildError::Io(path.clone(), error))?;
    match Engine::new(Limits::host()).load(&wasm) {
        Ok(module) => Ok(BuiltModule { functions: module.functions().to_vec(), name, wasm, path }),
        Err(reason) => Err(BuildError::Refused(name, reason)),
    }
}

const TARGET: &str = "wasm32-unknown-unknown";

/// The Cargo configuration of the example functions. `broccoli new` writes the same configuration.
pub(crate) const CARGO_CONFIG: &str = include_str!("../../template/cargo-config.toml");

/// Checks that the target is installed. Cargo's own error names only the missing crate `core`, and no solution.
fn require_target(dir: &Path) -> Result<(), BuildError> {
    let query = Command::new("rustc").args(["--print", "target-libdir", "--target", TARGET]).current_dir(dir).output();
    match query {
        Ok(output) if output.status.success() => {
            let libdir = String::from_utf8_lossy(&output.stdout);
            if Path::new(libdir.trim()).is_dir() { Ok(()) } else { Err(BuildError::NoTarget) }
        }
        // Cargo may be configured for another compiler. Then Cargo reports the error.
        _ => Ok(()),
    }
}

/// Compiles the crate in `dir`. Returns the name and the path of its only module.
fn compile(dir: &Path) -> Result<(String, PathBuf), BuildError> {
    let mut cargo = Command::new("cargo");
    cargo
        .args(["build", "--release", "--target", TARGET, "--message-format", "json-render-diagnostics"])
        .current_dir(dir)
        // These variables would replace the flags of the crate.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    if !has_flags(dir) {
        cargo.args(["--config", &flags_setting()]);
    }
    // Cargo merges both lists.
    if let Some(setting) = places_setting(dir) {
        cargo.args(["--config", &setting]);
    }
    let output = cargo.output().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => BuildError::NoCargo,
        _ => BuildError::Io("cargo".into(), error),
    })?;
    if !output.status.success() {
        return Err(why_not(dir));
    }
    let mut modules = modules(&String::from_utf8_lossy(&output.stdout));
    match modules.len() {
        0 => Err(BuildError::NoModule),
        1 => Ok(modules.remove(0)),
        _ => Err(BuildError::Several(modules.into_iter().map(|(name, _)| name).collect())),
    }
}

/// Why a crate does not compile. Without `#![no_std]` the compiler reports two panic handlers, which does not help.
fn why_not(dir: &Path) -> BuildError {
    let path = dir.join("src/lib.rs");
    match fs::read_to_string(&path) {
        Ok(text) if !text.contains("no_std") => BuildError::Std(path),
        _ => BuildError::Compile,
    }
}

/// Whether the crate sets its own flags. These have priority.
fn has_flags(dir: &Path) -> bool {
    fs::read_to_string(dir.join(".cargo/config.toml")).is_ok_and(|config| config.contains("rustflags"))
}

/// The flags of [`CARGO_CONFIG`], as one `key = value`.
fn flags_setting() -> String {
    let list = CARGO_CONFIG.split_once("rustflags = ").map_or("[]", |(_, list)| list);
    format!("target.{TARGET}.rustflags = {}", list.lines().map(str::trim).collect::<String>())
}

/// Flags that make the source paths of panics in a module the same on each machine, as one `key = value`. Otherwise the
/// paths contain Cargo's directory for downloaded crates and, with rustup's component rust-src, the directory of the
/// standard library's sources.
fn places_setting(dir: &Path) -> Option<String> {
    let answer = |args: &[&str]| {
        let output = Command::new("rustc").args(args).current_dir(dir).output().ok()?;
        output.status.success().then(|| String::from_utf8(output.stdout).ok())?
    };
    let sources = Path::new(answer(&["--print", "sysroot"])?.trim()).join("lib/rustlib/src/rust");
    let version = answer(&["-vV"])?;
    let hash = version.lines().find_map(|line| line.strip_prefix("commit-hash: "))?.to_owned();
    let of_user = || Some(std::env::home_dir()?.join(".cargo"));
    let cargo = variable("CARGO_HOME").map(PathBuf::from).or_else(of_user)?;
    Some(places(&[(&cargo, "/cargo".into()), (&sources, format!("/rustc/{hash}"))]))
}

fn places(places: &[(&Path, String)]) -> String {
    let flag =
        |(from, to): &(&Path, String)| Value::from(format!("--remap-path-prefix={}={to}", from.display())).to_string();
    format!("target.{TARGET}.rustflags = [{}]", places.iter().map(flag).collect::<Vec<_>>().join(", "))
}

/// Every module among the artifacts that Cargo reports, as one JSON object on each line.
fn modules(report: &str) -> Vec<(String, PathBuf)> {
    let artifacts = report.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    artifacts
        .filter(|message| message["reason"] == "compiler-artifact")
        .filter(|artifact| {
            artifact["target"]["crate_types"].as_array().is_some_and(|types| types.contains(&"cdylib".into()))
        })
        .filter_map(|artifact| {
            let mut files = artifact["filenames"].as_array()?.iter().filter_map(Value::as_str);
            let path = files.find(|file| file.ends_with(".wasm"))?;
            Some((artifact["target"]["name"].as_str()?.replace('-', "_"), path.into()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_those_of_the_examples() {
        let setting = flags_setting();
        let expected = "target.wasm32-unknown-unknown.rustflags = [\"-Ctarget-cpu=mvp\",\"-Ctarget-feature=";
        assert!(setting.starts_with(expected), "{setting}");
        assert!(setting.ends_with("\"-Clink-arg=--export=__stack_pointer\",]"), "{setting}");
        assert_eq!(CARGO_CONFIG.matches("\n  \"-C").count(), setting.matches("\"-C").count());
    }

    #[test]
    fn places_are_the_same_everywhere() {
        let setting =
            places(&[(Path::new("/home/me/.cargo"), "/cargo".into()), (Path::new("/a \"b\""), "/rustc/0f".into())]);
        assert_eq!(
            setting,
            r#"target.wasm32-unknown-unknown.rustflags = ["--remap-path-prefix=/home/me/.cargo=/cargo", "--remap-path-prefix=/a \"b\"=/rustc/0f"]"#
        );
    }

    #[test]
    fn modules_are_found_among_artifacts() {
        let report = r#"
{"reason":"compiler-artifact","target":{"name":"syn","crate_types":["lib"]},"filenames":["/t/libsyn.rlib"]}
{"reason":"compiler-artifact","target":{"name":"my-tasks","crate_types":["cdylib","rlib"]},"filenames":["/t/my_tasks.wasm"]}
{"reason":"build-finished","success":true}"#;
        assert_eq!(modules(report), [("my_tasks".into(), "/t/my_tasks.wasm".into())]);
        assert_eq!(modules(""), []);
    }
}
