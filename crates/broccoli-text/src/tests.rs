//! The text form: tables of texts with their canvases, and of errors.

use broccoli_proto::Form;

use super::*;

/// Each text and the canonical print of its canvas.
fn assert_prints(table: &[(&str, &str)]) {
    for (source, expected) in table {
        let program = parse(source).unwrap_or_else(|error| panic!("{source}\n{error}"));
        assert_eq!(print(&program.canvas), *expected, "{source}");
        assert_eq!(parse(expected).map(|program| program.canvas), Ok(program.canvas), "{source}");
    }
}

/// Each text and its whole error, without the lines that show the position.
fn assert_fails(table: &[(&str, &str)]) {
    let shown = |source: &str| match parse(source) {
        Ok(program) => format!("no error: {}", print(&program.canvas)),
        Err(error) => format!("{}:{}: {}", error.line, error.column, error.message),
    };
    let wrong = table.iter().filter(|(source, expected)| shown(source) != *expected);
    let wrong: Vec<_> = wrong.map(|(source, _)| (source, shown(source))).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn signatures() {
    assert_prints(&[
        ("add.s(2, 2)", "add.s(2, 2)"),
        ("add", "add.s()"),
        ("add()", "add.s()"),
        ("add(2, 2)", "add.s(2, 2)"),
        ("tasks.add.s(2, 2)", "tasks.add.s(2, 2)"),
        ("proj.tasks.map.s(1)", "proj.tasks.map.s(1)"),
        ("add.si(1)", "add.si(1)"),
        ("add.s(1, y=2)", "add.s(1, y=2)"),
        ("add.s(x=1, y=2,)", "add.s(x=1, y=2)"),
        ("f.s(0, '', None, [], {}, False)", "f.s(0, \"\", None, [], {}, False)"),
        ("add.s(2).set(immutable=True)", "add.si(2)"),
        ("add.si(2).set(immutable=False)", "add.s(2)"),
        ("chain.s(1)", "chain.s(1)"),
    ]);
}

#[test]
fn calls_prepend_their_arguments() {
    assert_prints(&[
        ("f.s(10)(30)", "f.s(30, 10)"),
        ("f.s(10)(20, 30)", "f.s(20, 30, 10)"),
        ("f.s(10)(30, y=1)", "f.s(30, 10, y=1)"),
        ("f.s(y=2, z=3)(y=1)", "f.s(z=3, y=1)"),
        ("f.si(10)(30)", "f.si(10)"),
        ("f.si(10)(y=1)", "f.si(10)"),
        ("c = add.s(4) | mul.s(8)\nc(16)", "chain(add.s(16, 4), mul.s(8))"),
        ("group(f.s(1), g.s(2))(0)", "group(f.s(0, 1), g.s(0, 2))"),
        ("chord([f.s(1)], g.s())(7)", "chord([f.s(7, 1)], g.s())"),
        ("chain(group(f, g), h)(7)", "chain(group(f.s(7), g.s(7)), h.s())"),
        ("f.map([1])(7)", "f.map([1])"),
        ("add.delay(2, 2)", "add.s(2, 2)"),
        ("add.s(2).delay(1)", "add.s(1, 2)"),
        ("add.apply_async((2, 2))", "add.s(2, 2)"),
        ("add.apply_async([2], {'y': 3}, countdown=1)", "add.s(2, y=3).set(countdown=1)"),
        ("add.apply_async(args=(2,), kwargs={'y': 3})", "add.s(2, y=3)"),
        ("add.apply_async(None, None)", "add.s()"),
        ("add.apply_async((2, 2), link=mul.s(3), link_error=f)", "add.s(2, 2).link(mul.s(3)).on_error(f.s())"),
        ("add.signature((2, 2), priority=1)", "add.s(2, 2).set(priority=1)"),
    ]);
}

#[test]
fn there_is_one_nan() {
    let canvas = |source: &str| parse(source).map(|program| program.canvas);
    assert_eq!(canvas("f.s(-float('nan'))"), canvas("f.s(float('nan'))"));
}

#[test]
fn chains() {
    assert_prints(&[
        ("chain(add.s(4, 4), mul.s(8), mul.s(10))", "chain(add.s(4, 4), mul.s(8), mul.s(10))"),
        ("Chain([add.s(4, 4), mul.s(8)])", "chain(add.s(4, 4), mul.s(8))"),
        ("chain(f.s(i) for i in range(2))", "chain(f.s(0), f.s(1))"),
        ("chain(f)", "chain(f.s())"),
        ("f | g | h", "chain(f.s(), g.s(), h.s())"),
        ("(f | g) | h", "chain(f.s(), g.s(), h.s())"),
        ("f | (g | h)", "chain(f.s(), g.s(), h.s())"),
        ("chain(f, g) | chain(h, i)", "chain(f.s(), g.s(), h.s(), i.s())"),
        ("chain(chain(f, g), h)", "chain(chain(f.s(), g.s()), h.s())"),
        ("(f | g).set(priority=1) | h", "chain(chain(f.s(), g.s()).set(priority=1), h.s())"),
        ("(f | g).link(l) | h", "chain(chain(f.s(), g.s()).link(l.s()), h.s())"),
        ("f | group(g, h)", "chain(f.s(), group(g.s(), h.s()))"),
        ("group(f, g) | h", "chain(group(f.s(), g.s()), h.s())"),
    ]);
}

#[test]
fn groups_and_chords() {
    assert_prints(&[
        ("group()", "group()"),
        ("group([])", "group()"),
        ("group(range(0))", "group()"),
        ("group(f)", "group(f.s())"),
        ("group(group(f))", "group(group(f.s()))"),
        ("group([f, g])", "group(f.s(), g.s())"),
        ("group(f.s(i) for i in range(3) if i % 2 == 0)", "group(f.s(0), f.s(2))"),
        ("chord([f, g], h)", "chord([f.s(), g.s()], h.s())"),
        ("chord([f, g])(h)", "chord([f.s(), g.s()], h.s())"),
        ("chord([f, g])(body=h)", "chord([f.s(), g.s()], h.s())"),
        ("chord([f, g], body=h)", "chord([f.s(), g.s()], h.s())"),
        ("chord(f, h)", "chord([f.s()], h.s())"),
        ("chord([], h)", "chord([], h.s())"),
        ("chord(group(f, g), h)", "chord([f.s(), g.s()], h.s())"),
        ("chord([group(f, g)], h)", "chord([group(f.s(), g.s())], h.s())"),
        ("chord(group(f).set(priority=1))(h)", "chain(group(f.s()).set(priority=1), h.s())"),
        ("chord((f.s(i) for i in range(2)), h)", "chord([f.s(0), f.s(1)], h.s())"),
        ("chord([f])(g) | h", "chain(chord([f.s()], g.s()), h.s())"),
        ("Chord(f.s(i) for i in xrange(2))(g.s()).get()", "chord([f.s(0), f.s(1)], g.s())"),
        ("chord([f])(g)()", "chord([f.s()], g.s())"),
    ]);
}

#[test]
fn maps_and_chunks() {
    assert_prints(&[
        ("f.map([1, 'a', None])", "f.map([1, \"a\", None])"),
        ("f.map(range(3))", "f.map([0, 1, 2])"),
        ("f.map(i * i for i in range(3))", "f.map([0, 1, 4])"),
        ("f.starmap([(1, 2), [3, 4], ()])", "f.starmap([[1, 2], [3, 4], []])"),
        ("f.starmap(range(0))", "f.starmap([])"),
        ("add.chunks(zip(range(2), range(2)), 10)", "add.chunks([[0, 0], [1, 1]], 10)"),
        ("add.chunks([(1, 1)], n=2)", "add.chunks([[1, 1]], 2)"),
        ("add.chunks([(1, 1)], size=2)", "add.chunks([[1, 1]], size=2)"),
        ("add.chunks([], 3)", "add.chunks([], 3)"),
        ("~f.map([1])", "f.map([1])"),
        ("f.map([1]).set(priority=2)", "f.map([1]).set(priority=2)"),
    ]);
}

#[test]
fn options_keep_their_units() {
    assert_prints(&[
        ("f.set(retries=3)", "f.s().set(retries=3)"),
        ("f.s().set(timeout=1.5, countdown=2)", "f.s().set(timeout=1.5, countdown=2)"),
        ("f.s().set(timeout=0.0014)", "f.s().set(timeout=0.001)"),
        ("f.s().set(priority=9).set(priority=1)", "f.s().set(priority=1)"),
        ("f.s().set(rate='10/s')", "f.s().set(rate=\"10/s\")"),
        ("f.s().set(rate='100/m')", "f.s().set(rate=\"100/m\")"),
        ("f.s().set(rate='1/h')", "f.s().set(rate=\"1/h\")"),
        ("f.s().set(rate=10)", "f.s().set(rate=\"10/s\")"),
        ("f.s().set(rate='10')", "f.s().set(rate=\"10/s\")"),
        ("f.s().set(rate=0.5)", "f.s().set(rate=\"1/2s\")"),
        ("f.s().set(rate='2.50/s')", "f.s().set(rate=\"5/2s\")"),
        ("f.s().set(rate='60/60s')", "f.s().set(rate=\"60/m\")"),
        ("f.s().set(rate='3/400ms')", "f.s().set(rate=\"3/400ms\")"),
        ("f.s().set(on='n1')", "f.s().set(on=\"n1\")"),
        ("f.s().set(on=['led', 'room=kitchen'])", "f.s().set(on=[\"led\", \"room=kitchen\"])"),
        ("f.s().set(on=['led'])", "f.s().set(on=\"led\")"),
        (
            "f.s().set(deadline=9, partial=True, each=True, eta=1.8e9, expires=60, jitter=False, backoff_max=8, backoff=0.5)",
            "f.s().set(\n    backoff=0.5,\n    backoff_max=8,\n    jitter=False,\n    expires=60,\n    eta=1800000000,\n    \
             each=True,\n    partial=True,\n    deadline=9\n)",
        ),
        ("group(f, g).set(timeout=1)", "group(f.s(), g.s()).set(timeout=1)"),
        ("(f | g).set(immutable=True)", "chain(f.si(), g.s())"),
        ("group(f, g).set(immutable=True)", "group(f.si(), g.si())"),
    ]);
}

#[test]
fn callbacks_return_the_signature_they_were_called_on() {
    assert_prints(&[
        ("f.s(1).link(g)", "f.s(1).link(g.s())"),
        ("f.s(1).link(g.s(2)).link(h).on_error(e)", "f.s(1).link(g.s(2)).link(h.s()).on_error(e.s())"),
        ("f.s().link_error(e, e2)", "f.s().on_error(e.s()).on_error(e2.s())"),
        ("group(f, g).link(h)", "group(f.s(), g.s()).link(h.s())"),
        ("f.link(g | h)", "f.s().link(chain(g.s(), h.s()))"),
        // Python changes the object of the variable.
        (
            "s = add.s(2, 2)\ns.link(mul.s(4))\ns.set(priority=2).on_error(e)\ns()",
            "add.s(2, 2).set(priority=2).link(mul.s(4)).on_error(e.s())",
        ),
        ("s = f.s()\nt = s.set(priority=2)(1)\ns", "f.s().set(priority=2)"),
    ]);
}

#[test]
fn several_lines() {
    assert_prints(&[
        (
            "callback = tsum.s()\nheader = [add.s(i, i) for i in range(2)]\nresult = chord(header)(callback)\nresult.get()",
            "chord([add.s(0, 0), add.s(1, 1)], tsum.s())",
        ),
        ("chain(  # comment\n  f,\n\n  g,\n)\n\n# end\n", "chain(f.s(), g.s())"),
        ("f | \\\n  g", "chain(f.s(), g.s())"),
        ("x = f; x | g", "chain(f.s(), g.s())"),
        ("from celery import chain, group\nfrom proj.tasks import add\nimport x\nadd.s(2, 2)", "add.s(2, 2)"),
        ("  f.s('# no comment')  # comment", "f.s(\"# no comment\")"),
        ("f.s(1)\r\n", "f.s(1)"),
        ("g = f.s(1)\nf.s(2)\nh = g", "f.s(1)"),
        ("f = add\nf.s(1)", "add.s(1)"),
    ]);
}

#[test]
fn pasted_sessions() {
    assert_prints(&[
        (">>> res = add.s(2, 2)\n>>> res.get()\n4\n", "add.s(2, 2)"),
        (
            "Some text (with brackets\n>>> group(\n...     add.s(2, 2),\n...     add.s(4, 4),\n... )\n[4, 8\n",
            "group(add.s(2, 2), add.s(4, 4))",
        ),
        ("    >>>add.s(2, 2)\n    4", "add.s(2, 2)"),
        (">>> add.s(2, 2)\n<AsyncResult: 1-2>\n...\n", "add.s(2, 2)"),
        (">>> # comment\n>>>\n>>> f", "f.s()"),
    ]);
}

#[test]
fn values() {
    assert_prints(&[
        ("f.s(0x1f, 0o17, 0b11, 1_000)", "f.s(31, 15, 3, 1000)"),
        ("f.s(0x_1_f, 1_0.0_5, 1_0e1_0)", "f.s(31, 10.05, 100000000000.0)"),
        ("\u{feff}f.s(1)", "f.s(1)"),
        ("f.s(9223372036854775807, -9223372036854775808)", "f.s(9223372036854775807, -9223372036854775808)"),
        ("f.s(1.0, .5, 5., 1e3, 1.5e-3, -0.0, 1e300)", "f.s(1.0, 0.5, 5.0, 1000.0, 0.0015, -0.0, 1e300)"),
        ("f.s(float('nan'), float('inf'), -1e999)", "f.s(float(\"nan\"), float(\"inf\"), float(\"-inf\"))"),
        ("f.s('it''s', \"a\" 'b')", "f.s(\"its\", \"ab\")"),
        (r"f.s('\'\n\t\r\\\x41\u00e4\U0001F600', r'\n')", "f.s(\"'\\n\\t\\r\\\\Aä😀\", \"\\\\n\")"),
        ("f.s('\u{7f}\u{2028}\u{200b}')", "f.s(\"\\x7f\\u2028\\u200b\")"),
        (r"f.s(b'a\x00\xff', rb'\x')", "f.s(b\"a\\x00\\xff\", b\"\\\\x\")"),
        ("f.s((), (1,), (1, 2), [1, (2,)], ((1)))", "f.s([], [1], [1, 2], [1, [2]], 1)"),
        ("f.s({'a': 1, 'b': {'c': [2]}, 3: 4, 'a': 5})", "f.s({\"a\": 5, \"b\": {\"c\": [2]}, 3: 4})"),
        ("f.s(range(3), list(range(2, 8, 3)), range(3, 0, -2), list())", "f.s([0, 1, 2], [2, 5], [3, 1], [])"),
        ("f.s(zip(range(1000000000000), [7, 8]), zip())", "f.s([[0, 7], [1, 8]], [])"),
        ("f.s([1] + [2], 'a' + 'b')", "f.s([1, 2], \"ab\")"),
    ]);
}

#[test]
fn arithmetic_is_pythons() {
    assert_prints(&[
        ("f.s(1 + 2 * 3 - 4, (1 + 2) * 3)", "f.s(3, 9)"),
        ("f.s(7 // 2, -7 // 2, 7 // -2, -7 % 3, 7 % -3)", "f.s(3, -4, -4, 2, -2)"),
        ("f.s(2 ** 10, -2 ** 2, 2 ** 3 ** 2, 2 ** -1, (-1) ** 4294967297)", "f.s(1024, -4, 512, 0.5, -1)"),
        ("f.s(7.5 // 2, -7.5 % 2, 1 + 0.5, 2 ** 0.5)", "f.s(3.0, 0.5, 1.5, 1.4142135623730951)"),
        ("f.s(- - 3, +3, -(3))", "f.s(3, 3, -3)"),
        (
            "f.s(1 < 2 <= 2, 1 == 1.0, 'a' != 'b', 1 == 'a', None == None, 2 > 1 >= 3)",
            "f.s(True, True, True, False, True, False)",
        ),
        ("f.s(-9223372036854775808 % -1)", "f.s(0)"),
    ]);
}

#[test]
fn comprehensions() {
    assert_prints(&[
        ("f.s([i for i in range(5) if i % 2 if i > 1])", "f.s([3])"),
        ("f.s([i * 10 + j for i in range(2) for j in range(2)])", "f.s([0, 1, 10, 11])"),
        ("f.s([[j for j in range(i)] for i in range(3)])", "f.s([[], [0], [0, 1]])"),
        ("f.s([a + b for a, b in zip([1, 2], [3, 4])])", "f.s([4, 6])"),
        ("f.s([(a, b) for (a, b) in [(1, 2)]])", "f.s([[1, 2]])"),
        ("f.s([x for x, in [(1,)]])", "f.s([1])"),
        ("f.s([(i for i in range(2))])", "f.s([[0, 1]])"),
        ("f.s(list(i for i in range(2)), 1)", "f.s([0, 1], 1)"),
        ("i = 5\nf.s([i for i in range(2)], i)", "f.s([0, 1], 5)"),
        ("group(add.s(i, j) for i in range(2) for j in range(2) if i != j)", "group(add.s(0, 1), add.s(1, 0))"),
        (
            "group(s.set(priority=i) for i, s in [(1, f), (2, g)])",
            "group(f.s().set(priority=1), g.s().set(priority=2))",
        ),
    ]);
}

#[test]
fn waiting_is_for_the_client() {
    let wait = |source: &str| parse(source).map(|program| program.wait);
    assert_eq!(wait("f.s(1)"), Ok(None));
    assert_eq!(wait("f.delay(1).get()"), Ok(None));
    assert_eq!(wait("f.delay(1).get(timeout=None)"), Ok(None));
    assert_eq!(wait("f.delay(1).get(timeout=1.5)"), Ok(Some(Duration::from_millis(1500))));
    assert_eq!(wait("f.delay(1).get(5)"), Ok(Some(Duration::from_secs(5))));
}

#[test]
fn syntax_errors_say_what_was_expected() {
    assert_fails(&[
        ("", "1:1: nothing to run: expected a canvas such as `add.s(2, 2)`"),
        ("\n# only a comment\n", "2:17: nothing to run: expected a canvas such as `add.s(2, 2)`"),
        ("chain(add.s(4, 4)", "1:6: `(` is never closed: expected `)` before the end of the text"),
        ("chain(add.s(4, 4)]", "1:18: `]` does not close the `(` of line 1, column 6"),
        ("add.s(4, 4))", "1:12: `)` closes nothing: there is no `(` before it"),
        ("add.s(4 4)", "1:9: expected an operator, `,` or `)`, found the number 4"),
        ("add.s(4,\n  4 5)", "2:5: expected an operator, `,` or `)`, found the number 5"),
        ("add.s(4, 4) mul.s(2)", "1:13: expected an operator or the end of the line, found `mul`"),
        ("add.", "1:5: expected a name after `.`, found the end of the line"),
        ("add.s(, 1)", "1:7: expected an expression, found `,`"),
        ("| add", "1:1: expected an expression, found `|`"),
        ("add.s(1) |", "1:11: expected an expression, found the end of the line"),
        ("add.s(1) + ", "1:12: expected an expression, found the end of the line"),
        ("add.s('abc)", "1:7: the string is not closed: expected ' before the end of the line"),
        ("add.s(\"\"\"abc\"\"\")", "1:7: strings with three quotes are not supported: use \"…\" and \\n"),
        ("add.s('\\q')", "1:8: unknown escape `\\q`: write `\\\\` for a backslash"),
        ("add.s('\\x4')", "1:8: `\\x` needs 2 hexadecimal digits of a code point"),
        ("add.s('\\ud800')", "1:8: `\\u` needs 4 hexadecimal digits of a code point"),
        ("add.s(b'ä')", "1:9: bytes hold ASCII and \\xNN only"),
        ("add.s(“a”)", "1:7: `“` is not a quote: use \" or '"),
        ("add.s(12ab)", "1:7: `12ab` is not a number"),
        ("add.s(012)", "1:7: `012` is not a number"),
        ("add.s(1__0)", "1:7: `1__0` is not a number"),
        ("add.s(1_)", "1:7: `1_` is not a number"),
        ("add.s(0x1__f)", "1:7: `0x1__f` is not a number"),
        ("add.s(1._5)", "1:7: `1._5` is not a number"),
        ("add.s(1_0_e5)", "1:7: `1_0_e5` is not a number"),
        ("add.s(1_000_000_000_000_000_000_000)", "1:7: `1_000_000_000_000_000_000_000` does not fit in 64 bits"),
        ("add.s(f'{x}')", "1:7: f-strings are not supported: write the text itself, or join texts with `+`"),
        ("add.s(rF\"{x}\")", "1:7: f-strings are not supported: write the text itself, or join texts with `+`"),
        (
            "while True: f",
            "1:1: `while` is no statement here: a text is one canvas, and its loops are `[f.s(i) for i in range(3)]`",
        ),
        ("add.s(1.2.3)", "1:10: expected an operator, `,` or `)`, found the number 0.3"),
        ("add.s(4 / 2)", "1:9: `/` is not supported: use `//`, or compute in a function"),
        ("add.s(4 & 2)", "1:9: expected an expression, found `&`"),
        ("add.s(*xs)", "1:7: `*xs` is not supported: write the arguments one by one, or call `f.starmap([xs])`"),
        ("add.s(**xs)", "1:7: `**xs` is not supported: write each `name=value`"),
        ("add.s(x=1, 2)", "1:12: expected `name=value`: an argument without name follows one with a name"),
        ("add.s(x=1, x=2)", "1:12: argument `x` is there twice"),
        ("add.s(if=1)", "1:7: expected the name of an argument, found `if`"),
        (
            "add.s(lambda x: x)",
            "1:7: `lambda` is not supported: deploy a module that has the function, and call it by its name",
        ),
        ("add.s(1 if x else 2)", "1:9: expected an operator, `,` or `)`, found `if`"),
        ("add.s(not x)", "1:7: expected an expression, found `not`: Python's `not` is not supported"),
        ("xs[0]", "1:3: expected an operator or the end of the line, found `[`"),
        ("f(x for x in xs, 1)", "1:3: a generator beside other arguments needs parentheses of its own"),
        ("f(1, x for x in xs)", "1:6: a generator beside other arguments needs parentheses of its own"),
        ("[x for 1 in xs]", "1:8: expected a loop variable after `for`, found the number 1"),
        ("[x for x of xs]", "1:10: expected `in` after the loop variable, found `of`"),
        ("[x for x in range(3)", "1:1: `[` is never closed: expected `]` before the end of the text"),
        ("f.s({1, 2})", "1:7: expected `:` and a value, found `,`"),
        ("f.s({'a': 1 'b': 2})", "1:13: expected an operator, `,` or `}`, found a string"),
        ("for = 1", "1:1: `for` cannot be assigned"),
        ("a, b = 1, 2", "1:2: expected an operator or the end of the line, found `,`"),
        ("import tasks as t\nt.add.s(1)", "1:14: `as` is not supported: use the function's own name"),
        (">>> chain(f,\n>>> g", "1:10: `(` is never closed: expected `)` before the next `>>>`"),
    ]);
}

#[test]
fn what_was_probably_meant_is_said() {
    let compute = "compute in a function of the cluster, which takes results too (`chain`, `chord`)";
    let of_python = |name: &str, column: u32| format!("1:{column}: `{name}` of Python is not there: {compute}");
    assert_fails(&[
        ("gruop(add.s(1, 2))", "1:7: no form `gruop`: did you mean `group`?"),
        ("chian(f, g.s(2))", "1:7: no form `chian`: did you mean `chain`?"),
        ("cord([f.s(1), f.s(2)])(g)", "1:6: no form `cord`: did you mean `chord`?"),
        ("f.s(x=gruop(g))", "1:13: no form `gruop`: did you mean `group`?"),
        ("print(add.s(1, 2).get())", "1:7: `print` is not needed: the result of the last line is printed"),
        ("map(f, [1])", "1:5: `map` is called on a function: `f.map([1, 2])`"),
        ("sum([f.s(1), f.s(2)])", &of_python("sum", 5)),
        ("f.s(1).set(retires=3)", "1:12: unknown option `retires`: did you mean `retries`?"),
        ("f.s(1).liink(g)", "1:7: a signature has no `.liink`: did you mean `.link`?"),
    ]);
    // A function of any name accepts values.
    assert_prints(&[("gruop(1)", "gruop.s(1)"), ("print.s('a')", "print.s(\"a\")")]);
}

#[test]
fn names_are_near_or_not() {
    let known = ["tasks.add", "add", "mul", "group"];
    let near = |name: &str| closest(name, known);
    assert_eq!(
        [near("ad"), near("aad"), near("gruop"), near("tasks.ad")],
        [Some("add"), Some("add"), Some("group"), Some("tasks.add")]
    );
    assert_eq!([near("x"), near("soil"), near(""), near("groupgroup")], [None; 4]);
    assert_eq!((method("mpa"), method("soil")), (Some("map"), None));
}

#[test]
fn misplaced_values_are_named() {
    assert_fails(&[
        ("chain()", "1:1: the chain is empty: expected at least one signature"),
        ("f | chain([])", "1:5: the chain is empty: expected at least one signature"),
        ("chord()", "1:1: the chord has no header: write `chord(header)(body)`"),
        ("chord([f])", "1:1: a chord without a body: write `chord(header)(body)`"),
        ("chord([f])()", "1:11: a chord without a body: write `chord(header)(body)`"),
        ("chord([f]) | g", "1:1: a chord without a body: write `chord(header)(body)`"),
        ("group(chord([f]), g)", "1:7: a chord without a body: write `chord(header)(body)`"),
        ("chord(f, g, h)", "1:13: a chord has a header and a body: put the header's signatures into a list"),
        ("chord([f])(g, h)", "1:15: a chord has one body: expected `)`"),
        ("chord([f])([g])", "1:12: the body of the chord must be a signature such as `f.s(1)`, found a list"),
        ("group(f.s(1), 5)", "1:15: item 1 of the group must be a signature such as `f.s(1)`, found the number 5"),
        (
            "group([f.s(1),\n  'x'])",
            "2:3: item 1 of the group must be a signature such as `f.s(1)`, found the string \"x\"",
        ),
        ("group([f], [g])", "1:7: item 0 of the group must be a signature such as `f.s(1)`, found a list"),
        ("group(range(3))", "1:7: item 0 of the group must be a signature such as `f.s(1)`, found the number 0"),
        ("chain(f.s(1), None)", "1:15: item 1 of the chain must be a signature such as `f.s(1)`, found `None`"),
        ("group(f, x=1)", "1:10: `group` has no argument `x`"),
        ("f.s(1) | 5", "1:10: each side of `|` must be a signature such as `f.s(1)`, found the number 5"),
        ("5 | f", "1:1: each side of `|` must be a signature such as `f.s(1)`, found the number 5"),
        ("f.s(g.s(1))", "1:5: argument 1 must be a value, found a signature"),
        ("f.s(x)", "1:5: argument 1 must be a value, found `x`, which has no value"),
        ("f.s([1, true])", "1:5: argument 1 must be a value, found `true`: Python writes `True`"),
        ("f.s(y=null)", "1:5: argument `y` must be a value, found `null`: Python writes `None`"),
        (
            "f.s(~g.s(1))",
            "1:5: argument 1 must be a value, found the result of a job, which is known only after it has run",
        ),
        (
            "f.delay(1).get() | g",
            "1:1: each side of `|` must be a signature such as `f.s(1)`, found the result of a job, which is known only after it has run",
        ),
        (
            "f.get().get()",
            "1:8: expected a canvas before `.get`, found the result of a job, which is known only after it has run",
        ),
        ("5", "1:1: the last line must be a signature such as `f.s(1)`, found the number 5"),
        ("[f, g]", "1:1: the last line must be a signature such as `f.s(1)`, found a list"),
        ("x = 'abc'", "1:5: the last line must be a signature such as `f.s(1)`, found the string \"abc\""),
        ("~5", "1:2: what `~` runs must be a signature such as `f.s(1)`, found the number 5"),
        ("5(1)", "1:2: expected a function or a canvas before `(`, found the number 5"),
        ("(5).s(1)", "1:4: expected a function before `.s`, found the number 5"),
        ("f.s(1).s(2)", "1:7: expected a function before `.s`, found a signature"),
        ("f.s(1).map([1])", "1:7: expected a function before `.map`, found a signature"),
        (
            "f.s(1).foo()",
            "1:7: a signature has no `.foo`: there are .delay, .apply_async, .set, .link, .on_error, .link_error, .get",
        ),
        (
            "f.s(1).state",
            "1:7: a signature has no `.state`: there are .delay, .apply_async, .set, .link, .on_error, .link_error, .get",
        ),
        ("f.map(5)", "1:7: `.map` needs a list, found the number 5"),
        ("f.map('abc')", "1:7: `.map` needs a list, found the string \"abc\""),
        ("f.map()", "1:2: `.map` takes one list, found 0 arguments"),
        ("f.map([1], [2])", "1:2: `.map` takes one list, found 2 arguments"),
        ("f.map([g.s(1)])", "1:7: an item of `.map` must be a value, found a signature"),
        (
            "f.starmap([(1, 2), 3])",
            "1:11: item 1 of `.starmap` must be a list or tuple of arguments, found the number 3",
        ),
        ("f.starmap(range(3))", "1:11: item 0 of `.starmap` must be a list or tuple of arguments, found the number 0"),
        (
            "f.starmap(['ab'])",
            "1:11: item 0 of `.starmap` must be a list or tuple of arguments, found the string \"ab\"",
        ),
        (
            "f.chunks([(1, 2), 3], 2)",
            "1:10: item 1 of `.chunks` must be a list or tuple of arguments, found the number 3",
        ),
        ("f.chunks([(1, 2)], 0)", "1:20: `n` of `.chunks` is 1 to 1000000, found the number 0"),
        ("f.chunks([(1, 2)], size=0)", "1:20: `size` of `.chunks` is 1 to 1000000, found the number 0"),
        ("f.chunks([(1, 2)], -1)", "1:20: `n` of `.chunks` is 1 to 1000000, found the number -1"),
        ("f.chunks([(1, 2)], True)", "1:20: `n` of `.chunks` is 1 to 1000000, found `True`"),
        ("f.chunks([(1, 2)])", "1:2: `.chunks` takes one of the number of bins and `size=`, the items of a bin"),
        (
            "f.chunks([(1, 2)], 2, size=3)",
            "1:2: `.chunks` takes one of the number of bins and `size=`, the items of a bin",
        ),
        ("f.chunks(5, 2)", "1:10: `.chunks` needs a list, found the number 5"),
        ("f.link()", "1:2: `.link` needs a signature"),
        ("f.link(5)", "1:8: the argument of `link` must be a signature such as `f.s(1)`, found the number 5"),
        (
            "f.on_error('x')",
            "1:12: the argument of `on_error` must be a signature such as `f.s(1)`, found the string \"x\"",
        ),
        ("f.get(1, 2)", "1:7: `.get` takes only a timeout in seconds"),
        ("f.get(propagate=False)", "1:7: `get` has no argument `propagate`"),
        ("f.get(timeout='x')", "1:7: `timeout` is a number of seconds, found the string \"x\""),
        ("f.apply_async(5)", "1:15: what `.apply_async` calls with must be a list, found the number 5"),
        ("f.apply_async((1,), 5)", "1:21: arguments by name must be a dict, found the number 5"),
        (
            "f.apply_async((1,), {'eta=k': 2})",
            "1:21: the name of an argument has letters, digits and `_`, and is no word of Python",
        ),
        ("f.apply_async((1,), {1: 2})", "1:21: the name of an argument must be a string, found the number 1"),
        ("f.ä.s(1)", "1:2: no function can be named `ä`"),
        ("ä.s(1)", "1:1: no function can be named `ä`: use letters, digits and _, at most 64"),
    ]);
}

#[test]
fn options_have_ranges() {
    assert_fails(&[
        ("f.set(5)", "1:7: `.set` takes options by name, such as `retries=3`"),
        (
            "f.set(queue='x')",
            "1:7: unknown option `queue`: there are retries, backoff, backoff_max, jitter, timeout, expires, eta, countdown, priority, rate, on, each, partial, deadline, immutable",
        ),
        ("f.set(priority=10)", "1:7: `priority` is 0 to 9, found the number 10"),
        ("f.set(priority=-1)", "1:7: `priority` is 0 to 9, found the number -1"),
        ("f.set(priority=True)", "1:7: `priority` is 0 to 9, found `True`"),
        ("f.set(retries=1001)", "1:7: `retries` is 0 to 1000, found the number 1001"),
        ("f.set(retries=1.0)", "1:7: `retries` is 0 to 1000, found the number 1.0"),
        ("f.set(timeout=0)", "1:7: `timeout` is 0.001 to 10000000000 seconds, found the number 0"),
        ("f.set(deadline=0)", "1:7: `deadline` is 0.001 to 10000000000 seconds, found the number 0"),
        (
            "f.set(rate='often')",
            "1:7: `rate` is a text such as \"10/s\", \"100/m\" or \"1/h\", or a number of tasks a second, found the string \"often\"",
        ),
        (
            "f.set(rate='1/d')",
            "1:7: `rate` is a text such as \"10/s\", \"100/m\" or \"1/h\", or a number of tasks a second, found the string \"1/d\"",
        ),
        (
            "f.set(rate=-1)",
            "1:7: `rate` is a text such as \"10/s\", \"100/m\" or \"1/h\", or a number of tasks a second, found the number -1",
        ),
        (
            "f.set(rate=None)",
            "1:7: `rate` is a text such as \"10/s\", \"100/m\" or \"1/h\", or a number of tasks a second, found `None`",
        ),
        ("f.set(rate=0)", "1:7: `rate` is more than 0 and at most 1000000 tasks a second, found the number 0"),
        (
            "f.set(rate='2000000/s')",
            "1:7: `rate` is more than 0 and at most 1000000 tasks a second, found the string \"2000000/s\"",
        ),
        ("f.set(timeout=-1)", "1:7: `timeout` is 0.001 to 10000000000 seconds, found the number -1"),
        ("f.set(countdown=-0.5)", "1:7: `countdown` is 0 to 10000000000 seconds, found the number -0.5"),
        ("f.set(timeout=1e11)", "1:7: `timeout` is 0.001 to 10000000000 seconds, found the number 100000000000.0"),
        ("f.set(timeout=float('nan'))", "1:7: `timeout` is 0.001 to 10000000000 seconds, found the number NaN"),
        ("f.set(expires='5s')", "1:7: `expires` is a number of seconds, found the string \"5s\""),
        ("f.set(eta=None)", "1:7: `eta` is a number of seconds, found `None`"),
        ("f.set(each=1)", "1:7: `each` is True or False, found the number 1"),
        ("f.set(immutable=1)", "1:7: `immutable` is True or False, found the number 1"),
        (
            "f.set(on='')",
            "1:7: `on` is a node, a label such as \"room=kitchen\" or a list of them, found an empty string",
        ),
        (
            "f.set(on=[])",
            "1:7: `on` is a node, a label such as \"room=kitchen\" or a list of them, found an empty list",
        ),
        (
            "f.set(on=['a', 5])",
            "1:7: `on` is a node, a label such as \"room=kitchen\" or a list of them, found the number 5",
        ),
        (
            "f.set(on=[str_ for str_ in zip(range(17))])",
            "1:7: `on` is a node, a label such as \"room=kitchen\" or a list of them, found more than 16",
        ),
    ]);
}

#[test]
fn computing_fails_at_its_place() {
    assert_fails(&[
        ("f.s(9223372036854775808)", "1:5: `9223372036854775808` does not fit in 64 bits"),
        ("f.s(-9223372036854775809)", "1:5: `-9223372036854775809` does not fit in 64 bits"),
        ("f.s(99999999999999999999)", "1:5: `99999999999999999999` does not fit in 64 bits"),
        ("f.s(9223372036854775807 + 1)", "1:27: the result does not fit in 64 bits"),
        ("f.s(2 ** 63)", "1:5: the result does not fit in 64 bits"),
        ("f.s(2 ** 10000000000)", "1:5: the result does not fit in 64 bits"),
        ("f.s(-9223372036854775808 // -1)", "1:29: the result does not fit in 64 bits"),
        ("f.s(--9223372036854775808)", "1:5: the result does not fit in 64 bits"),
        ("f.s(1 // 0)", "1:10: division by zero"),
        ("f.s(1 % 0.0)", "1:9: division by zero"),
        ("f.s(0 ** -1)", "1:5: division by zero"),
        ("f.s((-8) ** 0.5)", "1:6: the result is not a real number"),
        ("f.s(10.0 ** 400)", "1:5: the result does not fit in a float"),
        ("f.s('a' + 1)", "1:11: expected two numbers, found the string \"a\" and the number 1"),
        ("f.s('a' * 3)", "1:11: expected two numbers, found the string \"a\" and the number 3"),
        ("f.s(x + 1)", "1:9: expected two numbers, found `x`, which has no value and the number 1"),
        ("f.s([1] < [2])", "1:11: cannot compare a list with a list"),
        ("f.s('a' < 1)", "1:11: cannot compare the string \"a\" with the number 1"),
        ("f.s(range('3'))", "1:11: `range` takes integers, found the string \"3\""),
        ("f.s(range())", "1:5: `range` takes 1 to 3 integers, found 0"),
        ("f.s(range(1, 2, 0))", "1:5: the step of a range cannot be 0"),
        ("f.s(zip(3))", "1:9: `zip` takes lists, found the number 3"),
        ("f.s(list(3))", "1:10: the argument of `list` must be a list, found the number 3"),
        ("f.s(list([], []))", "1:5: `list` takes one argument, found 2"),
        ("f.s(float('x'))", "1:5: `float` takes a number or its text"),
        ("f.s([x for x in 3])", "1:17: what `for` iterates must be a list, found the number 3"),
        ("f.s([a for a, b in [(1, 2, 3)]])", "1:20: cannot unpack 3 values into 2 loop variables"),
        ("f.s([a for a, b in [5]])", "1:20: an item that is unpacked must be a list, found the number 5"),
        ("f.s({[]: 1})", "1:6: a key must be a string or an integer, found a list"),
    ]);
}

#[test]
fn limits_hold() {
    let nested = |open: &str, close: &str, n: usize| format!("f.s({}{})", open.repeat(n), close.repeat(n));
    let canvas = |depth: usize| format!("{}f{}", "group(".repeat(depth - 1), ")".repeat(depth - 1));
    assert!(parse(&nested("[", "]", 31)).is_ok());
    assert!(parse(&canvas(32)).is_ok());
    assert!(parse(&format!("f.s({}1)", "-".repeat(60))).is_ok());
    let chain = vec!["f"; 10_000].join(" | ");
    assert!(matches!(parse(&chain).unwrap().canvas.form, Form::Chain(steps) if steps.len() == 10_000));
    let sum = vec!["1"; 10_000].join(" + ");
    assert_eq!(print(&parse(&format!("f.s({sum})")).unwrap().canvas), "f.s(10000)");
    let doubled = |first: &str, line: &str| format!("{first}\n{}f.s(x)", line.repeat(40));
    assert_fails(&[
        (&nested("[", "]", 33), "1:5: lists are nested deeper than 32 levels"),
        (&nested("(", ")", 64), "1:68: brackets are nested deeper than 64 levels"),
        (&canvas(33), "1:1: the canvas is nested deeper than 32 levels"),
        (&format!("f.s({}1)", "-".repeat(200)), "1:132: nested deeper than 64 levels"),
        (&format!("f.s({}1)", "2 ** ".repeat(200)), "1:640: nested deeper than 64 levels"),
        ("f.map(range(1000001))", "1:7: the range has 1000001 items, more than 1000000"),
        (
            "f.map([0 for i in range(1000000) for j in range(1000000)])",
            "1:8: a comprehension makes more than 1000000 items",
        ),
        (
            "f.s([0 for i in range(1000000) for j in range(1000000) if 1 == 2])",
            "1:41: the text takes more than 10000000 steps to evaluate",
        ),
        ("group(f for i in range(1000000))", "1:7: the text takes more than 10000000 steps to evaluate"),
        ("group(f for i in range(250000))", "1:1: the canvas has more than 250000 signatures"),
        ("f.s(zip(range(2000000)))", "1:5: `zip` makes 2000000 items, more than 1000000"),
        (&doubled("x = 'a'", "x = x + x\n"), "27:9: the text makes more than 67108864 bytes of arguments"),
        (&doubled("x = [1]", "x = x + x\n"), "21:9: a list has more than 1000000 items"),
        (&doubled("x = [1]", "x = [x, x]\n"), "33:5: lists are nested deeper than 32 levels"),
        (
            &doubled("x = [1]", "x = [x, x]\n").replace("[x, x]", "[x, x, x]").replacen("x = [x, x, x]\n", "", 15),
            "27:5: the text takes more than 10000000 steps to evaluate",
        ),
        (&format!("x = f\n{}x", "x = group(x, x)\n".repeat(28)), "18:5: the canvas has more than 250000 signatures"),
        (&format!("f.s({})", vec!["1"; 300].join(",")), "1:517: a call has more than 256 arguments; pass a list"),
        (
            &format!("{}.s(1)", "f".repeat(65)),
            "1:1: no function can be named `fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff`: use letters, digits and _, at most 64",
        ),
        (&" ".repeat(SOURCE_BYTES_MAX + 1), "1:1: the text is longer than 1048576 bytes"),
    ]);
}

#[test]
fn an_error_shows_its_place() {
    let shown = |source: &str| parse(source).unwrap_err().to_string();
    assert_eq!(
        shown("group(f.s(1), 5)"),
        "line 1, column 15: item 1 of the group must be a signature such as `f.s(1)`, found the number 5\n  \
         group(f.s(1), 5)\n                ^"
    );
    assert_eq!(
        shown("header = [add.s(1, 1)]\nchord(header)(tsum.s(), 5)"),
        "line 2, column 25: a chord has one body: expected `)`\n  chord(header)(tsum.s(), 5)\n                          ^"
    );
    assert_eq!(shown(""), "line 1, column 1: nothing to run: expected a canvas such as `add.s(2, 2)`");
    let long = format!("f.s({}5 5{})", "'ä', ".repeat(100), ", 1".repeat(100));
    let window = format!("', {}5 5{},", "'ä', ".repeat(9), ", 1".repeat(16));
    let message = "line 1, column 507: expected an operator, `,` or `)`, found the number 5";
    assert_eq!(shown(&long), format!("{message}\n  {window}\n  {:>51}", "^"));
}

#[test]
fn long_canvases_are_indented() {
    let source = "chord([long_function_name.s(i, 'text', [i] * 1) for i in range(2)])(tsum.s())".replace(" * 1", "");
    let options = ".set(retries=3, timeout=10).link(another_function.s({'key': [1, 2, 3]}))";
    assert_eq!(
        print(&parse(&format!("{source}{options}")).unwrap().canvas),
        "chord(
    [long_function_name.s(0, \"text\", [0]), long_function_name.s(1, \"text\", [1])],
    tsum.s()
).set(retries=3, timeout=10).link(another_function.s({\"key\": [1, 2, 3]}))"
    );
}
