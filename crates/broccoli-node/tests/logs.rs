//! The log events of a node, and the single line about a panic of a native function.

#![allow(clippy::unwrap_used)]

use std::fmt::{self, Write as _};
use std::process::Command;
use std::sync::{Arc, Mutex};

use broccoli_node::mqtt::ServerUrl;
use broccoli_node::{Canvas, Cbor};
use broccoli_node::{Cluster, JobError, NodeHandle};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Set for the child process whose stderr a test reads.
const CHILD: &str = "BROCCOLI_TEST_CHILD";

/// A node that runs its own jobs; its server does not answer.
fn node() -> NodeHandle {
    let (cluster, _) = Cluster::generate().unwrap();
    let builder = NodeHandle::builder().cluster(cluster).server(ServerUrl::new("127.0.0.1", 9)).slots(1);
    let builder = builder.name("alone".parse().unwrap());
    let builder = builder.function("boom", |n: i64| if n > 6 { panic!("{n} is\ntoo much") } else { n });
    builder.function("add", |x: i64, y: i64| x + y).start().unwrap()
}

async fn panics(node: &NodeHandle) {
    let mut job = node.submit(Canvas::task("boom", Cbor::encode(&[7])));
    let Err(JobError::Failed(error)) = job.result().await else { panic!("it panics") };
    assert_eq!(error.to_string(), "native.boom: panic: 7 is\ntoo much (step 0, attempt 1 on alone)");
}

/// Run by the test below, in its own process.
#[tokio::test]
async fn child() {
    if std::env::var_os(CHILD).is_some() {
        let node = node();
        panics(&node).await;
        // A panic outside of a task is reported as usual.
        assert!(std::thread::spawn(|| panic!("of the program")).join().is_err());
    }
}

#[test]
fn a_panic_of_a_task_is_one_line_of_a_program_that_logs_nothing() {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture"]).env(CHILD, "1").env_remove("RUST_BACKTRACE");
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    let lines: Vec<&str> = stderr.lines().filter(|line| !line.is_empty()).collect();
    let (task, rest) = lines.split_first().expect("something");
    assert!(task.starts_with("task native.boom (job alone/"), "{stderr}");
    assert!(task.contains(", step 0, attempt 1) panicked at "), "{stderr}");
    assert!(task.contains("logs.rs:") && task.ends_with(r": 7 is\ntoo much"), "{stderr}");
    assert!(rest[0].contains("panicked at") && rest[1] == "of the program", "{stderr}");
    assert!(!rest.iter().any(|line| line.contains("too much")), "{stderr}");
}

/// Collects the lines of this thread's nodes.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        write!(self.0, " {}={value:?}", field.name()).unwrap();
    }
}

impl Subscriber for Lines {
    fn enabled(&self, about: &Metadata<'_>) -> bool {
        about.target().starts_with("broccoli::") && *about.level() <= tracing::Level::INFO
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(format!("{} {}", event.metadata().level(), event.metadata().target()));
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// Run by the test below, in its own process, because a subscriber is for all threads.
#[tokio::test]
async fn child_that_logs() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let lines = Lines::default();
    tracing::subscriber::set_global_default(lines.clone()).unwrap();
    let node = node();
    assert_eq!(node.submit(Canvas::task("add", Cbor::encode(&(1, 2)))).get::<i64>().await.unwrap(), 3);
    panics(&node).await;
    assert_eq!(node.counters().await.unwrap().jobs_failed, 1);
    let told = lines.0.lock().unwrap().clone();
    let of = |target: &str| told.iter().filter(|line| line.contains(target)).collect::<Vec<_>>();
    let [succeeded, failed] = of("broccoli::job")[..] else { panic!("{told:#?}") };
    assert!(succeeded.starts_with("INFO broccoli::job message=job succeeded node=alone job=alone/"), "{succeeded}");
    assert!(succeeded.contains(" function=\"native.add\" took_ms="), "{succeeded}");
    assert!(failed.starts_with("WARN broccoli::job message=job failed node=alone"), "{failed}");
    let [task] = of("broccoli::task")[..] else { panic!("{told:#?}") };
    assert!(task.starts_with("WARN broccoli::task message=task failed node=alone peer=alone job=alone/"), "{task}");
    let rest = " step=0 attempt=1 function=\"native.boom\" cause=Crashed error=\"panic: 7 is\\ntoo much\"";
    assert!(task.ends_with(rest), "{task}");
}

#[test]
fn a_program_that_logs_gets_each_job_and_each_failed_task_once_and_no_report_of_the_panic() {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.args(["--exact", "child_that_logs", "--nocapture"]).env(CHILD, "1").output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    assert!(!stderr.contains("too much"), "{stderr}");
}
