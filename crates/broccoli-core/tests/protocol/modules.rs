//! Modules that are deployed over the network.

use broccoli_core::Event;
use broccoli_proto::message::{ContentRequest, Message};
use broccoli_proto::module::{CHUNK_BYTES, SignedManifest};
use broccoli_proto::packet::Address;
use broccoli_proto::{Canvas, Cbor, ContentId};

use crate::cluster::{Cluster, Id, Spec, module, open, tombstone};
use crate::{none, sleep};

fn cluster(seed: u64, workers: usize) -> Cluster {
    let mut specs = vec![Spec::new("origin", 0)];
    specs.extend((1..=workers).map(|i| Spec::worker(&format!("w{i}"), 1)));
    Cluster::started(seed, specs)
}

fn version_on(c: &mut Cluster, node: &str) -> Option<u64> {
    let mut canvas = none("app.version");
    canvas.options.on = vec![node.into()];
    let job = c.submit(0, &canvas);
    c.wait(0, job, 5_000).expect("a version").decode()
}

fn refusals(c: &Cluster, id: Id) -> Vec<(String, String)> {
    let refused = |event: &Event| match event {
        Event::ModuleRefused { by, reason, .. } => Some((by.to_string(), reason.clone())),
        _ => None,
    };
    c.events(id).filter_map(refused).collect()
}

#[test]
fn a_deployed_module_spreads_to_all_within_a_second() {
    let mut c = cluster(50, 3);
    let deployer = c.add(Spec { native: false, resident: false, ..Spec::new("deployer", 0) });
    c.run_for(300);
    let (signed, code) = module(1, true);
    c.deploy(deployer, &signed, &code);
    assert!(c.run_until(1_000, |c| (0..4).all(|id| c.holds(id, signed.id))));
    c.run_for(100);
    for node in ["w1", "w2", "w3"] {
        assert_eq!(version_on(&mut c, node), Some(1));
    }
    c.run_for(10_000);
    c.assert_idle();
}

/// Undeploys the module `app` with a newer version, then deploys it again.
#[test]
fn a_module_that_is_taken_away_is_gone_everywhere_when_no_job_needs_it_and_can_come_back() {
    let mut c = cluster(64, 2);
    let (signed, code) = module(1, true);
    c.deploy(0, &signed, &code);
    assert!(c.run_until(2_000, |c| (0..3).all(|id| c.holds(id, signed.id))));
    // A job that was accepted before continues.
    let mut later = none("app.version");
    later.options.countdown_ms = Some(3_000);
    let accepted = c.submit(0, &later);
    let away = tombstone(2);
    c.deploy(1, &away, &[]);
    assert!(c.run_until(2_000, |c| (0..3).all(|id| c.holds(id, away.id))));
    assert!(c.try_submit(0, &none("app.version")).is_err(), "it is not there for new jobs");
    assert!(c.peek(0).function("version").is_err());
    let named = |c: &Cluster, id| c.peek(id).vitals().modules.iter().any(|module| module.name == "app");
    assert!((0..3).all(|id| !named(&c, id)), "nobody shows it");
    assert_eq!([0, 1, 2].map(|id| c.holds(id, signed.id)), [true, false, false], "it is kept for the job only");
    assert_eq!(c.wait(0, accepted, 10_000), Ok(Cbor::encode(&1)));
    assert!(c.run_until(5_000, |c| !c.holds(0, signed.id)), "the job was the last that needed it");
    // A node that was offline during the undeploy does not bring the module back.
    let late = c.add(Spec::worker("late", 1));
    c.deploy(late, &signed, &code);
    c.run_for(3_000);
    assert!(c.holds(late, away.id) && c.peek(0).function("version").is_err());
    let (again, code) = module(3, true);
    c.deploy(2, &again, &code);
    assert!(c.run_until(2_000, |c| (0..3).all(|id| c.holds(id, again.id))));
    assert_eq!(version_on(&mut c, "w1"), Some(3));
}

#[test]
fn a_client_that_holds_no_code_can_call_what_is_deployed() {
    let mut c = cluster(51, 1);
    let client = c.add(Spec::client("client"));
    let (signed, code) = module(1, true);
    c.deploy(0, &signed, &code);
    c.run_for(1_000);
    crate::attach(&mut c, client);
    let node = c.node(client);
    assert_eq!(node.function("version").map(|(name, _)| name), Ok("app.version".into()));
    let job = c.submit_remote(client, &none("version"));
    assert_eq!(c.wait(client, job, 1_000), Ok(Cbor::encode(&1)));
}

#[test]
fn the_deployer_may_go_once_one_node_has_it() {
    let mut c = cluster(52, 3);
    [2, 3].into_iter().for_each(|id| c.cut(id, true));
    let deployer = c.add(Spec { native: false, resident: false, ..Spec::new("deployer", 0) });
    c.run_for(300);
    let (signed, code) = module(1, true);
    c.deploy(deployer, &signed, &code);
    assert!(c.run_until(2_000, |c| c.holds(1, signed.id)));
    c.kill(deployer, true);
    [2, 3].into_iter().for_each(|id| c.heal(id));
    assert!(c.run_until(3_000, |c| (1..4).all(|id| c.holds(id, signed.id))));
}

#[test]
fn the_deployer_may_go_in_the_middle_of_a_pull() {
    let mut c = cluster(53, 2);
    let (signed, code) = module(1, true);
    c.deploy(0, &signed, &code);
    // One node has the module, the other one is still pulling it.
    c.pause(2);
    assert!(c.run_until(2_000, |c| c.holds(1, signed.id)));
    c.kill(0, true);
    c.resume(2);
    assert!(c.run_until(10_000, |c| c.holds(2, signed.id)));
}

#[test]
fn a_late_joiner_and_a_restarted_node_get_it() {
    let mut c = cluster(54, 1);
    let (signed, code) = module(1, true);
    c.deploy(0, &signed, &code);
    c.run_for(1_000);
    let late = c.add(Spec::worker("late", 1));
    assert!(c.run_until(2_000, |c| c.holds(late, signed.id)));
    c.kill(1, true);
    let (newer, code) = module(2, true);
    c.deploy(0, &newer, &code);
    c.run_for(1_000);
    c.restart(1);
    assert!(c.run_until(2_000, |c| c.holds(1, newer.id)));
    assert_eq!(version_on(&mut c, "w1"), Some(2));
}

#[test]
fn corrupt_chunks_are_refused_and_fetched_elsewhere() {
    let mut c = cluster(55, 2);
    let (signed, code) = module(1, true);
    c.deploy(0, &signed, &code);
    c.run_for(1_000);
    c.corrupt_chunks(0, true);
    for number in 0..4 {
        let late = c.add(Spec::worker(&format!("late{number}"), 1));
        assert!(c.run_until(5_000, |c| c.holds(late, signed.id)), "late{number}");
    }
    let told = refusals(&c, 1);
    assert!(told.iter().any(|(_, reason)| reason.contains("does not match its hash")), "{told:?}");
    c.run_for(10_000);
    c.assert_idle();
}

#[test]
fn a_bad_signature_is_refused_and_the_old_version_stays() {
    let mut c = cluster(56, 2);
    let (signed, code) = module(1, true);
    c.deploy(0, &signed, &code);
    c.run_for(1_000);
    let (forged, code) = module(2, false);
    c.deploy(0, &forged, &code);
    c.run_for(2_000);
    let told = refusals(&c, 0);
    assert!(told.iter().any(|(_, reason)| reason.contains("deploy key")), "{told:?}");
    assert!((1..3).all(|id| !c.holds(id, forged.id)));
    assert_eq!(version_on(&mut c, "w1"), Some(1));
    c.run_for(10_000);
    c.assert_idle();
}

#[test]
fn a_failed_install_is_reported_and_the_old_version_stays() {
    let mut c = cluster(57, 2);
    let (signed, code) = module(1, true);
    c.deploy(0, &signed, &code);
    c.run_for(1_000);
    c.fail_installs(1, "imports env.system");
    let (newer, code) = module(2, true);
    c.deploy(0, &newer, &code);
    c.run_for(1_000);
    assert_eq!(refusals(&c, 0), [("w1".to_string(), "imports env.system".to_string())]);
    assert!(!c.holds(1, newer.id) && c.holds(2, newer.id));
    let job = c.submit(0, &Canvas::group((0..10).map(|_| none("app.version")).collect()));
    assert_eq!(c.wait(0, job, 2_000).expect("versions").decode(), Some(vec![2; 10]));
    assert_eq!(c.runs_on(1), 0, "the node without it is left out");
    c.run_for(10_000);
    c.assert_idle();
}

#[test]
fn a_node_without_room_refuses_before_it_has_stored_anything() {
    let mut c = cluster(62, 2);
    let (signed, code) = module(1, true);
    c.deploy(0, &signed, &code);
    c.run_for(1_000);
    c.fill_store(1, "40000 bytes are needed, 100 are free");
    let (newer, code) = module(2, true);
    c.deploy(0, &newer, &code);
    c.run_for(1_000);
    assert_eq!(refusals(&c, 0), [("w1".to_string(), "40000 bytes are needed, 100 are free".to_string())]);
    assert_eq!((c.chunks_of(1, newer.id), c.chunks_of(1, signed.id)), (0, 20));
    assert!(!c.holds(1, newer.id) && c.holds(1, signed.id) && c.holds(2, newer.id));
    c.run_for(10_000);
    c.assert_idle();
}

#[test]
fn new_jobs_use_a_new_version_and_accepted_ones_stay_on_theirs() {
    let mut c = cluster(58, 2);
    let (signed, code) = module(1, true);
    c.deploy(0, &signed, &code);
    c.run_for(1_000);
    let mut later = none("app.version");
    later.immutable();
    let old = c.submit(0, &Canvas::chain(vec![sleep(2_000), later]));
    let (newer, code) = module(2, true);
    c.deploy(0, &newer, &code);
    c.run_for(1_000);
    assert_eq!(version_on(&mut c, "w1"), Some(2));
    assert_eq!(c.wait(0, old, 5_000), Ok(Cbor::encode(&1)));
}

#[test]
fn a_worker_that_lacks_an_older_version_pulls_it_when_a_task_needs_it() {
    let mut c = cluster(59, 1);
    let (signed, code) = module(1, true);
    c.deploy(0, &signed, &code);
    c.run_for(1_000);
    let mut later = none("app.version");
    later.immutable();
    let old = c.submit(0, &Canvas::chain(vec![sleep(3_000), later]));
    let (newer, code) = module(2, true);
    c.deploy(0, &newer, &code);
    c.run_for(1_000);
    let late = c.add(Spec::worker("late", 1));
    assert!(c.run_until(2_000, |c| c.holds(late, newer.id)));
    c.run_for(1_100);
    c.kill(1, true);
    assert!(!c.holds(late, signed.id), "it did not need the older one so far");
    assert_eq!(c.wait(0, old, 10_000), Ok(Cbor::encode(&1)));
    assert_eq!(c.runs.last().map(|run| run.node), Some(late));
}

/// Makes a task immutable (`.si`).
trait Immutable {
    fn immutable(&mut self);
}

impl Immutable for Canvas {
    fn immutable(&mut self) {
        if let broccoli_proto::Form::Task(task) = &mut self.form {
            task.immutable = true;
        }
    }
}

/// Three nodes: two hold a module, and the third has been stopped since before it was deployed. It continues, and packets
/// are counted from here.
fn two_holders_and_a_late_node(seed: u64) -> (Cluster, SignedManifest) {
    let mut c = cluster(seed, 2);
    let (signed, code) = module(1, true);
    c.pause(2);
    c.deploy(0, &signed, &code);
    assert!(c.run_until(2_000, |c| c.holds(1, signed.id)));
    c.count_from_here();
    c.resume(2);
    (c, signed)
}

#[test]
fn a_pull_that_nobody_can_serve_asks_ever_less_often_and_goes_on_once_somebody_can() {
    let (mut c, signed) = two_holders_and_a_late_node(61);
    let asked = |c: &Cluster| c.packets_with(|message| matches!(message, Message::ContentRequest(_)));
    assert!(c.run_until(2_000, |c| asked(c) > 0));
    [0, 1].into_iter().for_each(|id| c.pause(id));
    c.run_for(60_000);
    assert!((5..40).contains(&asked(&c)), "asked {} times in a minute", asked(&c));
    [0, 1].into_iter().for_each(|id| c.resume(id));
    assert!(c.run_until(10_000, |c| c.holds(2, signed.id)));
}

#[test]
fn a_node_that_does_not_hold_a_module_says_so_and_another_one_is_asked() {
    let (mut c, signed) = two_holders_and_a_late_node(65);
    let asked = |c: &Cluster| {
        let is_request = |message: &Message| matches!(message, Message::ContentRequest(_));
        c.published.iter().find(|p| p.from == 2 && open(&p.bytes).1.iter().any(is_request)).map(|p| p.to)
    };
    assert!(c.run_until(2_000, |c| asked(c).is_some()));
    let provider = if asked(&c) == Some(Address::Node(c.name(0))) { 0 } else { 1 };
    c.pause(provider);
    let name = c.name(provider).to_string();
    c.inject_as(&name, 2, 1, &[Message::ContentGone(signed.id.into())]);
    // Otherwise the other node would be asked only after four stalls: 2.4 s.
    assert!(c.run_until(1_000, |c| c.holds(2, signed.id)));
    c.resume(provider);
    c.run_for(10_000);
    c.assert_idle();
}

#[test]
fn whoever_asks_for_what_a_node_does_not_hold_is_told_so_and_nonsense_is_not_answered() {
    let mut c = cluster(66, 1);
    let (signed, code) = module(1, true);
    c.deploy(0, &signed, &code);
    assert!(c.run_until(2_000, |c| c.holds(1, signed.id)));
    c.pause(1);
    c.count_from_here();
    let request = |content, first, piece_bytes| {
        Message::ContentRequest(ContentRequest { content, first, count: u16::MAX, piece_bytes })
    };
    let unknown = ContentId([9; 32]);
    let far = request(signed.id.into(), u32::MAX, CHUNK_BYTES);
    let odd = request(signed.id.into(), 0, CHUNK_BYTES + 1);
    c.inject_as("w1", 0, 1, &[request(unknown, 0, 0), request(unknown, 0, u32::MAX), far, odd]);
    c.run_for(100);
    let answers = |c: &Cluster, to: Address| -> Vec<Message> {
        let sent = c.published.iter().filter(|p| p.from == 0 && p.to == to).flat_map(|p| open(&p.bytes).1);
        sent.filter(|message| matches!(message, Message::ContentGone(_) | Message::ContentPiece(_))).collect()
    };
    let to = Address::Node(c.name(1));
    assert_eq!(answers(&c, to), []);
    c.inject_as("w1", 0, 2, &[request(unknown, 0, CHUNK_BYTES)]);
    c.run_for(100);
    assert_eq!(answers(&c, to), [Message::ContentGone(unknown)]);
}
