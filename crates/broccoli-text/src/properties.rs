//! Properties of the text form: printed text parses back, and no text causes a panic.

use broccoli_proto::options::Rate;
use broccoli_proto::{Canvas, Cbor, Form, Options, Split, Task};
use proptest::prelude::*;

use super::*;

fn names() -> impl Strategy<Value = String> {
    let first = "[a-zA-Z_][a-zA-Z0-9_]{0,8}".prop_filter("reserved", |name| parse::is_plain_name(name));
    let known = prop::sample::select(vec!["chain", "chord", "range", "s", "map", "set", "get", "add"]);
    let part = prop_oneof![first, known.prop_map(str::to_string)];
    prop::collection::vec(part, 1..4).prop_map(|parts| parts.join("."))
}

fn keywords() -> impl Strategy<Value = Vec<(String, Cbor)>> {
    let name = "[a-z]{1,6}".prop_filter("reserved", |name| parse::is_plain_name(name));
    prop::collection::btree_map(name, values(), 0..3).prop_map(|pairs| pairs.into_iter().collect())
}

fn values() -> impl Strategy<Value = Cbor> {
    let floats = prop_oneof![
        prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL | prop::num::f64::ZERO | prop::num::f64::INFINITE,
        Just(f64::NAN)
    ];
    let leaf = prop_oneof![
        Just(Cbor::null()),
        any::<bool>().prop_map(|value| Cbor::encode(&value)),
        any::<i64>().prop_map(|n| Cbor::encode(&n)),
        floats.prop_map(|x| Cbor::encode(&x)),
        any::<String>().prop_map(|text| Cbor::encode(&text)),
        prop::collection::vec(any::<u8>(), 0..5).prop_map(|b| Cbor::encode(&minicbor::bytes::ByteVec::from(b))),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| array(&items)),
            prop::collection::btree_map(any::<i64>(), inner, 0..3).prop_map(|pairs| {
                let mut bytes = vec![0xa0 + pairs.len() as u8];
                for (key, value) in &pairs {
                    bytes.extend_from_slice(Cbor::encode(key).as_bytes());
                    bytes.extend_from_slice(value.as_bytes());
                }
                Cbor::from_encoded(bytes)
            }),
        ]
    })
}

fn array(items: &[Cbor]) -> Cbor {
    Cbor::array(items.iter().map(Cbor::as_bytes))
}

fn arrays() -> impl Strategy<Value = Cbor> {
    prop::collection::vec(values(), 0..4).prop_map(|items| array(&items))
}

fn options() -> impl Strategy<Value = Options> {
    let ms = || prop::option::weighted(0.2, 0..=10_000_000_000_000u64);
    let flag = || prop::option::weighted(0.2, any::<bool>());
    let on = prop::collection::vec("[a-z=\"\\\\]{1,6}", 0..3);
    let limit = || prop::option::weighted(0.2, 1..=10_000_000_000_000u64);
    let rate = (1..=1_000u32, 1..=u32::MAX).prop_map(|(tasks, per_ms)| Rate { tasks, per_ms });
    let first = (prop::option::of(0..=1000u32), limit(), prop::option::of(0..=9u8), ms(), on, flag());
    let rate = prop::option::weighted(0.2, rate);
    let second = (flag(), ms(), ms(), flag(), limit(), ms(), limit(), rate);
    (first, second).prop_map(|(first, second)| {
        let (retries, timeout_ms, priority, countdown_ms, on, each) = first;
        let (partial, backoff_ms, backoff_max_ms, jitter, expires_ms, eta_unix_ms, deadline_ms, rate) = second;
        Options {
            retries,
            timeout_ms,
            priority,
            countdown_ms,
            on,
            each,
            partial,
            backoff_ms,
            backoff_max_ms,
            jitter,
            expires_ms,
            eta_unix_ms,
            deadline_ms,
            rate,
        }
    })
}

fn forms(inner: BoxedStrategy<Canvas>) -> impl Strategy<Value = Form> {
    let many = |range: std::ops::Range<usize>| prop::collection::vec(inner.clone(), range);
    prop_oneof![
        many(1..4).prop_map(Form::Chain),
        many(0..4).prop_map(Form::Group),
        (many(0..3), inner.clone()).prop_map(|(header, body)| Form::Chord { header, body: Box::new(body) }),
    ]
}

fn canvases() -> impl Strategy<Value = Canvas> {
    let argument_lists = || prop::collection::vec(arrays(), 0..4).prop_map(|items| array(&items));
    let split = prop_oneof![(1..=1_000_000u32).prop_map(Split::Bins), (1..=1_000_000u32).prop_map(Split::Size)];
    let task = (names(), arrays(), keywords(), any::<bool>())
        .prop_map(|(function, args, kwargs, immutable)| Form::Task(Task { function, args, kwargs, immutable }));
    let leaf = prop_oneof![
        4 => task,
        1 => (names(), arrays()).prop_map(|(function, items)| Form::Map { function, items }),
        1 => (names(), argument_lists()).prop_map(|(function, items)| Form::Starmap { function, items }),
        1 => (names(), argument_lists(), split).prop_map(|(function, items, split)| Form::Chunks { function, items, split }),
    ];
    leaf.prop_map(Canvas::from).prop_recursive(4, 24, 4, |inner| {
        let callbacks = || prop::collection::vec(inner.clone(), 0..2);
        (forms(inner.clone().boxed()), prop_oneof![Just(Options::default()), options()], callbacks(), callbacks())
            .prop_map(|(form, options, link, on_error)| Canvas { form, options, link, on_error })
    })
}

/// Texts of tokens, which often parse for a while.
fn token_soup() -> impl Strategy<Value = String> {
    let token = prop::sample::select(vec![
        "add",
        "i",
        "x",
        "=",
        "chain",
        "group",
        "chord",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        ",",
        ".s(",
        ".si(",
        ".map(",
        ".chunks(",
        ".set(",
        ".link(",
        ".get()",
        "()",
        "|",
        "~",
        "+",
        "-",
        "*",
        "**",
        "//",
        "%",
        "<",
        "==",
        "1",
        "0",
        "2.5",
        "9223372036854775808",
        "'a'",
        "b'\\xff'",
        "None",
        "for i in",
        "if",
        "range(3)",
        "zip(",
        "\n",
        "\n>>> ",
        "\n... ",
        "#",
        "\\",
        "'",
        "\\u",
        ":",
        ";",
        "priority=",
        "on=",
        "ä",
        "import",
        "float('nan')",
    ]);
    prop::collection::vec(token, 0..40).prop_map(|tokens| tokens.join(" "))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_printed_parses_back(canvas in canvases()) {
        let printed = print(&canvas);
        let program = parse(&printed).map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(program, Program { canvas, wait: None });
    }

    #[test]
    fn no_text_panics(source in prop_oneof![any::<String>(), token_soup(), "\\PC*"]) {
        match parse(&source) {
            Ok(program) => prop_assert_eq!(parse(&print(&program.canvas)).map(|p| p.canvas), Ok(program.canvas)),
            Err(error) => prop_assert!(error.line > 0 && error.column > 0 && !error.to_string().is_empty()),
        }
    }
}
