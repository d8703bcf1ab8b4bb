//! Joining: the content of the token, and what a node on another machine needs.
#![cfg(feature = "embedded-server")]
// The lint does not know that a macro makes these functions tests.
#![allow(clippy::unwrap_used)]

mod support;

use std::os::unix::fs::PermissionsExt as _;

use broccoli_node::Cluster as Secrets;
use support::{Home, Process, finish, finish_with_input};

on_both_servers! {
    async fn a_token_from_standard_input_is_all_that_a_node_needs(cluster: Cluster) {
        let cluster = cluster.with_examples().await;
        let elsewhere = Home::new();
        let mut command = elsewhere.command(&["node", "--name", "pi-2", "--join", "-", "--label", "room=kitchen"]);
        let mut node = Process::start(command.stdin(std::process::Stdio::piped()));
        node.write(&format!("{}\n", cluster.token)).await;
        node.line("ready  pi-2  ").await;
        let expression = "add.s(1, 2).set(on='room=kitchen')";
        assert_eq!(cluster.run(&["run", expression]).await.ok(), "3\n");
        assert_eq!(cluster.run(&["run", "add.s(1, 2).set(on='pi-2')"]).await.ok(), "3\n");
        // A member can use the cluster.
        let path = elsewhere.0.join(".config/broccoli/cluster.json");
        node.note(&format!("stored the cluster in {}", path.display())).await;
        assert!(elsewhere.run(&["nodes"]).await.ok().contains("pi-2"));
        assert_eq!(elsewhere.run(&["run", expression]).await.ok(), "3\n");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        // The token does not contain the private key.
        let refused = elsewhere.run(&["deploy", "--examples"]).await;
        assert!(refused.stderr.contains("deploy on the machine where the cluster was created"), "{}", refused.stderr);
        node.signal("TERM").await;
        let ended = node.end().await;
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    }

    async fn a_token_comes_from_a_file_or_the_environment(cluster: Cluster) {
        let elsewhere = Home::new();
        elsewhere.write("token", format!("\u{feff}{}\n", cluster.token));
        let mut node = Process::start(&mut elsewhere.command(&["node", "--name", "pi-2", "--join", "@token"]));
        node.line("ready  pi-2  ").await;
        let third = Home::new();
        let mut command = third.command(&["node", "--name", "pi-3"]);
        let mut node = Process::start(command.env("BROCCOLI_JOIN", &cluster.token));
        node.line("ready  pi-3  ").await;
        let missing = elsewhere.run(&["node", "--join", "@missing"]).await;
        missing.fails(2, "error: cannot read the token from missing: No such file or directory (os error 2)\n");

        // The server, with its password, can be in a file, too.
        elsewhere.write("server", format!("{}\n", cluster.url));
        assert!(elsewhere.run(&["nodes", "--server", "@server"]).await.ok().contains("pi-3"));
        let mut nodes = elsewhere.command(&["nodes"]);
        nodes.env("BROCCOLI_SERVER", "@server");
        assert!(finish(nodes).await.ok().contains("pi-3"));
    }

    async fn a_token_that_opens_nothing_is_not_kept(cluster: Cluster) {
        let mut secrets = Secrets::from_token(&cluster.token).expect("a token");
        secrets.id = "other".parse().expect("a name");
        let server = cluster.url.replace("tester:", "stranger:").parse().expect("a url");
        let elsewhere = Home::new();
        let ended = elsewhere.run(&["node", "--join", &secrets.token(&server)]).await;
        assert_eq!(ended.code, Some(3), "{}", ended.stderr);
        assert_eq!(std::fs::read_dir(&elsewhere.0).unwrap().count(), 0);
    }

    async fn the_token_holds_the_cluster_key_but_no_private_deploy_key(cluster: Cluster) {
        let secrets = Secrets::from_token(&cluster.token).expect("a token");
        let file = cluster.home.cluster_file();
        assert_eq!(secrets.id.as_str(), file["cluster"]);
        assert_eq!(hex(&secrets.key.to_bytes()), file["key"]);
        assert_eq!(hex(&secrets.deploy_public.0), file["deploy_public"]);
        assert_eq!(secrets.server.map(|server| server.to_url_with_password()), Some(cluster.url.clone()));

        let path = cluster.home.0.join(".config/broccoli/cluster.json.deploy-key");
        let private = std::fs::read_to_string(&path).unwrap();
        let token = decoded(&cluster.token);
        assert!(hex(&token).contains(file["key"].as_str().unwrap()), "the token is decoded");
        assert!(!hex(&token).contains(private.trim()), "the private deploy key is in the token");
        for name in ["cluster.json", "cluster.json.deploy-key"] {
            let mode = std::fs::metadata(path.with_file_name(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }
}

#[tokio::test]
async fn what_is_no_token_is_refused() {
    let home = Home::new();
    let ended = finish_with_input(home.command(&["node", "--join", "-"]), "").await;
    ended.fails(2, "error: this is not a join token: `broccoli token` prints one where the cluster runs\n");
}

#[tokio::test]
async fn init_makes_a_cluster_once() {
    let home = Home::new();
    let said = home.run(&["init", "--out", "my.json"]).await.ok();
    let cluster: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(home.0.join("my.json")).unwrap()).unwrap();
    let id = cluster["cluster"].as_str().unwrap();
    assert_eq!(
        said,
        format!(
            "cluster {id}\n  my.json  the cluster's key, for its nodes and clients\n  \
             my.json.deploy-key  the private key that signs functions; keep it here\n"
        )
    );
    home.run(&["init", "--out", "my.json"])
        .await
        .fails(2, "error: my.json exists: it holds the key of a cluster; choose another file with --out\n");
}

/// Decodes the bytes of a token with an independent base64url decoder.
fn decoded(token: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let digits = token.strip_prefix("broccoli-").unwrap().bytes();
    let values = digits.map(|digit| DIGITS.iter().position(|known| *known == digit).unwrap());
    let bits: String = values.map(|value| format!("{value:06b}")).collect();
    bits.as_bytes()
        .chunks_exact(8)
        .map(|byte| u8::from_str_radix(std::str::from_utf8(byte).unwrap(), 2).unwrap())
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
