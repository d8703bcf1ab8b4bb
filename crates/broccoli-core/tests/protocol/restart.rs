//! Time options continue correctly after the restart of their origin.

use std::collections::BTreeMap;

use broccoli_core::{Action, Input, Instant, Node, RecordKey, RunId};
use broccoli_proto::message::Failure;
use broccoli_proto::{Canvas, Cbor, Options};
use broccoli_sim::cluster::{Cluster, Spec, functions};

use crate::{add, durable_node, one, sleep};

const NOON: u64 = 1_800_000_000_000;
/// After a restart, longest time to wait for tasks that workers still hold.
const ADOPTED_MS: u64 = 3_000;

type Ended = (RunId, Result<Cbor, Failure>);

/// A durable node that runs its tasks itself. Time continues while it is off.
struct Durable {
    node: Node,
    knows_time: bool,
    /// The time of day at its start, as Unix time in milliseconds.
    clock: u64,
    now_ms: u64,
    boots: u8,
    disk: BTreeMap<RecordKey, Vec<u8>>,
    running: BTreeMap<u64, Vec<Ended>>,
    /// Start times of the functions.
    starts: Vec<(u64, String)>,
}

impl Durable {
    fn new(knows_time: bool) -> Durable {
        let (disk, running, starts) = Default::default();
        let mut durable = Durable {
            node: durable_node(1, Instant(0)),
            knows_time,
            clock: NOON,
            now_ms: 0,
            boots: 0,
            disk,
            running,
            starts,
        };
        durable.restart(0);
        durable
    }

    /// The power is off for this time.
    fn restart(&mut self, off_ms: u64) {
        self.now_ms += off_ms;
        self.boots += 1;
        self.node = durable_node(self.boots, Instant(0));
        self.running.clear();
        self.tell_time();
        let records = self.disk.clone().into_iter();
        let recovery = self.node.recover(self.now(), records).expect("the same version");
        assert_eq!(recovery.damaged, []);
        self.node.handle_input(self.now(), Input::Connected);
        self.drain();
    }

    fn now(&self) -> Instant {
        // The clock of each incarnation starts at a different value.
        Instant((self.now_ms + 1_000 * u64::from(self.boots)) * 1_000)
    }

    fn tell_time(&mut self) {
        if self.knows_time {
            self.node.handle_input(self.now(), Input::WallClock { unix_ms: self.clock + self.now_ms });
        }
    }

    fn submit(&mut self, canvas: &Canvas) {
        self.node.submit(self.now(), canvas).expect("accepted");
        self.drain();
    }

    fn run_until(&mut self, until_ms: u64) {
        while self.now_ms < until_ms {
            self.now_ms += 1;
            for (run, outcome) in self.running.remove(&self.now_ms).unwrap_or_default() {
                self.node.handle_input(self.now(), Input::Executed { run, outcome });
            }
            self.node.handle_input(self.now(), Input::Timeout);
            self.drain();
        }
    }

    fn drain(&mut self) {
        loop {
            while self.node.poll_transmit(self.now(), &mut Vec::new()).is_some() {}
            match self.node.poll_action() {
                None => break,
                Some(Action::Persist { number, writes }) => {
                    crate::write_to(&mut self.disk, writes);
                    self.node.handle_input(self.now(), Input::Persisted(number));
                }
                Some(Action::Execute(execute)) => {
                    let before = self.starts.iter().filter(|(_, name)| *name == execute.function.name).count();
                    let (took, outcome) = functions::call(&execute, 0, before);
                    self.starts.push((self.now_ms, execute.function.name.clone()));
                    let at = self.now_ms + 1 + took.as_millis() as u64;
                    self.running.entry(at).or_default().push((execute.run, outcome));
                }
                Some(_) => {}
            }
        }
        self.node.validate();
    }

    /// The records of the only job.
    fn text(&self) -> String {
        let values = self.disk.iter().filter(|(key, _)| key.job > 0).map(|(_, value)| value.as_slice());
        values.map(String::from_utf8_lossy).collect()
    }

    fn starts_at(&self) -> Vec<u64> {
        self.starts.iter().map(|(at, _)| *at).collect()
    }

    fn is_over(&self) -> bool {
        self.node.vitals().jobs == 0
    }
}

fn with(mut canvas: Canvas, options: Options) -> Canvas {
    canvas.options = options;
    canvas
}

fn countdown(ms: u64) -> Options {
    Options { countdown_ms: Some(ms), ..Options::default() }
}

fn assert_near(found: u64, expected: u64) {
    assert!((expected..expected + 20).contains(&found), "{found} ms, not {expected}");
}

#[test]
fn a_countdown_goes_on_while_its_origin_is_off() {
    let mut durable = Durable::new(true);
    durable.submit(&with(add(1, 1), countdown(20_000)));
    durable.run_until(5_000);
    for _ in 0..3 {
        durable.restart(2_000);
        durable.run_until(durable.now_ms + 1_000);
    }
    durable.run_until(30_000);
    assert_eq!(durable.starts.len(), 1);
    assert_near(durable.starts[0].0, 20_000);
    assert!(durable.is_over());
}

#[test]
fn a_clock_that_was_set_back_makes_no_pause_longer_than_it_was() {
    let mut durable = Durable::new(true);
    durable.submit(&with(add(1, 1), countdown(20_000)));
    durable.run_until(5_000);
    durable.clock -= 86_400_000;
    durable.restart(2_000);
    durable.run_until(40_000);
    assert_near(durable.starts[0].0, 27_000);
    assert!(durable.is_over());
}

#[test]
fn what_was_due_while_its_origin_was_off_starts_when_it_is_back() {
    for options in [countdown(10_000), Options { eta_unix_ms: Some(NOON + 10_000), ..Options::default() }] {
        let mut durable = Durable::new(true);
        durable.submit(&with(add(1, 1), options));
        durable.run_until(1_000);
        durable.restart(60_000);
        durable.run_until(61_000 + ADOPTED_MS);
        assert!(durable.starts_at().iter().all(|at| *at >= 61_000) && durable.is_over(), "{:?}", durable.starts);
        assert_eq!(durable.starts.len(), 1);
    }
}

#[test]
fn an_eta_holds_over_restarts() {
    let mut durable = Durable::new(true);
    durable.submit(&with(add(1, 1), Options { eta_unix_ms: Some(NOON + 15_000), ..Options::default() }));
    durable.run_until(2_000);
    durable.restart(5_000);
    durable.run_until(20_000);
    assert_eq!(durable.starts.len(), 1);
    assert_near(durable.starts[0].0, 15_000);
}

#[test]
fn the_pause_before_a_retry_goes_on_and_failures_are_not_forgotten() {
    let mut durable = Durable::new(true);
    durable.submit(&Canvas::task("asks", Cbor::encode(&(100, 10_000))));
    for at in [4_000, 14_000, 24_000] {
        durable.run_until(at);
        durable.restart(3_000);
    }
    durable.run_until(60_000);
    assert!(durable.is_over());
    let starts = durable.starts_at();
    assert_eq!(starts.len(), 4, "three retries, however often it was restarted: {starts:?}");
    starts.windows(2).for_each(|pair| assert_near(pair[1] - pair[0], 10_000));
    assert!(durable.text().contains("busy; gave up after 4 tries"));
}

#[test]
fn what_has_expired_while_its_origin_was_off_never_starts() {
    let mut durable = Durable::new(true);
    durable.submit(&with(add(1, 1), Options { expires_ms: Some(30_000), ..countdown(20_000) }));
    durable.run_until(1_000);
    durable.restart(60_000);
    durable.run_until(61_000 + ADOPTED_MS);
    assert!(durable.is_over() && durable.starts.is_empty(), "{:?}", durable.starts);
    assert!(durable.text().contains("expired: it waited longer than its 30000 ms"));
}

#[test]
fn expires_counts_from_the_first_acceptance() {
    let mut durable = Durable::new(true);
    let mut nowhere = with(add(1, 1), Options { expires_ms: Some(30_000), ..Options::default() });
    nowhere.options.on = vec!["led".into()];
    durable.submit(&nowhere);
    durable.run_until(10_000);
    durable.restart(10_000);
    durable.run_until(29_900);
    assert!(!durable.is_over());
    durable.run_until(30_100);
    assert!(durable.is_over());
}

#[test]
fn without_the_time_of_day_a_countdown_begins_anew_and_retries_are_counted() {
    let mut durable = Durable::new(false);
    durable.submit(&with(one("flaky", 1), Options { retries: Some(1), ..countdown(10_000) }));
    durable.run_until(4_000);
    durable.restart(3_000);
    durable.run_until(20_000);
    assert_near(durable.starts[0].0, 17_000);
    assert!(durable.is_over());

    let mut durable = Durable::new(false);
    let retries = Options { retries: Some(1), backoff_ms: Some(10_000), jitter: Some(false), ..countdown(1_000) };
    durable.submit(&with(one("flaky", 5), retries));
    durable.run_until(4_000);
    durable.restart(1_000);
    durable.run_until(4_000 + 1_000 + ADOPTED_MS);
    assert_eq!(durable.starts.len(), 2, "the pause is forgotten, the failure is not, the countdown was over");
    assert!(durable.is_over() && durable.text().contains("not yet"));
}

#[test]
fn what_has_expired_but_still_runs_is_adopted_and_goes_on() {
    let mut c = Cluster::new(160);
    c.tells_time = true;
    c.add(Spec::new("origin", 0).durable());
    c.add(Spec::worker("w1", 1));
    c.run_for(300);
    let options = Options { expires_ms: Some(2_000), ..Options::default() };
    c.submit(0, &Canvas::group(vec![with(sleep(10_000), options.clone()), with(sleep(10_001), options)]));
    c.run_for(1_000);
    c.kill(0, true);
    c.run_for(3_000);
    c.restart(0);
    c.run_for(12_000);
    assert_eq!(c.runs.len(), 1, "the other one has expired");
    assert!(c.runs[0].ended && !c.runs[0].aborted, "{:?}", c.runs);
    assert_eq!(c.node(0).vitals().jobs, 0);
}
