//! Deliberate defects, as patches. Each one must make a test fail.
//!
//! A patch begins with a description of the defect and the command that finds it. Then comes the output of `git
//! diff`:
//!
//! ```text
//! Failures of old attempts count.
//! Test: cargo test -p broccoli-core --test cluster
//!
//! diff --git a/crates/…
//! ```
//!
//! This module owns `target/mutants`: a copy of the tree, and a target directory that all defects share. It never
//! changes the tree itself.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::process::{Background, command, run as run_command, target_dir};
use crate::{Result, in_root, root};

/// A defect that makes a test wait for ever counts as found, too.
const TEST_TIME_MAX: Duration = Duration::from_secs(600);

/// How many test names are shown for a defect.
const NAMES_SHOWN_MAX: usize = 4;

struct Mutant {
    name: String,
    patch: PathBuf,
    what: String,
    test: Vec<String>,
}

/// Checks that every patch applies to the tree as it is.
///
/// # Errors
/// If one does not apply, or there are none.
pub(crate) fn check() -> Result {
    for mutant in load(&[])? {
        run_command(command("git").args(["apply", "--check"]).arg(&mutant.patch))
            .map_err(|error| format!("{error}: make {} again for the code as it is now", mutant.name))?;
        println!("{}: applies", mutant.name);
    }
    Ok(())
}

/// Shows which test finds each of the defects with these names, or all.
///
/// # Errors
/// If a test fails without a defect, or no test finds a defect.
pub(crate) fn run(names: &[String]) -> Result {
    let mutants = load(names)?;
    let copy = Copy::make(target_dir()?.join("mutants"))?;
    let tests: BTreeSet<_> = mutants.iter().map(|mutant| &mutant.test).collect();
    for test in tests {
        println!("without a defect: {}", test.join(" "));
        match copy.test(test)? {
            Verdict::Passed => {}
            verdict => return Err(format!("this must pass before defects can be looked for: {verdict:?}")),
        }
    }
    let mut unseen = Vec::new();
    for mutant in mutants {
        copy.git_apply(&mutant.patch, false)?;
        let verdict = copy.test(&mutant.test);
        copy.git_apply(&mutant.patch, true)?;
        let verdict = match verdict? {
            Verdict::Passed => {
                unseen.push(mutant.name.clone());
                "NOT FOUND".into()
            }
            Verdict::Failed(tests) if tests.is_empty() => "found: the tests end early".into(),
            Verdict::Failed(tests) => format!("found by {}", shown(&tests)),
            Verdict::TimedOut => format!("found: the tests do not end within {} s", TEST_TIME_MAX.as_secs()),
        };
        println!("{}: {}\n    {verdict}", mutant.name, mutant.what);
    }
    if unseen.is_empty() { Ok(()) } else { Err(format!("no test finds {}", unseen.join(", "))) }
}

/// The first few names, and how many more there are.
fn shown(names: &[String]) -> String {
    let (first, more) = names.split_at(names.len().min(NAMES_SHOWN_MAX));
    let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
    first.join(", ") + &more
}

fn load(names: &[String]) -> Result<Vec<Mutant>> {
    let dir = in_root("xtask/mutants");
    let entries = fs::read_dir(&dir).map_err(|error| format!("cannot read {}: {error}", dir.display()))?;
    let mut patches: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    patches.retain(|path| path.extension().is_some_and(|extension| extension == "patch"));
    patches.sort();
    let mutants = patches.into_iter().map(Mutant::load).collect::<Result<Vec<_>>>()?;
    if let Some(name) = names.iter().find(|name| !mutants.iter().any(|mutant| mutant.name == **name)) {
        let known: Vec<_> = mutants.iter().map(|mutant| mutant.name.as_str()).collect();
        return Err(format!("no mutant {name}; there are {}", known.join(", ")));
    }
    let chosen: Vec<_> =
        mutants.into_iter().filter(|mutant| names.is_empty() || names.contains(&mutant.name)).collect();
    if chosen.is_empty() { Err(format!("no patches in {}", dir.display())) } else { Ok(chosen) }
}

impl Mutant {
    fn load(patch: PathBuf) -> Result<Self> {
        let name = patch.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let text = fs::read_to_string(&patch).map_err(|error| format!("cannot read {}: {error}", patch.display()))?;
        let mut lines = text.lines();
        let what = lines.next().unwrap_or_default().to_owned();
        let test = lines.next().and_then(|line| line.strip_prefix("Test: "));
        let test: Vec<_> = test.unwrap_or_default().split_whitespace().map(str::to_owned).collect();
        match test.first() {
            Some(_) => Ok(Self { name, patch, what, test }),
            None => Err(format!("{}: the second line must be `Test: COMMAND`", patch.display())),
        }
    }
}

#[derive(Debug)]
enum Verdict {
    Passed,
    /// It was found. These are the names of the tests that failed.
    Failed(Vec<String>),
    TimedOut,
}

/// A copy of the tree.
struct Copy {
    tree: PathBuf,
    target: PathBuf,
}

impl Copy {
    /// Makes the copy in `dir`, or updates it. Unchanged files keep their times, so Cargo builds only what has
    /// changed.
    fn make(dir: PathBuf) -> Result<Self> {
        let copy = Self { tree: dir.join("tree"), target: dir.join("target") };
        let listed = command("git").args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).output();
        let listed = listed.map_err(|error| format!("cannot run git: {error}"))?;
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        let files: BTreeSet<&Path> = listed.split_terminator('\0').map(Path::new).collect();
        for file in &files {
            copy.update(file)?;
        }
        copy.remove_others(&copy.tree, &files)?;
        Ok(copy)
    }

    fn update(&self, file: &Path) -> Result {
        let (from, to) = (root().join(file), self.tree.join(file));
        let fail = |error| format!("cannot copy {} to {}: {error}", from.display(), to.display());
        // Listed but gone: deleted and not yet committed.
        let Ok(wanted) = fs::read(&from) else { return Ok(()) };
        if fs::read(&to).is_ok_and(|found| found == wanted) {
            return Ok(());
        }
        fs::create_dir_all(to.parent().unwrap_or(&self.tree)).map_err(fail)?;
        fs::copy(&from, &to).map_err(fail)?;
        Ok(())
    }

    /// Removes files that the tree no longer has.
    fn remove_others(&self, dir: &Path, files: &BTreeSet<&Path>) -> Result {
        let fail = |error: std::io::Error| format!("cannot clean {}: {error}", dir.display());
        for entry in fs::read_dir(dir).map_err(fail)? {
            let path = entry.map_err(fail)?.path();
            let file = path.strip_prefix(&self.tree).unwrap_or(&path);
            if path.is_dir() {
                self.remove_others(&path, files)?;
            } else if !files.contains(file) || !root().join(file).exists() {
                fs::remove_file(&path).map_err(fail)?;
            }
        }
        Ok(())
    }

    fn git_apply(&self, patch: &Path, reverse: bool) -> Result {
        let mut git = self.command("git");
        git.arg("apply").args(reverse.then_some("--reverse")).arg(patch);
        // Otherwise Git would take the copy as a part of the clone around it.
        run_command(git.env("GIT_CEILING_DIRECTORIES", self.tree.parent().unwrap_or(&self.tree)))
    }

    fn test(&self, test: &[String]) -> Result<Verdict> {
        // Build it first: a defect that does not compile says nothing about the tests.
        run_command(self.test_command(test, Some("--no-run")).env("CARGO_TERM_QUIET", "true"))?;
        let mut run = self.test_command(test, None);
        run.stderr(Stdio::null());
        let mut run = Background::start(&mut run)?;
        let deadline = Instant::now() + TEST_TIME_MAX;
        let mut failed = BTreeSet::new();
        while let Some(line) = run.line(deadline) {
            let name = line.strip_prefix("test ").and_then(|line| line.strip_suffix(" ... FAILED"));
            failed.extend(name.map(str::to_owned));
        }
        match run.succeeds(deadline) {
            None => Ok(Verdict::TimedOut),
            Some(true) => Ok(Verdict::Passed),
            Some(false) => Ok(Verdict::Failed(failed.into_iter().collect())),
        }
    }

    /// A test command with one more Cargo option.
    fn test_command(&self, test: &[String], option: Option<&str>) -> Command {
        let end = test.iter().position(|word| word == "--").unwrap_or(test.len());
        let mut command = self.command(&test[0]);
        command.args(&test[1..end]).args(option).args(&test[end..]);
        command
    }

    fn command(&self, program: &str) -> Command {
        let mut command = command(program);
        command.current_dir(&self.tree).env("CARGO_TARGET_DIR", &self.target);
        command
    }
}
