//! From an empty directory to a user's own function on a running cluster, and to its next version.
#![cfg(feature = "embedded-server")]
// The lint does not know that a macro makes these functions tests, nor their helpers.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::time::Duration;

use support::{Ended, Home};
use tokio::process::Command;
use tokio::time::timeout;

/// Longest time of a command that compiles the SDK and its dependencies.
const BUILD_PATIENCE: Duration = Duration::from_secs(300);

on_both_servers! {
    async fn new_edit_deploy_run_and_again(cluster: Cluster) {
        assert_eq!(
            cluster.run(&["new", "my-tasks"]).await.ok(),
            "my-tasks/src/lib.rs contains two tasks. Next:\n\n  broccoli deploy my-tasks\n  \
             broccoli run \"my_tasks.hello.s('you')\"\n"
        );
        build(cluster.command(&["deploy", "my-tasks"])).await.ok();
        assert_eq!(cluster.run(&["run", "hello.s('you')"]).await.ok(), "\"hello you\"\n");

        edit(&cluster.home, "my-tasks/src/lib.rs", "\"hello \"", "\"good morning \"");
        build(cluster.command(&["deploy", "my-tasks"])).await.ok();
        assert_eq!(cluster.run(&["run", "my_tasks.hello.s('you')"]).await.ok(), "\"good morning you\"\n");
        assert_eq!(cluster.run(&["call", "mean", "[1, 2, 6]"]).await.ok(), "3.0\n");
        let nothing = cluster.run(&["call", "mean", "[]"]).await;
        assert_eq!(nothing.code, Some(1));
        assert!(nothing.stderr.contains("the mean of nothing"), "{}", nothing.stderr);

        // It is the same node all the time.
        cluster.up.signal("TERM").await;
        cluster.up.end().await.ok();
    }
}

#[tokio::test]
async fn build_writes_the_module_and_says_what_is_in_it() {
    let home = Home::new();
    build(home.command(&["new", "my-tasks"])).await.ok();
    let said = build(home.command(&["build", "my-tasks", "-o", "out.wasm"])).await.ok();
    let wasm = fs::read(home.0.join("out.wasm")).unwrap();
    let (first, functions) = said.split_once('\n').unwrap();
    assert!(first.starts_with("my_tasks  ") && first.ends_with("  out.wasm"), "{said}");
    assert_eq!(functions, "  hello(name: str) -> str\n  mean(numbers: [f64]) -> !f64\n");

    // The module names no directory of this machine.
    for folder in [home.0.to_str().unwrap(), "/.cargo/", "/.rustup/", "rustlib/src"] {
        assert!(!String::from_utf8_lossy(&wasm).contains(folder), "{folder} stands in the module");
    }

    // The flags depend neither on the file that sets them for Cargo, nor on the user's flags.
    fs::remove_dir_all(home.0.join("my-tasks/.cargo")).unwrap();
    build(home.command(&["build", "my-tasks", "-o", "again.wasm"])).await.ok();
    assert_eq!(fs::read(home.0.join("again.wasm")).unwrap(), wasm);
}

#[tokio::test]
async fn what_is_no_task_crate_is_refused_with_the_reason() {
    let home = Home::new();
    build(home.command(&["new", "my-tasks"])).await.ok();
    assert_eq!(fails(&home, &["new", "my-tasks"], 2).await, "error: my-tasks is not empty: choose a new directory\n");
    assert_eq!(
        fails(&home, &["build", "."], 2).await,
        "error: . contains no Cargo.toml: `broccoli new DIR` creates a task crate\n"
    );
    edit(&home, "my-tasks/src/lib.rs", "fn hello(", "fn hello(:");
    let said = fails(&home, &["build", "my-tasks"], 1).await;
    assert!(said.contains("src/lib.rs:12"), "{said}");
    assert!(said.ends_with("error: the crate does not compile; see above\n"), "{said}");

    edit(&home, "my-tasks/src/lib.rs", "fn hello(:", "fn hello(");
    edit(&home, "my-tasks/src/lib.rs", "#[task]", "");
    let said = fails(&home, &["build", "my-tasks"], 1).await;
    let refusal = "error: nodes would refuse my_tasks: the module has no section broccoli.tasks; it needs a task\n";
    assert!(said.ends_with(refusal), "{said}");

    edit(&home, "my-tasks/src/lib.rs", "#![no_std]", "");
    let said = fails(&home, &["build", "my-tasks"], 1).await;
    assert!(said.contains("my-tasks/src/lib.rs has no `#![no_std]`: make it the first line"), "{said}");
    edit(
        &home,
        "my-tasks/src/lib.rs",
        "use broccoli_sdk::prelude::*;\n\n",
        "#![no_std]\nuse broccoli_sdk::prelude::*;\n",
    );

    edit(&home, "my-tasks/Cargo.toml", "crate-type = [\"cdylib\"]", "");
    let said = fails(&home, &["build", "my-tasks"], 1).await;
    let advice = "put crate-type = [\"cdylib\"] under [lib] in its Cargo.toml\n";
    assert!(said.ends_with(advice), "{said}");
}

/// One short error for each mistake. It says what to write instead.
#[tokio::test]
async fn mistakes_in_a_task_are_told_in_its_own_words() {
    let home = Home::new();
    build(home.command(&["new", "my-tasks"])).await.ok();
    for (task, errors) in [
        ("#[task] fn f(x: Reading) {}", &["`Reading` cannot be an argument of a task"][..]),
        ("#[task] fn f() -> Reading { Reading }", &["a task cannot give `Reading`"]),
        (
            "#[task] fn f(x: Vec<Reading>) -> Reading { Reading }",
            &["`Reading` cannot be an argument", "cannot give `Reading`"],
        ),
        ("#[task] async fn f() {}", &["a task is not async: it runs to its end, waits with sleep_ms(…)"]),
        ("#[task] fn f(x: &mut u32) {}", &["a task changes no argument of its caller"]),
        ("#[task] fn f(x: impl Into<u32>) {}", &["a task is not generic"]),
        ("#[task] fn f((x, y): (u32, u32)) {}", &["an argument of a task needs a plain name"]),
        ("#[task] struct Other;", &["#[task] stands on a function"]),
    ] {
        let text = format!("#![no_std]\n#![allow(unused)]\nuse broccoli_sdk::prelude::*;\nstruct Reading;\n{task}\n");
        home.write("my-tasks/src/lib.rs", text);
        let said = fails(&home, &["build", "my-tasks"], 1).await;
        assert!(errors.iter().all(|error| said.contains(error)), "{task}: {said}");
        let told = said.lines().filter(|line| line.starts_with("error")).count();
        // Cargo and the command each add a last line, and the type of a result is checked twice.
        let results = usize::from(task.contains("-> Reading"));
        assert_eq!(told, errors.len() + results + 2, "{task}: {said}");
    }
    // A common mistake.
    home.write(
        "my-tasks/src/lib.rs",
        "#![no_std]\nuse broccoli_sdk::prelude::*;\n#[task] fn f(x: u32) -> u32 { println!(\"x is {x}\"); println!(); eprintln!(\"!\"); x }\n",
    );
    build(home.command(&["build", "my-tasks"])).await.ok();
}

/// Runs a command that calls Cargo.
async fn build(mut command: Command) -> Ended {
    command.env_remove("CARGO_TARGET_DIR").env_remove("CARGO_BUILD_TARGET");
    // The compiler stays in the real home, with everything that it needs.
    for (name, default) in [("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup")] {
        let default = || std::env::home_dir().unwrap().join(default).into();
        command.env(name, std::env::var_os(name).unwrap_or_else(default));
    }
    // The user's flags must not matter. With these, nothing would compile.
    command.env("CARGO_NET_OFFLINE", "true").env("RUSTFLAGS", "-Ctarget-cpu=none-of-them");
    let output = timeout(BUILD_PATIENCE, command.output()).await.expect("the build ends in time").unwrap();
    Ended {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// The message of a command that must fail with this code.
async fn fails(home: &Home, args: &[&str], code: i32) -> String {
    let ended = build(home.command(args)).await;
    assert_eq!(ended.code, Some(code), "{args:?}: {}", ended.stderr);
    ended.stderr
}

fn edit(home: &Home, file: &str, from: &str, to: &str) {
    let file = home.0.join(file);
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains(from));
    fs::write(file, text.replace(from, to)).unwrap();
}
