//! `cargo xtask chaos`: kills, stops, cuts off and fills up real processes on the loopback interface, with both MQTT
//! servers.
//!
//! This module has the table: what was measured, and whether it is within the bars. The modules below make the
//! faults. It never ends a process that it has not started.

pub(crate) mod cluster;
mod disk;
mod marks;
mod proxy;
mod scenarios;

use std::fmt::Write;
use std::fs;
use std::time::Instant;

use cluster::{Programs, Server};
use scenarios::{Row, SCENARIOS, Scenario};

use crate::{Result, in_root};

/// The file for the table of a whole run.
const REPORT: &str = "docs/chaos.md";

/// What to play.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Choice {
    servers: Vec<Server>,
    names: Vec<&'static str>,
}

/// Plays all scenarios, or those that `args` name, and shows the table; a whole run writes the report.
///
/// # Errors
/// A bar is missed, a scenario could not be played, or an argument is wrong.
pub(crate) fn run(args: &[String]) -> Result {
    if args == ["--short"] {
        return run_short();
    }
    let (choice, built) = match args.split_first() {
        Some((first, rest)) if first == "--built" => (choose(rest)?, true),
        _ => (choose(args)?, false),
    };
    let programs = if built { Programs::built(true) } else { Programs::build(true) }?;
    let played = play(&programs, &choice);
    let table = table(&played);
    println!("\n{table}");
    if choice == choose(&[])? {
        let path = in_root(REPORT);
        let text = format!("{}\n{table}", REPORT_HEAD.trim_start());
        fs::write(&path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    verdict(&played)
}

/// Plays the most important scenarios on the embedded server, with the programs that tests have built.
///
/// # Errors
/// As for [`run`].
pub(crate) fn run_short() -> Result {
    let names = vec!["kill-worker", "kill-server", "kill-origin"];
    let played = play(&Programs::build(false)?, &Choice { servers: vec![Server::Embedded], names });
    println!("\n{}", table(&played));
    verdict(&played)
}

fn choose(args: &[String]) -> Result<Choice> {
    let mut choice = Choice { servers: Server::ALL.to_vec(), names: Vec::new() };
    for pair in args.chunks(2) {
        match pair {
            [option, name] if option == "--server" => choice.servers = servers(name)?,
            [option, name] if option == "--only" => choice.names.push(scenario(name)?),
            _ => return Err(format!("unknown argument {}: {USAGE}", pair[0])),
        }
    }
    if choice.names.is_empty() {
        choice.names = SCENARIOS.iter().map(|scenario| scenario.name).collect();
    }
    Ok(choice)
}

const USAGE: &str = "cargo xtask chaos --short | [--built] [--server embedded|mosquitto|both] [--only NAME]...";

fn servers(name: &str) -> Result<Vec<Server>> {
    match name {
        "both" => Ok(Server::ALL.to_vec()),
        name => {
            let server = Server::ALL.into_iter().find(|server| server.name() == name);
            Ok(vec![server.ok_or_else(|| format!("no server is called {name}: {USAGE}"))?])
        }
    }
}

fn scenario(name: &str) -> Result<&'static str> {
    let found = SCENARIOS.iter().map(|scenario| scenario.name).find(|known| *known == name);
    found.ok_or_else(|| {
        let names: Vec<_> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        format!("no scenario is called {name}; there are {}", names.join(", "))
    })
}

/// A scenario on a server, and its result.
struct Played {
    scenario: &'static Scenario,
    server: Server,
    row: Result<Row>,
}

impl Played {
    /// What is wrong with it, if anything.
    fn misses(&self) -> Vec<String> {
        match &self.row {
            Ok(row) => self.scenario.misses(row),
            Err(error) => vec![error.clone()],
        }
    }
}

fn play(programs: &Programs, choice: &Choice) -> Vec<Played> {
    let chosen = SCENARIOS.iter().filter(|scenario| choice.names.contains(&scenario.name));
    let mut played = Vec::new();
    for scenario in chosen {
        for &server in choice.servers.iter().filter(|server| scenario.servers.contains(server)) {
            let start = Instant::now();
            let row = scenario.play(programs, server);
            let row = Played { scenario, server, row };
            let misses = row.misses();
            let outcome = if misses.is_empty() { "holds".to_owned() } else { misses.join("; ") };
            let took = start.elapsed().as_secs_f32();
            println!("{} on {}: {outcome} ({took:.1} s)", scenario.name, server.name());
            played.push(row);
        }
    }
    played
}

fn verdict(played: &[Played]) -> Result {
    let missed = played.iter().filter(|played| !played.misses().is_empty());
    let missed: Vec<_> = missed
        .map(|played| format!("  {} on {}: {}", played.scenario.name, played.server.name(), played.misses().join("; ")))
        .collect();
    if missed.is_empty() { Ok(()) } else { Err(format!("FAILED:\n{}", missed.join("\n"))) }
}

/// The rows as a table in Markdown.
fn table(played: &[Played]) -> String {
    let mut table = String::from(TABLE_HEAD);
    for Played { scenario, server, row } in played {
        let start = format!("| {} | {} |", scenario.title, server.name());
        let line = match row {
            Err(error) => format!("{start} | | | | | | **{error}** |"),
            Ok(row) => {
                let bars = &scenario.bars;
                let seconds = |seen: Option<f64>, max: Option<f64>| match (seen, max) {
                    (None, _) => "–".to_owned(),
                    (Some(seen), None) => format!("{seen:.2}"),
                    (Some(seen), Some(max)) => format!("{seen:.2} (≤ {max})"),
                };
                let Row { tasks, lost, wrong, repeated, .. } = row;
                let (recovered, pause) =
                    (seconds(row.recovered_s, bars.recovered_s_max), seconds(row.pause_s, bars.pause_s_max));
                let misses = scenario.misses(row);
                let last =
                    if misses.is_empty() { row.note.clone() } else { format!("**missed:** {}", misses.join("; ")) };
                let repeated_max = bars.repeated_max;
                format!(
                    "{start} {tasks} | {lost} | {wrong} | {repeated} (≤ {repeated_max}) | {recovered} | {pause} | {last} |"
                )
            }
        };
        // Writing to a String cannot fail.
        let _ = writeln!(table, "{line}");
    }
    table
}

const TABLE_HEAD: &str = "\
| what happens in the middle of a job | MQTT server | tasks | lost | wrong | repeated | runs again after, s | others pause, s | |
|---|---|---:|---:|---:|---:|---:|---:|---|
";

const REPORT_HEAD: &str = "
# Chaos on real processes

`cargo xtask chaos` starts a cluster of real processes on this machine, each worker behind a cable of its own (a TCP relay), runs a
group of tasks of 5 ms on two workers with one slot each, and breaks something when 40 % are done. It writes this file, and fails if
a bar is missed. The bars stand in parentheses.

- **lost**: tasks that never ran to an end. **wrong**: results of the job that are not what they must be.
- **repeated**: runs beyond the first of each task, counted by the workers themselves. At most the slots that died.
- **runs again after**: for a fault of a worker, from the fault until the last task that it held up has started elsewhere; for
  a server or an origin, from its return until every worker has started a task again.
- **others pause**: the longest time between two starts of tasks on the worker that nothing was done to.

The bar for the first row is set by Celery on RabbitMQ with `acks_late`: it loses 0 and repeats 1, and nothing waits.
";

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(args: &[&str]) -> Result<Choice> {
        choose(&args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn arguments_choose_servers_and_scenarios() {
        let some = choice(&["--server", "mosquitto", "--only", "cut"]).expect("right arguments");
        assert_eq!(some, Choice { servers: vec![Server::Mosquitto], names: vec!["cut"] });
        assert_eq!(choice(&[]).map(|all| all.names.len()), Ok(SCENARIOS.len()));
        assert!(choice(&["--only", "peace"]).is_err_and(|error| error.contains("kill-worker")));
        assert!(choice(&["--server"]).is_err());
    }

    #[test]
    fn a_row_that_misses_its_bar_fails_the_run() {
        let row = Row {
            tasks: 2_000,
            lost: 1,
            wrong: 0,
            repeated: 0,
            recovered_s: Some(1.0),
            pause_s: Some(0.1),
            note: String::new(),
        };
        let played = [Played { scenario: &SCENARIOS[0], server: Server::Embedded, row: Ok(row) }];
        assert_eq!(verdict(&played), Err("FAILED:\n  kill-worker on embedded: 1 tasks lost, at most 0".into()));
        assert!(
            table(&played).contains("| 2000 | 1 | 0 | 0 (≤ 1) | 1.00 (≤ 3) | 0.10 (≤ 0.6) | **missed:** 1 tasks lost")
        );
    }
}
