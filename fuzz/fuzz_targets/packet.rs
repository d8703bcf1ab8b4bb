//! Packets: the header, sealing, and the messages in an opened packet.
#![no_main]
#![forbid(unsafe_code)]

use broccoli_fuzz::mutate_cbor;
use broccoli_proto::message::Message;
use broccoli_proto::packet::{Address, Envelope, Header, MESSAGES_MAX, messages, open, seal};
use broccoli_proto::seal::ClusterKey;
use broccoli_proto::{Canvas, Cbor, Epoch, NodeId};
use libfuzzer_sys::{fuzz_mutator, fuzz_target};

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| { mutate_cbor(data, size, max_size, seed) });

fuzz_target!(|data: &[u8]| {
    forged(data);
    plaintext(data);
});

/// Bytes from a sender without the key: no packet opens.
fn forged(data: &[u8]) {
    let node = |name: &str| name.parse::<NodeId>().expect("a name");
    let key = ClusterKey::new([1; 32]);
    assert!(open(std::slice::from_ref(&key), node("pi-1"), &mut data.to_vec()).is_err());
    if let Ok(header) = minicbor::decode::<Header>(data) {
        let again = Cbor::encode(&header);
        assert_eq!(again.decode::<Header>(), Some(header));
    }

    let mut packet = Vec::new();
    let to = Address::Node(node("pi-2"));
    let (sender, epoch) = (node("pi-1"), Epoch([2; 16]));
    let envelope = Envelope { sender, to, epoch, sequence: 3, challenge: 4, proof: Some(5) };
    seal(&key, &envelope, &mut packet, |buf| buf.extend_from_slice(data));
    let opened = open(std::slice::from_ref(&key), node("pi-2"), &mut packet).map(|(_, plaintext)| plaintext);
    assert_eq!(opened, Ok(data));
}

/// Messages from a member of the cluster.
fn plaintext(data: &[u8]) {
    let mut accepted = 0;
    for message in messages(data).flatten() {
        accepted += 1;
        let written = Cbor::encode(&message);
        let again = written.decode::<Message>().expect("what was encoded decodes");
        assert_eq!(Cbor::encode(&again), written);
        if let Message::Submit(submit) = &message {
            let _ = Canvas::from_wire(submit.canvas.as_bytes());
        }
    }
    assert!(accepted <= MESSAGES_MAX);
}
