//! Clients that wait for room, and jobs that are known by their id.

use broccoli_core::{Event, Instant, SubmitId};
use broccoli_proto::message::{JobNews, Message};
use broccoli_proto::{Cause, Cbor, JobId};

use crate::cluster::{Cluster, Id, Spec};
use crate::{add, sleep};

fn job_id(c: &Cluster, id: Id, submit: SubmitId) -> Option<JobId> {
    c.events(id).find_map(|event| match event {
        Event::Accepted(of, job) if *of == submit => Some(*job),
        _ => None,
    })
}

/// Submits from one client, and waits for the id.
fn accepted(c: &mut Cluster, id: Id, canvas: &broccoli_proto::Canvas) -> (SubmitId, JobId) {
    let submit = c.submit_remote(id, canvas);
    assert!(c.run_until(1_000, |c| job_id(c, id, submit).is_some()));
    (submit, job_id(c, id, submit).expect("just seen"))
}

fn follow(c: &mut Cluster, id: Id, job: JobId) -> SubmitId {
    let now = Instant(c.now_us);
    let submit = c.node(id).follow(now, job);
    c.flush(id);
    submit
}

fn is_unknown(c: &Cluster, id: Id, submit: SubmitId) -> bool {
    c.news(id, submit).any(|news| matches!(news, JobNews::Unknown))
}

#[test]
fn a_thousand_jobs_wait_for_an_origin_with_room_for_ten() {
    let origin = Spec::new("origin", 4).limits(|limits| limits.jobs_max = 10);
    let mut c = Cluster::started(400, vec![Spec::client("client"), origin]);
    crate::attach(&mut c, 0);
    c.count_from_here();
    c.validate = false;
    let jobs: Vec<SubmitId> = (0..1_000).map(|i| c.submit_remote(0, &sleep(1 + i % 5))).collect();
    let full = |c: &Cluster| c.events(0).filter(|event| matches!(event, Event::QueueFull(..))).count();
    c.validate = true;
    for (at, job) in jobs.iter().enumerate() {
        let outcome = c.wait(0, *job, 120_000);
        assert_eq!(outcome, Ok(Cbor::encode(&(1 + at as i64 % 5))));
    }
    let told = full(&c);
    assert!((1..=1_000).contains(&told), "{told} were told that they wait");
    assert_eq!(c.runs.len(), 1_000, "each ran once");
    let submits = c.packets_with(|message| matches!(message, Message::Submit(_)));
    assert!(submits < 5_000, "{submits} packets with submits");
    c.run_for(10_000);
    c.assert_idle();
}

#[test]
fn a_canvas_that_waits_for_room_can_be_revoked() {
    let origin = Spec::new("origin", 1).limits(|limits| limits.jobs_max = 1);
    let mut c = Cluster::started(401, vec![Spec::client("client"), origin]);
    crate::attach(&mut c, 0);
    let first = c.submit_remote(0, &sleep(5_000));
    let second = c.submit_remote(0, &add(1, 1));
    assert!(c.run_until(1_000, |c| c.events(0).any(|event| matches!(event, Event::QueueFull(..)))));
    c.revoke(0, second);
    let refused = |c: &Cluster| c.events(0).any(|event| matches!(event, Event::Refused(id, _) if *id == second));
    assert!(c.run_until(1_000, refused));
    assert!(c.wait(0, first, 6_000).is_ok());
    assert_eq!(c.runs.len(), 1);
}

#[test]
fn a_queue_that_is_full_over_links_that_lose_a_fifth() {
    let origin = Spec::new("origin", 2).limits(|limits| limits.jobs_max = 3);
    let mut c = Cluster::started(402, vec![Spec::client("a"), Spec::client("b"), origin]);
    crate::attach(&mut c, 0);
    crate::attach(&mut c, 1);
    c.faults.loss = 200;
    c.faults.duplication = 100;
    c.faults.delay = 100;
    c.faults.delay_ms_max = 500;
    let jobs: Vec<_> = (0..60).map(|at| (at % 2, c.submit_remote(at % 2, &sleep(20)))).collect();
    for (client, job) in jobs {
        assert!(c.wait(client, job, 300_000).is_ok());
    }
}

#[test]
fn another_client_follows_a_job_to_its_end() {
    let specs = vec![Spec::client("a"), Spec::client("b"), Spec::new("origin", 1)];
    let mut c = Cluster::started(403, specs);
    crate::attach(&mut c, 0);
    let (submit, job) = accepted(&mut c, 0, &sleep(500));
    let followed = follow(&mut c, 1, job);
    assert!(c.run_until(100, |c| c.news(1, followed).any(|news| matches!(news, JobNews::Progress { .. }))));
    assert_eq!(c.wait(0, submit, 1_000), Ok(Cbor::encode(&500)));
}

#[test]
fn another_client_revokes_a_job_and_sees_its_end() {
    let specs = vec![Spec::client("a"), Spec::client("b"), Spec::new("origin", 1)];
    let mut c = Cluster::started(404, specs);
    crate::attach(&mut c, 0);
    let (submit, job) = accepted(&mut c, 0, &sleep(60_000));
    c.run_for(100);
    let now = Instant(c.now_us);
    let revoked = c.node(1).revoke_job(now, job);
    c.flush(1);
    assert_eq!(c.wait(1, revoked, 1_000).expect_err("revoked").cause, Cause::Revoked);
    assert_eq!(c.wait(0, submit, 1_000).expect_err("revoked").cause, Cause::Revoked);
    c.run_for(20_000);
    c.assert_idle();
}

/// Celery says PENDING for what it does not know, and for what is gone. Here pending is what an
/// origin says of a job that it holds, unknown is what it says of one that it does not, and an
/// origin that says nothing is neither.
#[test]
fn pending_never_means_unknown() {
    let specs = vec![Spec::client("a"), Spec::client("b"), Spec::new("origin", 1)];
    let mut c = Cluster::started(405, specs);
    crate::attach(&mut c, 0);
    let (_, job) = accepted(&mut c, 0, &sleep(60_000));

    let pending = follow(&mut c, 1, job);
    let unknown = follow(&mut c, 1, JobId { number: job.number + 1, ..job });
    assert!(c.run_until(1_000, |c| is_unknown(c, 1, unknown)));
    assert!(c.run_until(1_000, |c| c.news(1, pending).any(|news| matches!(news, JobNews::Progress { .. }))));
    assert!(!c.news(1, unknown).any(|news| matches!(news, JobNews::Progress { .. })));

    c.cut(2, true);
    let silent = |c: &Cluster| c.events(1).any(|event| matches!(event, Event::NoAnswer(id, _) if *id == pending));
    c.run_for(4_000);
    assert!(!silent(&c), "it may be back soon");
    assert!(c.run_until(4_000, silent));
    c.run_for(60_000);
    assert!(!is_unknown(&c, 1, pending), "silence is no answer");
    let told = c.events(1).filter(|event| matches!(event, Event::NoAnswer(..))).count();
    assert_eq!(told, 1, "it is told once");
    c.heal(2);
    let heard = c.news(1, pending).count();
    assert!(c.run_until(3_000, |c| c.news(1, pending).count() > heard), "and goes on when it is back");
}
