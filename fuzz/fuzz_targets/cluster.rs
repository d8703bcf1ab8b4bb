//! Join tokens, cluster files, and server addresses.
#![no_main]
#![forbid(unsafe_code)]

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use broccoli_fuzz::mutate_cbor;
use broccoli_node::Cluster;
use broccoli_node::mqtt::ServerUrl;
use libfuzzer_sys::{fuzz_mutator, fuzz_target};

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| { mutate_cbor(data, size, max_size, seed) });

fuzz_target!(|data: &[u8]| {
    token(&format!("broccoli-{}", URL_SAFE_NO_PAD.encode(data)));
    let Ok(text) = std::str::from_utf8(data) else { return };
    token(text);
    if let Ok(cluster) = Cluster::from_json(text) {
        survives(&cluster);
    }
    if let Ok(server) = text.parse::<ServerUrl>() {
        assert_eq!(server.to_url_with_password().parse(), Ok(server));
    }
});

fn token(token: &str) {
    if let Ok(cluster) = Cluster::from_token(token) {
        survives(&cluster);
    }
}

/// A token that names its server gives the same cluster again.
fn survives(cluster: &Cluster) {
    let Some(server) = &cluster.server else { return };
    let again = Cluster::from_token(&cluster.token(server)).expect("its own token");
    assert_eq!((again.id, &again.server), (cluster.id, &cluster.server));
    assert_eq!(again.key.to_bytes(), cluster.key.to_bytes());
    assert_eq!(again.deploy_public, cluster.deploy_public);
}
