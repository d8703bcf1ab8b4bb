//! `broccoli demo`: shows everything on this machine, in a temporary cluster.
//!
//! The MQTT server and the client run in this process, the three nodes are separate processes. The demo writes nothing
//! to disk and leaves nothing behind: the nodes shut down when this process ends, for whatever reason.

use crate::exit::Failure;

/// Runs the demo.
///
/// # Errors
/// If a part of it cannot start, or a result is wrong.
#[cfg(feature = "embedded-server")]
pub(crate) async fn run() -> Result<(), Failure> {
    show::run().await
}

/// Reports that the MQTT server is missing.
///
/// # Errors
/// Always.
#[cfg(not(feature = "embedded-server"))]
pub(crate) async fn run() -> Result<(), Failure> {
    Err(Failure::usage("the demo needs an MQTT server, but this program was built without one"))
}

#[cfg(feature = "embedded-server")]
#[path = "../../data/seed.rs"]
// Tests read the field that is not shown here.
#[allow(dead_code)]
mod seed;

#[cfg(feature = "embedded-server")]
mod show {
    use std::process::Stdio;
    use std::time::{Duration, Instant};

    use broccoli_node::mqtt::ServerUrl;
    use broccoli_node::{Cluster, DeployKey, SubmitOptions};
    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
    use tokio::process::{Child, Command};
    use tokio::time::timeout;

    use super::seed;
    use crate::commands::{deploy, wordcount};
    use crate::connect::{Session, interruptible};
    use crate::exit::Failure;
    use crate::output::{self, print, print_headed};
    use crate::{jobs, server};

    const NODES: usize = 3;
    const TEXT: &str = include_str!("../../data/fables-2190-words.txt");
    /// Maximum time for a node to start, and to shut down.
    const START_MAX: Duration = Duration::from_secs(10);
    const LEAVE_MAX: Duration = Duration::from_secs(3);
    /// Maximum number of characters of a canvas or a result in a line.
    const SHOWN_CHARS: usize = 72;
    /// Number of words in the output.
    const SHOWN_WORDS: usize = 6;

    pub(super) async fn run() -> Result<(), Failure> {
        let started = Instant::now();
        let (cluster, key) = Cluster::generate().map_err(Failure::failed)?;
        let server = server::start(&cluster, ([127, 0, 0, 1], 0).into(), server::CLIENTS_MAX).await?;
        let addr = server.local_addr();
        let url = ServerUrl::new(addr.ip().to_string(), addr.port());
        let mut nodes = Vec::new();
        let shown = interruptible(show(&cluster, &key, &url, &mut nodes, started)).await;
        leave(nodes).await;
        server.stop().await;
        shown
    }

    async fn show(
        cluster: &Cluster,
        key: &DeployKey,
        url: &ServerUrl,
        nodes: &mut Vec<Child>,
        started: Instant,
    ) -> Result<(), Failure> {
        start_nodes(cluster, url, nodes).await?;
        line("cluster", &format!("an MQTT server on {url} and {NODES} nodes"), started)?;
        let mut session = Session::open(cluster.clone(), url.clone()).await?;
        let begun = Instant::now();
        let deployed = deploy::deploy(&session, &deploy::examples(), key, START_MAX).await?;
        line("deploy", &deployed, begun)?;
        for example in seed::examples().iter().filter(|example| !example.name.contains("only built")) {
            run_example(&mut session, example).await?;
        }
        count_words(&mut session).await?;
        session.close().await;
        print(format_args!("\nAll of this took {}. To start your own cluster:", took(started.elapsed())))?;
        print("  broccoli up                   starts it, and prints how other machines join")?;
        print("  broccoli deploy --examples    or your own functions: broccoli new DIR")?;
        print("  broccoli run \"add.s(2, 2)\"    or any canvas from above")
    }

    /// Starts the processes, then waits until all of them are ready.
    async fn start_nodes(cluster: &Cluster, url: &ServerUrl, nodes: &mut Vec<Child>) -> Result<(), Failure> {
        let failed = |error| Failure::failed(format_args!("cannot start a node: {error}"));
        let program = std::env::current_exe().map_err(failed)?;
        let token = format!("{}\n", cluster.token(url));
        for number in 1..=NODES {
            let mut command = Command::new(&program);
            command.args(["node", "--join", "-", "--attended", "--slots", "1", "--name", &format!("demo-{number}")]);
            // Their log lines would appear between the lines of the demo.
            command.env("BROCCOLI_LOG", "off");
            command.env_remove("BROCCOLI_SERVER").stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
            let mut node = command.spawn().map_err(failed)?;
            if let Some(stdin) = &mut node.stdin {
                stdin.write_all(token.as_bytes()).await.map_err(failed)?;
            }
            nodes.push(node);
        }
        for node in nodes {
            timeout(START_MAX, ready(node)).await.map_err(|_| Failure::timed_out("a node did not start in time"))??;
        }
        Ok(())
    }

    async fn ready(node: &mut Child) -> Result<(), Failure> {
        let not_ready = || Failure::failed("a node ended before it was ready");
        let mut lines = BufReader::new(node.stdout.take().ok_or_else(not_ready)?).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if line.starts_with("ready") {
                return Ok(());
            }
        }
        Err(not_ready())
    }

    async fn run_example(session: &mut Session, example: &seed::Example) -> Result<(), Failure> {
        let program = broccoli_text::parse(example.source).map_err(Failure::failed)?;
        let begun = Instant::now();
        jobs::check(session, &program.canvas).await?;
        let result = jobs::result(session, program.canvas, SubmitOptions::default(), program.wait).await?;
        let result = jobs::as_json(&result)?;
        line("run", &shorten(&written(example.source)), begun)?;
        print(format_args!("         → {}", shorten(&result)))?;
        if result != example.result {
            return Err(Failure::failed(format_args!("{} must return {}", example.name, example.result)));
        }
        Ok(())
    }

    /// The code of an example on one line, without the prompts and the output of a Python session.
    fn written(source: &'static str) -> String {
        let has_prompts = source.contains(">>>");
        let code = |line: &'static str| if has_prompts { line.strip_prefix(">>>") } else { Some(line) };
        let is_code = |line: &&str| !line.is_empty() && !line.starts_with('#');
        let code: Vec<&str> = source.lines().filter_map(code).map(str::trim).filter(is_code).collect();
        code.join("; ")
    }

    async fn count_words(session: &mut Session) -> Result<(), Failure> {
        let words = wordcount::words(TEXT);
        let begun = Instant::now();
        let counts = wordcount::count(session, &words, None).await?;
        line("words", &format!("{} words of Aesop's fables, one task for each", words.len()), begun)?;
        let most: Vec<String> = counts.iter().take(SHOWN_WORDS).map(|(word, n)| format!("{word} {n}")).collect();
        print(format_args!("         → {}, …", most.join(", ")))
    }

    fn line(step: &str, what: &str, begun: Instant) -> Result<(), Failure> {
        let fill = " ".repeat((SHOWN_CHARS + 2).saturating_sub(what.chars().count()));
        print_headed(&format!("{step:8}"), &format!("{what}{fill}{:>9}", took(begun.elapsed())))
    }

    fn shorten(text: &str) -> String {
        if text.chars().count() <= SHOWN_CHARS {
            return text.to_owned();
        }
        text.chars().take(SHOWN_CHARS - 1).chain(['…']).collect()
    }

    /// A duration as text: `0.8 ms`, `1.25 s`.
    fn took(time: Duration) -> String {
        let ms = time.as_secs_f64() * 1_000.0;
        if ms < 1_000.0 { format!("{ms:.1} ms") } else { format!("{:.2} s", ms / 1_000.0) }
    }

    /// Shuts the nodes down: they stop when their standard input ends.
    async fn leave(nodes: Vec<Child>) {
        for mut node in nodes {
            drop(node.stdin.take());
            if timeout(LEAVE_MAX, node.wait()).await.is_err() {
                output::note("a node of the demo did not stop in time: killing it");
                // It may have ended just now.
                let _ = node.kill().await;
            }
        }
    }
}
