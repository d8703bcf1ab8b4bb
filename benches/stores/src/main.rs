//! Compares embedded stores with the workload of a journal. `stores STORE DIR` runs everything in DIR and prints the
//! results, which are in docs/stores.md. Each workload runs in its own process.

#![forbid(unsafe_code)]

mod damage;
mod probe;
mod store;
mod stores;
mod work;

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use store::{Result, Store};

const USAGE: &str =
    "usage: stores log|fjall|redb|sqlite DIR [speed|recovery|damage]   (DIR: new, on the disk to measure)";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[&str]) -> Result<()> {
    match args.first() {
        Some(&"log") => run_store::<stores::Log>(args),
        #[cfg(feature = "fjall")]
        Some(&"fjall") => run_store::<stores::Fjall>(args),
        #[cfg(feature = "redb")]
        Some(&"redb") => run_store::<stores::Redb>(args),
        #[cfg(feature = "sqlite")]
        Some(&"sqlite") => run_store::<stores::Sqlite>(args),
        _ => Err(USAGE.into()),
    }
}

fn run_store<S: Store>(args: &[&str]) -> Result<()> {
    let [store, dir, rest @ ..] = args else { return Err(USAGE.into()) };
    let dir = Path::new(dir);
    match rest {
        [] => speed(store, dir).and_then(|()| recovery(store, dir)).and_then(|()| damage::run(store, dir)),
        ["speed"] => speed(store, dir),
        ["recovery"] => recovery(store, dir),
        ["damage"] => damage::run(store, dir),
        ["lone"] => work::lone::<S>(dir),
        ["submits"] => work::submits::<S>(dir),
        ["life"] => work::life::<S>(dir),
        ["outcomes"] => work::outcomes::<S>(dir),
        ["load", kind] => work::load::<S>(dir, *kind == "single"),
        ["recover"] => work::recover::<S>(dir),
        ["crash", jobs] => work::crash::<S>(dir, jobs.parse()?),
        ["verify", safe] => work::verify::<S>(dir, Path::new(safe)),
        _ => Err(USAGE.into()),
    }
}

fn speed(store: &str, dir: &Path) -> Result<()> {
    for work in ["lone", "submits", "life", "outcomes"] {
        let dir = fresh(&dir.join(store).join(work))?;
        print!("{store} {work}: ");
        child(store, &dir, &[work])?;
        fs::remove_dir_all(dir)?;
    }
    Ok(())
}

fn recovery(store: &str, dir: &Path) -> Result<()> {
    for kind in ["large", "single"] {
        let dir = fresh(&dir.join(store).join(kind))?;
        print!("{store} {kind}: ");
        child(store, &dir, &["load", kind])?;
        probe::evict(&dir)?;
        for state in ["killed, cold", "closed, warm"] {
            print!("{store} {kind}, {state}: ");
            child(store, &dir, &["recover"])?;
        }
        fs::remove_dir_all(dir)?;
    }
    Ok(())
}

/// Runs one workload in its own process, which prints its line.
fn child(store: &str, dir: &Path, work: &[&str]) -> Result<()> {
    std::io::Write::flush(&mut std::io::stdout())?;
    match program(store, dir, work)?.status()?.success() {
        true => Ok(()),
        false => Err(format!("{store} {work:?} failed").into()),
    }
}

fn program(store: &str, dir: &Path, work: &[&str]) -> Result<Command> {
    let mut program = Command::new(std::env::current_exe()?);
    program.arg(store).arg(dir).args(work);
    Ok(program)
}

fn fresh(dir: &Path) -> Result<std::path::PathBuf> {
    if dir.exists() {
        fs::remove_dir_all(dir)?;
    }
    fs::create_dir_all(dir)?;
    Ok(dir.to_path_buf())
}
