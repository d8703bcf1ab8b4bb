//! Clients that wait for room, and jobs that are found by their id.

use broccoli_core::{Event, Instant, Submission, SubmitId};
use broccoli_proto::message::{JobNews, JobState, Message, Refusal};
use broccoli_proto::packet::Address;
use broccoli_proto::{Canvas, Cause, Cbor, JobId};

use crate::cluster::{Cluster, Id, Spec};
use crate::{add, sleep};

fn job_id(c: &Cluster, id: Id, submit: SubmitId) -> Option<JobId> {
    c.events(id).find_map(|event| match event {
        Event::Accepted(of, job) if *of == submit => Some(*job),
        _ => None,
    })
}

/// Submits from a client, and waits for the id of the job.
fn accepted(c: &mut Cluster, id: Id, canvas: &Canvas) -> (SubmitId, JobId) {
    let submit = c.submit_remote(id, canvas);
    assert!(c.run_until(1_000, |c| job_id(c, id, submit).is_some()));
    (submit, job_id(c, id, submit).expect("just seen"))
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
fn requests_of_the_user_are_bounded_and_may_be_repeated() {
    let client = Spec::client("client").limits(|limits| limits.requests_max = 4);
    let mut c = Cluster::started(410, vec![client, Spec::new("origin", 4)]);
    crate::attach(&mut c, 0);
    let jobs: Vec<_> = (0..4).map(|_| c.submit_remote(0, &sleep(100))).collect();
    let told =
        |c: &Cluster, id: SubmitId| c.events(0).any(|event| matches!(event, Event::TooManyRequests(of) if *of == id));
    let fifth = c.submit_remote(0, &add(1, 1));
    let followed = c.follow(0, JobId { origin: c.name(1), number: 1 });
    let both_told = |c: &Cluster| told(c, fifth) && told(c, followed);
    assert!(c.run_until(1_000, both_told));
    jobs.iter().for_each(|job| assert!(c.wait(0, *job, 2_000).is_ok()));
    assert!(!jobs.iter().any(|job| told(&c, *job)));
    let again = c.submit_remote(0, &add(1, 1));
    assert_eq!(c.wait(0, again, 1_000), Ok(Cbor::encode(&2)));
    assert_eq!(c.runs.len(), 5, "what found no room has not run");
}

#[test]
fn detached_jobs_that_nobody_follows_take_no_room_at_the_client() {
    let client = Spec::client("client").limits(|limits| limits.requests_max = 4);
    let mut c = Cluster::started(411, vec![client, Spec::new("origin", 1)]);
    crate::attach(&mut c, 0);
    let hand_in = |c: &mut Cluster, early: bool, detached: bool| {
        let canvas = Cbor::encode(&sleep(10_000));
        let id = c.submit_with(0, Submission { canvas, key: None, again: false, detached });
        let is_accepted = |c: &Cluster| c.events(0).any(|event| matches!(event, Event::Accepted(of, _) if *of == id));
        let now = Instant(c.now_us);
        if early {
            c.node(0).unfollow(now, id);
        }
        assert!(c.run_until(1_000, is_accepted), "there is room for it");
        let now = Instant(c.now_us);
        c.node(0).unfollow(now, id);
        id
    };
    for at in 0..20 {
        hand_in(&mut c, at % 2 == 0, true);
    }
    // Their end is acknowledged, so they stay, and those that are revoked.
    for _ in 0..3 {
        hand_in(&mut c, false, false);
    }
    let revoked = c.submit_remote(0, &sleep(10_000));
    c.revoke(0, revoked);
    let too_many = c.submit_remote(0, &sleep(1));
    let told = |c: &Cluster| c.events(0).any(|event| matches!(event, Event::TooManyRequests(id) if *id == too_many));
    assert!(c.run_until(1_000, told));
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
    let followed = c.follow(1, job);
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
    let revoked = c.revoke_job(1, job);
    assert_eq!(c.wait(1, revoked, 1_000).expect_err("revoked").cause, Cause::Revoked);
    assert_eq!(c.wait(0, submit, 1_000).expect_err("revoked").cause, Cause::Revoked);
    c.run_for(20_000);
    c.assert_idle();
}

/// Celery reports PENDING for a task that it does not know, and for one that is gone. Here an origin reports pending
/// only for a job that it holds, and unknown for a job that it does not hold. An origin that does not answer is
/// neither.
#[test]
fn pending_never_means_unknown() {
    let specs = vec![Spec::client("a"), Spec::client("b"), Spec::new("origin", 1)];
    let mut c = Cluster::started(405, specs);
    crate::attach(&mut c, 0);
    let (_, job) = accepted(&mut c, 0, &sleep(60_000));

    let pending = c.follow(1, job);
    let unknown = c.follow(1, JobId { number: job.number + 1, ..job });
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

fn submission(canvas: &Canvas, key: Option<&str>, detached: bool) -> Submission {
    Submission { canvas: Cbor::encode(canvas), key: key.map(Into::into), again: false, detached }
}

#[test]
fn clients_prefer_an_origin_that_keeps_its_jobs() {
    for seed in 410..420 {
        let specs = vec![Spec::client("a"), Spec::new("o1", 1), Spec::new("o2", 1), Spec::new("o3", 1).durable()];
        let mut c = Cluster::started(seed, specs);
        crate::attach(&mut c, 0);
        let (_, job) = accepted(&mut c, 0, &add(1, 1));
        assert_eq!(job.origin, c.name(3), "seed {seed}");
    }
}

#[test]
fn submits_with_one_key_from_anywhere_are_one_job() {
    let mut specs: Vec<Spec> = (0..5).map(|i| Spec::client(&format!("c{i}"))).collect();
    specs.extend((1..=4).map(|i| Spec::new(&format!("o{i}"), 1).durable()));
    let mut c = Cluster::started(420, specs);
    (0..5).for_each(|client| crate::attach(&mut c, client));
    let mut ids = Vec::new();
    for client in 0..5 {
        let submit = c.submit_with(client, submission(&sleep(300), Some("nightly"), true));
        assert!(c.run_until(1_000, |c| job_id(c, client, submit).is_some()));
        ids.push(job_id(&c, client, submit).expect("just seen"));
        assert_eq!(c.wait(client, submit, 1_000), Ok(Cbor::encode(&300)));
    }
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(c.runs.len(), 1);
    let origins: std::collections::BTreeSet<_> = (0..20)
        .map(|number| {
            let submit = c.submit_with(0, submission(&sleep(1), Some(&format!("key {number}")), true));
            assert!(c.run_until(1_000, |c| job_id(c, 0, submit).is_some()));
            job_id(&c, 0, submit).expect("just seen").origin
        })
        .collect();
    assert!(origins.len() >= 3, "keys spread: {origins:?}");
}

#[test]
fn an_answer_that_was_lost_with_the_origins_power_is_asked_for_again() {
    let specs = vec![Spec::client("a"), Spec::new("origin", 1).durable()];
    let mut c = Cluster::started(421, specs);
    crate::attach(&mut c, 0);
    c.lose = Some(|message| matches!(message, Message::Accepted(_)));
    let submit = c.submit_with(0, submission(&sleep(50), Some("once"), false));
    c.run_for(300);
    c.kill(1, true);
    c.lose = None;
    c.restart(1);
    assert_eq!(c.wait(0, submit, 10_000), Ok(Cbor::encode(&50)));
    assert!(c.runs.len() <= 2, "at most what ran when the power went ran again");
    assert_eq!(c.events(0).filter(|event| matches!(event, Event::Accepted(..))).count(), 1);
}

#[test]
fn a_follower_waits_for_an_origin_that_is_back_after_a_minute() {
    let specs = vec![Spec::client("a"), Spec::client("b"), Spec::new("origin", 1).durable()];
    let mut c = Cluster::started(422, specs);
    crate::attach(&mut c, 0);
    let (submit, job) = accepted(&mut c, 0, &sleep(2_000));
    let followed = c.follow(1, job);
    c.run_for(500);
    c.kill(2, true);
    c.run_for(60_000);
    assert!(c.events(1).any(|event| matches!(event, Event::NoAnswer(id, _) if *id == followed)));
    c.restart(2);
    assert_eq!(c.wait(1, followed, 10_000), Ok(Cbor::encode(&2_000)));
    assert_eq!(c.wait(0, submit, 10_000), Ok(Cbor::encode(&2_000)));
}

/// Celery forgets revokes when its workers restart.
#[test]
fn a_revoke_survives_a_restart() {
    let specs = vec![Spec::client("a"), Spec::new("origin", 0).durable(), Spec::worker("w", 1)];
    for ms in 0..20 {
        let mut c = Cluster::started(423 + ms, specs.clone());
        crate::attach(&mut c, 0);
        let later = Canvas::chain(vec![sleep(1_000), crate::one("add", 1)]);
        let (_, job) = accepted(&mut c, 0, &later);
        c.run_for(100);
        let revoked = c.revoke_job(0, job);
        // Kills at times from before the revoke to after its answer: what the client was told must stay true.
        c.run_for(ms);
        let was_told = c.ended(0, revoked).is_some();
        c.kill(1, true);
        c.restart(1);
        assert_eq!(c.wait(0, revoked, 20_000).expect_err("revoked").cause, Cause::Revoked, "after {ms} ms");
        let asked = c.follow(0, job);
        assert_eq!(c.wait(0, asked, 5_000).expect_err("revoked").cause, Cause::Revoked, "told {was_told}");
        c.run_for(5_000);
        assert!(c.runs.iter().all(|run| run.function == "sleep"), "nothing of it ran afterwards");
    }
}

#[test]
fn lists_of_jobs_and_nodes_fit_the_packets_of_who_asks() {
    let small = |spec: Spec| spec.limits(|limits| limits.packet_bytes_max = 4_096);
    let mut specs = vec![small(Spec::client("a")), Spec::new("origin", 0)];
    specs.extend((0..100).map(|at| Spec::worker(&format!("a-worker-with-a-long-name-{at}"), 0)));
    let mut c = Cluster::started(445, specs);
    crate::attach(&mut c, 0);
    for _ in 0..200 {
        accepted(&mut c, 0, &add(1, 1));
    }
    c.run_for(100);
    let (now, origin) = (Instant(c.now_us), c.name(1));
    c.count_from_here();
    c.node(0).ask_jobs(now, origin, None, u16::MAX);
    c.node(0).ask_members(now, origin, None, u16::MAX);
    c.flush(0);
    let of_jobs = |event: &Event| matches!(event, Event::Jobs(_, jobs) if jobs.more && !jobs.jobs.is_empty());
    let of_nodes = |event: &Event| matches!(event, Event::Members(_, list) if list.more && !list.members.is_empty());
    assert!(c.run_until(1_000, |c| c.events(0).any(of_jobs) && c.events(0).any(of_nodes)), "both have come");
    let to_client = c.published.iter().filter(|packet| packet.to == Address::Node(c.name(0)));
    let longest = to_client.map(|packet| packet.bytes.len()).max();
    assert!(longest.is_some_and(|bytes| bytes <= 4_096), "{longest:?}");
}

#[test]
fn the_jobs_of_an_origin_are_listed_in_pages_and_tried_again() {
    let mut c = Cluster::started(444, vec![Spec::client("a"), Spec::new("origin", 2).durable()]);
    crate::attach(&mut c, 0);
    let good = accepted(&mut c, 0, &add(1, 1)).1;
    let (bad, failed) = accepted(&mut c, 0, &Canvas::task("fail", Cbor::encode(&["no bread"])));
    c.wait(0, bad, 1_000).expect_err("fails");
    let long = (0..3).map(|_| accepted(&mut c, 0, &sleep(60_000)).1).collect::<Vec<_>>();
    c.run_for(100);
    let (now, origin) = (Instant(c.now_us), c.name(1));
    let mut listed: Vec<(u64, JobState, u32, u32)> = Vec::new();
    loop {
        let after = listed.last().map(|last| last.0);
        let pages = |c: &Cluster| c.events(0).filter(|event| matches!(event, Event::Jobs(..))).count();
        let before = pages(&c);
        c.node(0).ask_jobs(now, origin, after, 2);
        c.flush(0);
        assert!(c.run_until(1_000, |c| pages(c) > before));
        let page = c.events(0).filter_map(|event| if let Event::Jobs(_, jobs) = event { Some(jobs) } else { None });
        let page = page.last().expect("just seen").clone();
        assert!(page.jobs.len() <= 2);
        listed.extend(page.jobs.iter().map(|job| (job.number, job.state, job.done, job.total)));
        if !page.more {
            break;
        }
    }
    let expected = [
        (good.number, JobState::Succeeded, 1, 1),
        (failed.number, JobState::Failed, 1, 1),
        (long[0].number, JobState::Running, 0, 1),
        (long[1].number, JobState::Running, 0, 1),
        (long[2].number, JobState::Queued, 0, 1),
    ];
    assert_eq!(listed, expected);

    let retry = |c: &mut Cluster, job| {
        let now = Instant(c.now_us);
        let submit = c.node(0).retry_job(now, job);
        c.flush(0);
        submit
    };
    let runs = c.runs.len();
    let again = retry(&mut c, failed);
    assert!(c.run_until(1_000, |c| job_id(c, 0, again).is_some_and(|id| id != failed)));
    for (job, why) in [(good, "has succeeded"), (long[0], "has not ended")] {
        let refused = retry(&mut c, job);
        let said = |c: &Cluster| {
            c.events(0).any(|event| {
                matches!(event, Event::Refused(id, Refusal::NotRetriable(text)) if *id == refused && text.ends_with(why))
            })
        };
        assert!(c.run_until(1_000, said), "{why}");
    }
    long.into_iter().for_each(|job| {
        c.revoke_job(0, job);
    });
    c.wait(0, again, 2_000).expect_err("fails again");
    assert!(c.runs.len() > runs, "it ran again");
}

#[test]
fn a_retry_whose_answer_is_lost_makes_one_job() {
    let mut c = Cluster::started(445, vec![Spec::client("a"), Spec::new("origin", 2).durable()]);
    crate::attach(&mut c, 0);
    let (bad, failed) = accepted(&mut c, 0, &Canvas::task("fail", Cbor::encode(&["no bread"])));
    c.wait(0, bad, 1_000).expect_err("fails");
    c.lose = Some(|message| matches!(message, Message::Accepted(_)));
    let now = Instant(c.now_us);
    let again = c.node(0).retry_job(now, failed);
    c.flush(0);
    c.run_for(2_000);
    c.lose = None;
    c.wait(0, again, 2_000).expect_err("fails again");
    assert_eq!(c.runs.len(), 2);
}

#[test]
fn a_durable_origin_leaves_without_waiting_for_its_jobs_and_goes_on_with_them() {
    let specs = vec![Spec::client("a"), Spec::new("origin", 1).durable(), Spec::worker("w", 1)];
    let mut c = Cluster::started(446, specs);
    crate::attach(&mut c, 0);
    let (canvas, expected) = crate::sleeps(20, 300);
    let (submit, _) = accepted(&mut c, 0, &canvas);
    c.run_for(500);
    let now = Instant(c.now_us);
    c.node(1).drain(now);
    c.flush(1);
    assert!(c.run_until(1_000, |c| c.events(1).any(|event| matches!(event, Event::Drained))), "its own task has ended");
    c.run_for(5);
    c.kill(1, true);
    c.run_for(3_000);
    c.restart(1);
    assert_eq!(c.wait(0, submit, 30_000), Ok(expected));
    assert_eq!(c.runs.len(), 20, "nothing ran twice");
}
