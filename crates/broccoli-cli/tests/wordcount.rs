//! `wordcount` against a plain count of the same text.
#![cfg(feature = "embedded-server")]
// The lint does not know that a macro makes these functions tests.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;

use serde_json::{Value, json};

const FABLES: &str = include_str!("../data/fables-2190-words.txt");

/// The count without a cluster.
fn plainly(text: &str) -> Value {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let words: Vec<String> = text.split_whitespace().map(|word| word.replace([',', '.'], "")).collect();
    for word in words.iter().filter(|word| word.chars().count() > 3) {
        *counts.entry(word.clone()).or_default() += 1;
    }
    let mut counts: Vec<(String, u64)> = counts.into_iter().collect();
    // Stable: words of the same number stay in alphabetical order.
    counts.sort_by_key(|(_, number)| std::cmp::Reverse(*number));
    json!({"words": words.len(), "counts": counts})
}

on_both_servers! {
    async fn a_text_is_counted_word_by_word(cluster: Cluster) {
        let file = cluster.home.write("fables.txt", FABLES);
        let ended = cluster.run(&["wordcount", "--json", &file]).await;
        assert!(ended.stderr.starts_with("deployed tasks ("), "{}", ended.stderr);
        let counted: Value = serde_json::from_str(&ended.ok()).unwrap();
        assert_eq!(counted, plainly(FABLES));
        assert_eq!(counted["words"], 2190);

        let again = cluster.run(&["wordcount", "--json", "--chunks", "7", &file]).await;
        assert_eq!(again.stderr, "");
        assert_eq!(serde_json::from_str::<Value>(&again.ok()).unwrap(), counted);
    }
}

#[tokio::test]
async fn a_text_beyond_one_packet_is_counted_in_one_job() {
    let cluster = support::Cluster::embedded().await;
    let text = FABLES.repeat(60);
    let file = cluster.home.write("long.txt", &text);
    let counted = cluster.run(&["wordcount", "--json", "--chunks", "16", &file]).await.ok();
    assert_eq!(serde_json::from_str::<Value>(&counted).unwrap(), plainly(&text));
    let jobs: Value = serde_json::from_str(&cluster.run(&["jobs", "--json"]).await.ok()).unwrap();
    assert_eq!(jobs.as_array().map(Vec::len), Some(1), "{jobs}");
}

#[tokio::test]
async fn counts_are_printed_for_people_too() {
    let cluster = support::Cluster::embedded().await;
    let file = cluster.home.write("text.txt", "wolf wolf, Lamb. a Wolf lamb lamb Lamb\n");
    let other = cluster.home.write("other.txt", "wolf.");
    assert_eq!(cluster.run(&["wordcount", &file, &other]).await.ok(), "3 wolf\n2 Lamb\n2 lamb\n1 Wolf\n");
    let empty = cluster.home.write("empty.txt", "");
    assert_eq!(cluster.run(&["wordcount", "--json", &empty]).await.ok(), "{\"counts\":[],\"words\":0}\n");
}

#[tokio::test]
async fn without_the_deploy_key_it_says_what_is_missing() {
    let cluster = support::Cluster::embedded().await;
    let file = cluster.home.write("text.txt", "wolf");
    let key = cluster.home.0.join(".config/broccoli/cluster.json.deploy-key");
    std::fs::remove_file(&key).unwrap();
    cluster.run(&["wordcount", &file]).await.fails(
        2,
        &format!(
            "error: no function mapper is deployed yet, and there is no deploy key {}: \
             deploy on the machine where the cluster was created\n",
            key.display()
        ),
    );
}
