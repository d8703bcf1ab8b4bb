//! Which worker runs which task: even spread, returns, fairness, routing, priorities.

use broccoli_core::Event;
use broccoli_proto::message::JobNews;
use broccoli_proto::{Canvas, Cbor};

use crate::cluster::{Cluster, Spec};
use crate::{add, adds, sleep, sleeps};

fn specs(slots: &[u16]) -> Vec<Spec> {
    let mut specs = vec![Spec::new("origin", 0)];
    specs.extend(slots.iter().enumerate().map(|(i, slots)| Spec::worker(&format!("w{}", i + 1), *slots)));
    specs
}

#[test]
fn long_tasks_spread_evenly_and_no_worker_idles_while_tasks_wait() {
    let mut c = Cluster::started(7, specs(&[1, 1, 1, 1]));
    let (canvas, expected) = sleeps(16, 300);
    let start = c.now_ms();
    let job = c.submit(0, &canvas);
    assert_eq!(c.wait(0, job, 5_000), Ok(expected));
    let counts: Vec<usize> = (1..=4).map(|id| c.runs_on(id)).collect();
    assert!(counts.iter().all(|count| (3..=5).contains(count)), "{counts:?}");
    let took = c.now_ms() - start;
    assert!(took < 4 * 316 + 40, "{took} ms: workers were idle while tasks waited");
}

#[test]
fn long_tasks_spread_even_if_the_workers_were_used_to_short_ones() {
    let mut c = Cluster::started(8, specs(&[1, 1, 1, 1]));
    let (canvas, expected) = adds(3_000);
    let job = c.submit(0, &canvas);
    assert_eq!(c.wait(0, job, 5_000), Ok(expected));
    let before = c.runs.len();
    let (canvas, expected) = sleeps(16, 300);
    let job = c.submit(0, &canvas);
    assert_eq!(c.wait(0, job, 5_000), Ok(expected));
    let long = &c.runs[before..];
    let counts: Vec<usize> = (1..=4).map(|id| long.iter().filter(|run| run.node == id).count()).collect();
    assert!(counts.iter().all(|count| (3..=5).contains(count)), "{counts:?}");
}

#[test]
fn a_worker_gives_back_what_it_cannot_start_and_others_run_it() {
    let mut c = Cluster::started(9, specs(&[1]));
    let (canvas, expected) = adds(1_000);
    let job = c.submit(0, &canvas);
    assert_eq!(c.wait(0, job, 5_000), Ok(expected));
    // The first worker has standing credit for hundreds of tasks. The second one starts later.
    let before = c.runs.len();
    let (canvas, expected) = sleeps(4, 1_000);
    let job = c.submit(0, &canvas);
    for name in ["late1", "late2", "late3"] {
        c.add(Spec::new(name, 1));
    }
    let start = c.now_ms();
    assert_eq!(c.wait(0, job, 3_500), Ok(expected));
    assert!(c.now_ms() - start < 2_500, "four workers ran four tasks side by side, or nearly");
    assert!((2..=4).all(|id| c.runs[before..].iter().any(|run| run.node == id)), "each late node ran some");
}

#[test]
fn two_origins_share_one_worker() {
    let specs = vec![Spec::new("a", 0), Spec::new("b", 0), Spec::worker("w", 1)];
    for ms in [2, 10, 100] {
        let mut c = Cluster::started(10, specs.clone());
        let (canvas, _) = sleeps(60, ms);
        let (a, b) = (c.submit(0, &canvas), c.submit(1, &canvas));
        c.run_until(60_000, |c| c.ended(0, a).is_some() || c.ended(1, b).is_some());
        let (done_a, done_b) = (progress(&c, 0, a), progress(&c, 1, b));
        assert!(done_a.min(done_b) >= 20, "with tasks of {ms} ms: {done_a} and {done_b} of 60");
        assert!(c.wait(0, a, 60_000).is_ok() && c.wait(1, b, 60_000).is_ok());
        c.run_for(10_000);
        c.assert_idle();
    }
}

fn progress(c: &Cluster, id: usize, job: broccoli_core::SubmitId) -> u32 {
    let done = |news: &JobNews| match news {
        JobNews::Progress { done, .. } => Some(*done),
        JobNews::Ended(_) => Some(60),
        _ => None,
    };
    c.news(id, job).filter_map(done).max().unwrap_or(0)
}

#[test]
fn higher_priorities_start_first() {
    let mut c = Cluster::started(11, specs(&[1]));
    let mut low = sleeps(3, 50).0;
    low.options.priority = Some(1);
    let mut high = sleeps(3, 60).0;
    high.options.priority = Some(9);
    let mut first = sleep(40);
    first.options.priority = Some(9);
    let jobs = [c.submit(0, &first), c.submit(0, &low), c.submit(0, &high)];
    jobs.into_iter().for_each(|job| assert!(c.wait(0, job, 2_000).is_ok()));
    let order: Vec<i64> = c.runs.iter().map(|run| run.args.decode::<[i64; 1]>().expect("ms")[0]).collect();
    assert_eq!(order, [40, 60, 61, 62, 50, 51, 52]);
}

#[test]
fn tasks_run_where_they_are_sent() {
    let kitchen = Spec::worker("w2", 2).label("room=kitchen").label("led");
    let mut c = Cluster::started(12, vec![Spec::new("origin", 2), Spec::worker("w1", 2), kitchen]);
    for on in [vec!["w2"], vec!["room=kitchen"], vec!["led", "room=kitchen"]] {
        let (mut canvas, expected) = adds(20);
        canvas.options.on = on.into_iter().map(String::from).collect();
        let job = c.submit(0, &canvas);
        assert_eq!(c.wait(0, job, 2_000), Ok(expected));
    }
    assert_eq!((c.runs_on(0), c.runs_on(1), c.runs_on(2)), (0, 0, 60));
}

#[test]
fn a_task_that_no_node_fits_says_so_at_once_and_runs_when_one_comes() {
    let specs = vec![Spec::client("client"), Spec::new("origin", 1), Spec::worker("w1", 1)];
    let mut c = Cluster::started(13, specs);
    crate::attach(&mut c, 0);
    let mut canvas = add(1, 2);
    canvas.options.on = vec!["led".into()];
    // By now the origin knows all nodes that are online.
    c.run_for(1_000);
    let start = c.now_ms();
    let job = c.submit_remote(0, &canvas);
    c.run_for(4_500);
    let told: Vec<&(u64, Event)> =
        c.timed_events(0).iter().filter(|(_, event)| matches!(event, Event::Job(_, JobNews::NoNode { .. }))).collect();
    let [(at, Event::Job(_, JobNews::NoNode { function, on, nodes }))] = told[..] else {
        panic!("told once, not {told:?}");
    };
    assert_eq!((function.as_str(), on.as_slice(), *nodes), ("tasks.add", &["led".to_string()][..], 2));
    assert!(at - start < 100, "told after {} ms", at - start);

    c.add(Spec::worker("late", 1).label("led"));
    assert_eq!(c.wait(0, job, 3_000), Ok(Cbor::encode(&3)));
    assert_eq!(c.runs_on(3), 1);
}

#[test]
fn a_countdown_delays_its_task() {
    let mut c = Cluster::started(14, specs(&[1]));
    let mut later = add(1, 1);
    later.options.countdown_ms = Some(700);
    let start = c.now_ms();
    let job = c.submit(0, &Canvas::group(vec![later, add(2, 2)]));
    assert_eq!(c.wait(0, job, 2_000), Ok(Cbor::encode(&[2, 4])));
    let starts: Vec<u64> = c.runs.iter().map(|run| run.at_ms - start).collect();
    assert!(starts[0] < 50 && (700..760).contains(&starts[1]), "{starts:?}");
}
