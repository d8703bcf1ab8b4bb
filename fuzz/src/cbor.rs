//! Mutates CBOR as a tree: lengths stay correct, so a mutation passes the first check.
//!
//! ```text
//! bytes ─read─► items ─change one or a few─► items ─write─► bytes
//! ```
//!
//! Byte strings that contain CBOR, such as arguments and canvases, are part of the tree.

use broccoli_abi::cbor::{Head, Reader};
use libfuzzer_sys::fuzzer_mutate;

use crate::{Random, replace};

/// Deepest nesting that is read and written.
const DEPTH_MAX: usize = 64;
/// Most mutations at once.
const CHANGES_MAX: usize = 4;
/// Numbers at which heads, types and limits change.
const NUMBERS: [u64; 17] = [
    0,
    1,
    2,
    9,
    10,
    23,
    24,
    127,
    255,
    256,
    65_535,
    65_536,
    i32::MAX as u64,
    u32::MAX as u64,
    1 << 32,
    i64::MAX as u64,
    u64::MAX,
];

/// Mutates `data[..size]` to at most `size_max` bytes and returns the new size.
type MutateBytes = fn(data: &mut [u8], size: usize, size_max: usize) -> usize;

#[derive(Clone, Debug, PartialEq)]
enum Item {
    Unsigned(u64),
    /// The number `-1 - n`.
    Negative(u64),
    Bytes(Vec<u8>),
    Text(Vec<u8>),
    /// A byte string that is a CBOR sequence.
    Embedded(Vec<Item>),
    Array(Vec<Item>),
    /// Keys and values, alternating.
    Map(Vec<Item>),
    Tag(u64, Vec<Item>),
    /// `false`, `true`, `null` and floats, as encoded.
    Plain(Vec<u8>),
}

/// Mutates the CBOR sequence in `data[..size]` and returns its new size, at most `size_max`. Data that is not CBOR, and
/// sometimes CBOR too, gets the byte mutations of the fuzzer.
pub fn mutate_cbor(data: &mut [u8], size: usize, size_max: usize, seed: u32) -> usize {
    let mut random = Random::new(seed);
    let changed = if random.one_in(4) { None } else { changed(&data[..size], &mut random, fuzzer_mutate) };
    changed.and_then(|new| replace(data, size_max, &new)).unwrap_or_else(|| fuzzer_mutate(data, size, size_max))
}

fn changed(bytes: &[u8], random: &mut Random, mutate: MutateBytes) -> Option<Vec<u8>> {
    let mut items = read_sequence(bytes, 0)?;
    for _ in 0..=random.below(CHANGES_MAX) {
        let donor = pick(&items, random).cloned();
        let target = random.below(count(&items));
        change_nth(&mut items, target, &mut |siblings, at| change(siblings, at, donor.as_ref(), random, mutate));
    }
    let mut out = Vec::new();
    items.iter().for_each(|item| write(item, &mut out));
    Some(out)
}

/// Reads all items. `None` if there are none, or if something is not CBOR.
fn read_sequence(bytes: &[u8], depth: usize) -> Option<Vec<Item>> {
    let mut reader = Reader::new(bytes);
    let mut items = Vec::new();
    while !reader.is_at_end() {
        items.push(read(bytes, &mut reader, depth)?);
    }
    (!items.is_empty()).then_some(items)
}

fn read(bytes: &[u8], reader: &mut Reader<'_>, depth: usize) -> Option<Item> {
    if depth == DEPTH_MAX {
        return None;
    }
    let start = reader.position();
    let many = |reader: &mut Reader<'_>, len: u64| -> Option<Vec<Item>> {
        (0..len).map(|_| read(bytes, reader, depth + 1)).collect()
    };
    Some(match reader.head().ok()? {
        Head::Int(n) if n < 0 => Item::Negative(u64::try_from(-1 - n).ok()?),
        Head::Int(n) => Item::Unsigned(u64::try_from(n).ok()?),
        Head::Bytes(content) => match read_sequence(content, depth + 1) {
            Some(items) => Item::Embedded(items),
            None => Item::Bytes(content.to_vec()),
        },
        Head::Text(text) => Item::Text(text.as_bytes().to_vec()),
        Head::Array(len) => Item::Array(many(reader, len)?),
        Head::Map(len) => Item::Map(many(reader, len.checked_mul(2)?)?),
        Head::Tag(tag) => Item::Tag(tag, many(reader, 1)?),
        Head::Bool(_) | Head::Null | Head::Float(_) => Item::Plain(bytes[start..reader.position()].to_vec()),
    })
}

fn write(item: &Item, out: &mut Vec<u8>) {
    let all = |items: &[Item], out: &mut Vec<u8>| items.iter().for_each(|item| write(item, out));
    match item {
        Item::Unsigned(n) => write_head(0, *n, out),
        Item::Negative(n) => write_head(1, *n, out),
        Item::Bytes(content) => {
            write_head(2, content.len() as u64, out);
            out.extend_from_slice(content);
        }
        Item::Text(content) => {
            write_head(3, content.len() as u64, out);
            out.extend_from_slice(content);
        }
        Item::Embedded(items) => {
            let mut content = Vec::new();
            all(items, &mut content);
            write_head(2, content.len() as u64, out);
            out.extend_from_slice(&content);
        }
        Item::Array(items) => {
            write_head(4, items.len() as u64, out);
            all(items, out);
        }
        Item::Map(items) => {
            write_head(5, items.len() as u64 / 2, out);
            all(items, out);
        }
        Item::Tag(tag, items) => {
            write_head(6, *tag, out);
            all(items, out);
        }
        Item::Plain(bytes) => out.extend_from_slice(bytes),
    }
}

fn write_head(major: u8, argument: u64, out: &mut Vec<u8>) {
    let bytes = argument.to_be_bytes();
    let (info, from) = match argument {
        0..=23 => (argument as u8, 8),
        24..=0xff => (24, 7),
        0x100..=0xffff => (25, 6),
        0x1_0000..=0xffff_ffff => (26, 4),
        _ => (27, 0),
    };
    out.push(major << 5 | info);
    out.extend_from_slice(&bytes[from..]);
}

fn children(item: &Item) -> &[Item] {
    match item {
        Item::Embedded(items) | Item::Array(items) | Item::Map(items) | Item::Tag(_, items) => items,
        _ => &[],
    }
}

fn children_mut(item: &mut Item) -> Option<&mut Vec<Item>> {
    match item {
        Item::Embedded(items) | Item::Array(items) | Item::Map(items) | Item::Tag(_, items) => Some(items),
        _ => None,
    }
}

/// Number of all items in the tree.
fn count(items: &[Item]) -> usize {
    items.iter().map(|item| 1 + count(children(item))).sum()
}

/// Number of items in the tree of one item.
fn pick<'a>(items: &'a [Item], random: &mut Random) -> Option<&'a Item> {
    fn nth<'a>(items: &'a [Item], n: &mut usize) -> Option<&'a Item> {
        for item in items {
            if *n == 0 {
                return Some(item);
            }
            *n -= 1;
            if let Some(found) = nth(children(item), n) {
                return Some(found);
            }
        }
        None
    }
    nth(items, &mut random.below(count(items)))
}

/// Calls `change` with the list that contains item `n` of the tree, and the index in that list.
fn change_nth(items: &mut Vec<Item>, n: usize, change: &mut impl FnMut(&mut Vec<Item>, usize)) {
    let mut left = n;
    for at in 0..items.len() {
        if left == 0 {
            return change(items, at);
        }
        left -= 1;
        let below = count(children(&items[at]));
        if left < below {
            if let Some(children) = children_mut(&mut items[at]) {
                change_nth(children, left, change);
            }
            return;
        }
        left -= below;
    }
}

/// Mutates the item at `at`. A map or a tag may become malformed: this is intended.
fn change(siblings: &mut Vec<Item>, at: usize, donor: Option<&Item>, random: &mut Random, mutate: MutateBytes) {
    match random.below(8) {
        0 => {
            siblings.remove(at);
        }
        1 => siblings.insert(at, siblings[at].clone()),
        2 => {
            let other = random.below(siblings.len());
            siblings.swap(at, other);
        }
        3 => siblings[at] = fresh(random),
        4 => siblings.insert(at, fresh(random)),
        5 => siblings[at] = Item::Array(vec![siblings[at].clone()]),
        6 => siblings.splice(at..=at, donor.cloned()).for_each(drop),
        _ => change_content(&mut siblings[at], random, mutate),
    }
}

fn change_content(item: &mut Item, random: &mut Random, mutate: MutateBytes) {
    match item {
        Item::Unsigned(n) | Item::Negative(n) => *n = number(*n, random),
        Item::Tag(tag, _) => *tag = number(*tag, random),
        Item::Bytes(content) | Item::Text(content) => {
            let size = content.len();
            content.resize(size + 16, 0);
            let new_size = mutate(content, size, size + 16);
            content.truncate(new_size);
        }
        Item::Embedded(items) | Item::Array(items) | Item::Map(items) => items.push(fresh(random)),
        Item::Plain(_) => *item = fresh(random),
    }
}

fn number(old: u64, random: &mut Random) -> u64 {
    match random.below(4) {
        0 => old.wrapping_add(1),
        1 => old.wrapping_sub(1),
        _ => NUMBERS[random.below(NUMBERS.len())],
    }
}

fn fresh(random: &mut Random) -> Item {
    match random.below(10) {
        0 | 1 => Item::Unsigned(number(0, random)),
        2 => Item::Negative(number(0, random)),
        3 => Item::Plain(vec![0xf4 + random.below(3) as u8]),
        4 => Item::Plain([&[0xfb], &random.bits().to_be_bytes()[..]].concat()),
        5 => Item::Bytes(random.bits().to_be_bytes()[..random.below(9)].to_vec()),
        6 => Item::Text(b"tasks.add"[random.below(9)..].to_vec()),
        7 => Item::Array(Vec::new()),
        8 => Item::Map(Vec::new()),
        _ => Item::Embedded(vec![Item::Array(Vec::new())]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `[1, -2, h'8101', "a", {"k": [null]}, 3(1.5)]`
    const SAMPLE: &[u8] =
        &[0x86, 0x01, 0x21, 0x42, 0x81, 0x01, 0x61, b'a', 0xa1, 0x61, b'k', 0x81, 0xf6, 0xc3, 0xf9, 0x3e, 0x00];

    #[test]
    fn what_is_read_is_written_back() {
        let items = read_sequence(SAMPLE, 0).expect("is CBOR");
        assert_eq!(count(&items), 13);
        let mut out = Vec::new();
        items.iter().for_each(|item| write(item, &mut out));
        assert_eq!(out, SAMPLE);
    }

    #[test]
    fn most_changes_give_cbor_again() {
        let longer: MutateBytes = |_, size, size_max| size_max.min(size + 1);
        let changed = (0..1000).filter_map(|seed| changed(SAMPLE, &mut Random::new(seed), longer));
        let readable = changed.filter(|bytes| bytes != SAMPLE && read_sequence(bytes, 0).is_some()).count();
        assert!(readable > 600, "{readable} of 1000");
    }
}
