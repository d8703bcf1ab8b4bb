//! Boards on the command line: the commands of docs/guide.md, the output of a simulated board, and reboots.
#![cfg(feature = "embedded-server")]
// The lint does not know that a macro makes these functions tests.
#![allow(clippy::unwrap_used)]

mod support;

use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};
use support::{Cluster, Process};

on_both_servers! {
    async fn one_command_blinks_on_every_simulated_board(cluster: Cluster) {
        let mut kitchen = cluster.node("pi-2", &["--slots", "1", "--board", "simulated"]).await;
        let mut garden = cluster.node("pi-3", &["--slots", "1", "--board", "simulated"]).await;
        let blinked = cluster.run(&["run", "board.blink.s(2, 50).set(each=True, on='led')"]).await.ok();
        assert_eq!(blinked, "{\"pi-2\": null, \"pi-3\": null}\n");
        for node in [&mut kitchen, &mut garden] {
            for change in ["LED on", "LED off", "LED on", "LED off"] {
                assert_eq!(node.note("board: ").await, format!("board: {change}"));
            }
        }
        assert_eq!(cluster.run(&["run", "board.gpio_write(17, True).set(on='pi-2')"]).await.ok(), "null\n");
        assert_eq!(kitchen.note("board: ").await, "board: pin 17 high");
        let levels = cluster.run(&["run", "board.gpio_read.map([4, 17]).set(on='pi-2')"]).await.ok();
        assert_eq!(levels, "[false, true]\n");
        let everywhere = cluster.run(&["run", "board.gpio_read.s(17).set(each=True, on='gpio')"]).await.ok();
        assert_eq!(everywhere, "{\"pi-2\": true, \"pi-3\": false}\n");
        let failed = cluster.run(&["run", "board.gpio_read(40).set(on='pi-3')"]).await;
        assert_eq!(failed.code, Some(1));
        let text = "error: board.gpio_read: no pin 40: this board has 0 to 27 (step 0, attempt 1 on pi-3)\n";
        assert_eq!(failed.stderr, text);
        let nodes: Value = serde_json::from_str(&cluster.run(&["nodes", "--json"]).await.ok()).unwrap();
        assert_eq!(nodes[1]["labels"], json!(["led", "gpio", "adc", "temp"]));
    }

    async fn a_roll_call_tells_what_every_node_is_and_how_it_is(cluster: Cluster) {
        let _node = cluster.node("pi-2", &["--slots", "1", "--board", "simulated", "--label", "room=kitchen"]).await;
        let roll = cluster.run(&["run", "sys.ping.s().set(each=True)"]).await.ok();
        assert_eq!(roll, "{\"pi-1\": \"pong\", \"pi-2\": \"pong\"}\n");
        let info = cluster.run(&["run", "sys.info.s().set(on='room=kitchen')"]).await.ok();
        let info: Value = serde_json::from_str(&info).unwrap();
        assert_eq!((&info["name"], &info["board"], &info["slots"]), (&json!("pi-2"), &json!("simulated"), &json!(1)));
        let vitals = cluster.run(&["run", "sys.vitals.s().set(each=True)"]).await.ok();
        let vitals: Value = serde_json::from_str(&vitals).unwrap();
        assert_eq!(vitals["pi-2"]["temperature_c"], json!(21.5));
        assert!(vitals["pi-1"]["memory_free_bytes"].as_u64().unwrap() > 0, "{vitals}");
    }

    async fn a_node_reboots_by_its_command_after_it_has_answered(cluster: Cluster) {
        let reboot = cluster.home.write("reboot", "#!/bin/sh\necho \"$0 $*\" > rebooted\n");
        std::fs::set_permissions(&reboot, std::fs::Permissions::from_mode(0o755)).unwrap();
        let allowed = format!("--allow-reboot={reboot} -f now");
        let node = cluster.node("pi-2", &["--slots", "1", "--board", "none", &allowed]).await;
        let refused = cluster.run(&["run", "sys.reboot.s().set(on='pi-1')"]).await;
        let text = "this node may not be rebooted by tasks: start it with `broccoli node --allow-reboot`";
        assert_eq!(refused.code, Some(1));
        assert!(refused.stderr.contains(text), "{}", refused.stderr);
        let refused = cluster.run(&["run", "board.gpio_read.s(4).set(on='pi-2')"]).await;
        let text = "this node has no board: see `broccoli node --board`";
        assert!(refused.stderr.contains(text), "{}", refused.stderr);
        assert_eq!(cluster.run(&["run", "sys.reboot.s().set(on='pi-2')"]).await.ok(), "null\n");
        let ended = node.end().await;
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), "draining, because a task requested a reboot\n"));
        let said = std::fs::read_to_string(cluster.home.0.join("rebooted")).unwrap();
        assert_eq!(said, format!("{reboot} -f now\n"));
    }
}

#[tokio::test]
async fn an_origin_reboots_once_and_its_client_gets_the_result() {
    let cluster = Cluster::mosquitto().await;
    let args = ["--slots", "1", "--data", "pi-2", "--allow-reboot=true"];
    let node = cluster.node("pi-2", &args).await;
    cluster.run(&["drain", "pi-1"]).await.ok();
    let run = Process::start(&mut cluster.command(&["run", "sys.reboot.s().set(each=True)"]));
    let ended = node.end().await;
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), "draining, because a task requested a reboot\n"));
    let again = cluster.node("pi-2", &args).await;
    assert_eq!(run.end().await.ok(), "{\"pi-2\": null}\n");
    assert_eq!(cluster.run(&["run", "sys.ping()"]).await.ok(), "\"pong\"\n");
    again.signal("TERM").await;
    let stderr = again.end().await.stderr;
    assert!(!stderr.contains("reboot"), "{stderr}");
}

#[tokio::test]
async fn a_reboot_that_fails_is_told() {
    let cluster = Cluster::embedded().await;
    let node = cluster.node("pi-2", &["--slots", "1", "--allow-reboot=false"]).await;
    assert_eq!(cluster.run(&["run", "sys.reboot.s().set(on='pi-2')"]).await.ok(), "null\n");
    let ended = node.end().await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.ends_with("error: cannot reboot with `false`: exit status: 1\n"), "{}", ended.stderr);
}

#[tokio::test]
async fn a_board_that_is_none_is_refused_before_the_node_starts() {
    let cluster = Cluster::embedded().await;
    let wrong = cluster.run(&["node", "--board", "esp32"]).await;
    assert_eq!(wrong.code, Some(2));
    assert!(wrong.stderr.contains("expected simulated, linux, linux:gpiochip0 or none"), "{}", wrong.stderr);
    let other = cluster.run(&["node", "--name", "pi-2", "--board", "linux:null"]).await;
    assert_eq!(other.code, Some(2));
    assert!(other.stderr.starts_with("error: --board: cannot use /dev/null: "), "{}", other.stderr);
}

#[tokio::test]
async fn a_module_cannot_take_the_place_of_a_built_in_one() {
    let cluster = Cluster::embedded().await;
    cluster.home.write("sys.wasm", include_bytes!("../../../functions/tasks.wasm"));
    let refused = cluster.run(&["deploy", "sys.wasm"]).await;
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    let text = "error: nodes would refuse sys: every node has a module of this name by itself; choose another\n";
    assert_eq!(refused.stderr, text);
}
