//! Boards: pins and LEDs with the built-in functions and with Wasm tasks; nodes without a board; reboots.

// Test helpers may panic, too; the lint exempts only test functions.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;

use broccoli_node::board::{BoardChange, Refusals, SimulatedBoard};
use broccoli_node::{Board, Builder, NodeEvent, NodeHandle, StartError};
use broccoli_proto::{Cause, Cbor};
use support::cluster::*;
use tokio::time::timeout;

/// The example modules.
const LIGHTS: &[u8] = include_bytes!("../../../functions/lights.wasm");
const HELLO: &[u8] = include_bytes!("../../../functions/c/hello.wasm");

/// A node with two slots and a simulated board.
fn with_board(cluster: &TestCluster, name: &str) -> (Builder, SimulatedBoard) {
    let board = SimulatedBoard::new();
    (cluster.node(name).slots(2).board(Board::Simulated(board.clone())), board)
}

/// An origin, the worker `w1` with a simulated board, and that board.
async fn pair(cluster: &TestCluster) -> (NodeHandle, NodeHandle, SimulatedBoard) {
    let (worker, board) = with_board(cluster, "w1");
    let origin = cluster.node("origin").start().unwrap();
    let worker = worker.start().unwrap();
    until_workers(&origin, 1).await;
    (origin, worker, board)
}

async fn error_text(origin: &NodeHandle, source: &str) -> String {
    let error = task_error(origin.submit(canvas(source))).await;
    assert_eq!(error.cause, Cause::Returned, "{error}");
    error.text
}

on_both_servers! {
    async fn one_broadcast_blinks_on_every_node_with_an_led(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let origin = cluster.node("origin").start().unwrap();
        let (mut nodes, mut boards) = (Vec::new(), Vec::new());
        for name in ["w1", "w2", "w3"] {
            let (node, board) = with_board(&cluster, name);
            boards.push(board.watch());
            nodes.push(node.start().unwrap());
        }
        let _dark = cluster.node("dark").slots(1).start().unwrap();
        until_workers(&origin, 4).await;
        let all: BTreeMap<String, ()> =
            result(origin.submit(canvas("board.blink.s(3, 20).set(each=True, on='led')"))).await;
        assert_eq!(all.keys().collect::<Vec<_>>(), ["w1", "w2", "w3"]);
        let blink = [BoardChange::Led(true), BoardChange::Led(false)];
        for mut changes in boards {
            for expected in [blink, blink, blink].concat() {
                assert_eq!(changes.try_recv(), Ok(expected));
            }
            assert!(changes.try_recv().is_err(), "three times and no more");
        }
    }

    async fn a_blink_that_is_revoked_stops_between_two_switches(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let (origin, _worker, board) = pair(&cluster).await;
        let mut changes = board.watch();
        // Both slots blink for a minute.
        let mut job = origin.submit(canvas("group(board.blink(30, 2000), board.blink(30, 2000))"));
        for _ in 0..2 {
            assert_eq!(changes.recv().await, Ok(BoardChange::Led(true)));
        }
        job.revoke().await;
        // A slot is free long before the minute is over.
        assert!(!result::<bool>(origin.submit(canvas("gpio_read(4)"))).await);
    }

    async fn pins_are_read_and_written_and_keep_their_level(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let (origin, _worker, board) = pair(&cluster).await;
        board.set_pin(4, true);
        let levels: Vec<bool> = result(origin.submit(canvas("board.gpio_read.map([4, 17, 27])"))).await;
        assert_eq!(levels, [true, false, false]);
        result::<()>(origin.submit(canvas("board.gpio_write(pin=17, high=True)"))).await;
        assert!(board.pin(17));
        assert!(result::<bool>(origin.submit(canvas("gpio_read(17)"))).await, "a name alone will do");
        result::<()>(origin.submit(canvas("board.gpio_write(17, False)"))).await;
        assert!(!board.pin(17) && board.pin(4));
    }

    async fn what_a_board_lacks_is_an_error_that_says_so(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let (origin, _worker, board) = pair(&cluster).await;
        assert_eq!(error_text(&origin, "board.gpio_read(28)").await, "no pin 28: this board has 0 to 27");
        assert_eq!(error_text(&origin, "board.gpio_write(99, True)").await, "no pin 99: this board has 0 to 27");
        let mut changes = board.watch();
        assert_eq!(error_text(&origin, "board.blink(1001, 1)").await, "at most 1000 times and 60 s in all");
        assert_eq!(error_text(&origin, "board.blink(61, 1000)").await, "at most 1000 times and 60 s in all");
        assert!(changes.try_recv().is_err(), "nothing was switched");
    }

    async fn a_node_without_a_board_says_so_and_jobs_can_avoid_it(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let origin = cluster.node("origin").start().unwrap();
        let _bare = cluster.node("bare").slots(1).start().unwrap();
        until_workers(&origin, 1).await;
        cluster.deploy(&origin, "lights", LIGHTS).await;
        let none = "this node has no board";
        for source in ["board.gpio_read(4)", "board.gpio_write(4, True)", "board.blink(1, 10)"] {
            assert_eq!(error_text(&origin, source).await, none, "{source}");
        }
        for source in ["lights.morse('5')", "lights.copy_pin(1, 2)", "lights.measure(0)"] {
            assert_eq!(error_text(&origin, source).await, none, "{source}");
        }
        // The job waits for a node with pins.
        let waiting = origin.submit(canvas("board.gpio_read.s(4).set(on='gpio')"));
        let (node, board) = with_board(&cluster, "w1");
        board.set_pin(4, true);
        let _node = node.start().unwrap();
        assert!(result::<bool>(waiting).await);
    }

    async fn tasks_in_wasm_use_the_board(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let (origin, _worker, board) = pair(&cluster).await;
        cluster.deploy(&origin, "lights", LIGHTS).await;
        cluster.deploy(&origin, "hello", HELLO).await;
        board.set_pin(4, true);
        board.set_millivolts(3, 1_650);
        board.set_temperature(-4_250);
        let mut changes = board.watch();
        assert!(result::<bool>(origin.submit(canvas("lights.copy_pin.s(4, 17)"))).await);
        assert_eq!(changes.try_recv(), Ok(BoardChange::Pin(17, true)));
        assert_eq!(result::<(i32, i32)>(origin.submit(canvas("lights.measure.s(3)"))).await, (1_650, -4_250));
        assert_eq!(error_text(&origin, "lights.measure.s(4)").await, "this board measures no channel 4");
        assert_eq!(error_text(&origin, "lights.copy_pin.s(4, 99)").await, "no pin 99: this board has 0 to 27");
        result::<()>(origin.submit(canvas("lights.morse.s('E')"))).await;
        assert_eq!(changes.try_recv(), Ok(BoardChange::Led(true)));
        assert_eq!(changes.try_recv(), Ok(BoardChange::Led(false)));
        // A task in C.
        assert!(result::<bool>(origin.submit(canvas("hello.pressed.s(4)"))).await);
        assert_eq!(changes.try_recv(), Ok(BoardChange::Led(true)));
        assert_eq!(error_text(&origin, "hello.pressed.s(28)").await, "no pin 28: this board has 0 to 27");
        let bin: Vec<Vec<bool>> = result(origin.submit(canvas("lights.copy_pin.chunks([(4, 5), (6, 7)], 1)"))).await;
        assert_eq!(bin, [[true, false]]);
        assert!(board.pin(5) && !board.pin(7));
    }

    async fn nodes_say_what_they_are_and_how_they_are(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let origin = cluster.node("origin").start().unwrap();
        let (node, board) = with_board(&cluster, "w1");
        board.set_temperature(48_312);
        let _w1 = node.label("room=kitchen").start().unwrap();
        let _w2 = cluster.node("w2").slots(1).start().unwrap();
        until_workers(&origin, 2).await;
        let roll: BTreeMap<String, String> = result(origin.submit(canvas("sys.ping.s().set(each=True)"))).await;
        assert_eq!(roll, ["w1", "w2"].map(|name| (name.to_owned(), "pong".to_owned())).into());
        let info: BTreeMap<String, Cbor> = result(origin.submit(canvas("sys.info.s().set(on='w1')"))).await;
        assert_eq!((&info["name"], &info["board"]), (&Cbor::encode(&"w1"), &Cbor::encode(&"simulated")));
        assert_eq!(info["labels"], Cbor::encode(&["room=kitchen", "led", "gpio", "adc", "temp"]));
        assert_eq!(info["version"], Cbor::encode(&env!("CARGO_PKG_VERSION")));
        let vitals: BTreeMap<String, BTreeMap<String, Cbor>> =
            result(origin.submit(canvas("sys.vitals.s().set(each=True)"))).await;
        assert_eq!(vitals["w1"]["temperature_c"], Cbor::encode(&48.312));
        assert!(!vitals["w2"].contains_key("temperature_c"), "{vitals:?}");
        let memory = |key: &str| vitals["w2"][key].decode::<u64>().unwrap();
        assert!(0 < memory("memory_free_bytes") && memory("memory_free_bytes") < memory("memory_bytes"));
    }

    async fn a_node_reboots_only_where_it_may_and_answers_first(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let origin = cluster.node("origin").start().unwrap();
        let mut allowed = cluster.node("w1").slots(2).allow_reboot(true).start().unwrap();
        let mut events = allowed.events();
        let refusals = Refusals { reboot: "not this one", ..Refusals::default() };
        let _strict = cluster.node("w2").slots(1).start().unwrap();
        let _other = cluster.node("w4").slots(1).refusals(refusals).start().unwrap();
        until_workers(&origin, 3).await;
        cluster.deploy_examples(&origin).await;
        let refused = error_text(&origin, "sys.reboot.s().set(on='w2')").await;
        assert_eq!(refused, "this node may not be rebooted by tasks");
        let refused = error_text(&origin, "sys.reboot.s().set(on='w4')").await;
        assert_eq!(refused, "not this one");
        // It finishes its running tasks.
        let long = origin.submit(canvas("tasks.sleep_ms.s(700, 5).set(on='w1')"));
        until(&allowed, |node| node.load.running == 1).await;
        result::<()>(origin.submit(canvas("sys.reboot.s().set(on='w1')"))).await;
        event(&mut events, |event| matches!(event, NodeEvent::Reboot).then_some(())).await;
        assert_eq!(result::<i64>(long).await, 5);
        let ended = async { while events.recv().await.is_some() {} };
        timeout(support::PATIENCE, ended).await.expect("the node ends");
        // On each node: a node that may not reboot does not.
        let _again = cluster.node("w3").slots(1).allow_reboot(true).start().unwrap();
        until_workers(&origin, 3).await;
        let job = origin.submit(canvas("sys.reboot.s().set(each=True, partial=True)"));
        assert_eq!(result::<BTreeMap<String, ()>>(job).await.into_keys().collect::<Vec<_>>(), ["w3"]);
    }

    async fn a_deployed_function_goes_before_a_built_in_one(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let origin = cluster.node("origin").function("own.ping", || 7).start().unwrap();
        let _worker = cluster.node("w1").slots(1).function("own.ping", || 7).start().unwrap();
        until_workers(&origin, 1).await;
        assert_eq!(result::<i32>(origin.submit(canvas("ping()"))).await, 7);
        assert_eq!(result::<String>(origin.submit(canvas("sys.ping()"))).await, "pong");
        let refused = cluster.node("w2").function("sys.ping", || 7).start();
        assert!(matches!(refused.err(), Some(StartError::Builtin(module)) if module == "sys"));
    }
}
