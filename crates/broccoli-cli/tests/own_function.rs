//! From an empty folder to one's own function on a running cluster, and to its next version.

// Helpers of tests, too, stop where something fails; the lint knows test functions only.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

#[test]
fn new_edit_deploy_run_and_again() {
    let home = Home::new();
    let mut up = home.up();
    let url = up.ready();

    assert_eq!(
        home.run(&["new", "my-tasks"]),
        "my-tasks/src/lib.rs holds two tasks. Next:\n\n  broccoli deploy my-tasks\n  broccoli run \"hello.s('you')\"\n"
    );
    home.run(&["deploy", "my-tasks", "--server", &url]);
    assert_eq!(home.run(&["run", "hello.s('you')", "--server", &url]), "\"hello you\"\n");

    home.edit("my-tasks/src/lib.rs", "\"hello \"", "\"good morning \"");
    home.run(&["deploy", "my-tasks", "--server", &url]);
    assert_eq!(home.run(&["run", "my_tasks.hello.s('you')", "--server", &url]), "\"good morning you\"\n");
    assert_eq!(home.run(&["call", "mean", "[1, 2, 6]", "--server", &url]), "3.0\n");
    let nothing = home.fails(&["call", "mean", "[]", "--server", &url], 1);
    assert!(nothing.contains("the mean of nothing"), "{nothing}");
    assert!(up.process.try_wait().unwrap().is_none(), "the node was not restarted");
}

#[test]
fn build_writes_the_module_and_says_what_is_in_it() {
    let home = Home::new();
    home.run(&["new", "my-tasks"]);
    let said = home.run(&["build", "my-tasks", "-o", "out.wasm"]);
    let wasm = fs::read(home.0.join("out.wasm")).unwrap();
    let (first, functions) = said.split_once('\n').unwrap();
    assert!(first.starts_with("my_tasks  ") && first.ends_with("  out.wasm"), "{said}");
    assert_eq!(functions, "  hello(name: str) -> str\n  mean(numbers: [f64]) -> !f64\n");

    // The flags do not depend on the file that sets them for Cargo, nor on the user's.
    fs::remove_dir_all(home.0.join("my-tasks/.cargo")).unwrap();
    home.run(&["build", "my-tasks", "-o", "again.wasm"]);
    assert_eq!(fs::read(home.0.join("again.wasm")).unwrap(), wasm);
}

#[test]
fn what_is_no_task_crate_is_refused_with_the_reason() {
    let home = Home::new();
    home.run(&["new", "my-tasks"]);
    assert_eq!(home.fails(&["new", "my-tasks"], 2), "error: my-tasks is not empty: name a new folder\n");
    assert_eq!(
        home.fails(&["build", "."], 2),
        "error: . holds no Cargo.toml: `broccoli new DIR` writes a task crate\n"
    );
    home.edit("my-tasks/src/lib.rs", "fn hello(", "fn hello(:");
    let said = home.fails(&["build", "my-tasks"], 1);
    assert!(said.contains("src/lib.rs:8"), "{said}");
    assert!(said.ends_with("error: the crate does not compile; see above\n"), "{said}");

    home.edit("my-tasks/src/lib.rs", "fn hello(:", "fn hello(");
    home.edit("my-tasks/src/lib.rs", "#[task]", "");
    let said = home.fails(&["build", "my-tasks"], 1);
    let refusal = "error: nodes would refuse my_tasks: the module has no section broccoli.tasks; it needs a task\n";
    assert!(said.ends_with(refusal), "{said}");

    home.edit("my-tasks/Cargo.toml", "crate-type = [\"cdylib\"]", "");
    let said = home.fails(&["build", "my-tasks"], 1);
    let advice = "put crate-type = [\"cdylib\"] under [lib] in its Cargo.toml\n";
    assert!(said.ends_with(advice), "{said}");
}

/// An empty home outside of every workspace, which goes with the value.
struct Home(PathBuf);

impl Home {
    fn new() -> Self {
        use std::sync::atomic::{AtomicU32, Ordering};
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let home = std::env::temp_dir().join(format!("broccoli-own-function-{}-{count}", std::process::id()));
        let _ = fs::remove_dir_all(&home);
        fs::create_dir_all(&home).unwrap();
        Self(home)
    }

    fn broccoli(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_broccoli"));
        command.args(args).current_dir(&self.0).stdin(Stdio::null());
        for name in ["BROCCOLI_CLUSTER", "BROCCOLI_SERVER", "CARGO_TARGET_DIR", "CARGO_BUILD_TARGET"] {
            command.env_remove(name);
        }
        // The compiler stays where it is in the real home, and everything that it needs is there.
        for (name, default) in [("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup")] {
            let default = || std::env::home_dir().unwrap().join(default).into();
            command.env(name, std::env::var_os(name).unwrap_or_else(default));
        }
        command.env("CARGO_NET_OFFLINE", "true").env("RUSTFLAGS", "-Ctarget-cpu=none-of-them");
        command.env("HOME", &self.0).env_remove("XDG_CONFIG_HOME").env_remove("XDG_DATA_HOME");
        command
    }

    fn run(&self, args: &[&str]) -> String {
        let output = self.broccoli(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn fails(&self, args: &[&str], code: i32) -> String {
        let output = self.broccoli(args).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        said
    }

    fn edit(&self, file: impl AsRef<Path>, from: &str, to: &str) {
        let file = self.0.join(file);
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(from));
        fs::write(file, text.replace(from, to)).unwrap();
    }

    fn up(&self) -> Up {
        let args = ["up", "--listen", "127.0.0.1:0", "--name", "own"];
        let mut process = self.broccoli(&args).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        Up { process, output }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A server and node that end with the value.
struct Up {
    process: Child,
    output: BufReader<ChildStdout>,
}

impl Up {
    /// The address of the server, once the node takes jobs.
    fn ready(&mut self) -> String {
        let mut lines = self.output.by_ref().lines().map_while(Result::ok);
        let ready = lines.find(|line| line.starts_with("ready")).unwrap();
        ready.split_whitespace().find(|word| word.starts_with("mqtt://")).unwrap().to_owned()
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
