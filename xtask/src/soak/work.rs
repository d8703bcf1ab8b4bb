//! Random jobs, and the result that each must have.
//!
//! The canvases are of every form. Their results are computed here, without the cluster. The functions are those of
//! `broccoli deploy --examples` and of `chaos_worker`.

use super::random::Random;

/// How many members a form has, at most.
const MEMBERS_MAX: u64 = 12;
/// How many tries a flaky task has beyond those that are made to fail. Runs that died cost no try.
const SPARE_RETRIES: u64 = 3;

/// What the client must get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// This line on standard output.
    Prints(String),
    /// Exit code 1, and this in the message.
    Fails(String),
}

/// A canvas in its text form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Work {
    pub(super) canvas: String,
    pub(super) outcome: Outcome,
}

/// A job. `id` is unique to this job: it names the memory of a flaky task.
pub(super) fn random(random: &mut Random, id: u64) -> Work {
    let forms = [chain, group, chord, nested, map, starmap, chunks, fan_out, marks, flaky, failing, failing_member];
    random.pick(&forms)(random, id)
}

fn prints(canvas: String, result: impl ToString) -> Work {
    Work { canvas, outcome: Outcome::Prints(result.to_string()) }
}

/// A list as the command prints it.
fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    format!("[{}]", items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", "))
}

fn numbers(random: &mut Random) -> Vec<u64> {
    (0..=random.below(MEMBERS_MAX)).map(|_| random.below(1_000)).collect()
}

fn chain(random: &mut Random, _: u64) -> Work {
    let (a, steps) = (random.below(1_000), numbers(random));
    let links = steps.iter().map(|b| format!(" | add.s({b})")).collect::<String>();
    prints(format!("add.s({a}, 1){links} | mul.s(3)"), (a + 1 + steps.iter().sum::<u64>()) * 3)
}

fn group(random: &mut Random, _: u64) -> Work {
    let xs = numbers(random);
    prints(format!("group(add.s(x, x) for x in {})", list(&xs)), list(xs.iter().map(|x| 2 * x)))
}

fn chord(random: &mut Random, _: u64) -> Work {
    let xs = numbers(random);
    prints(format!("chord(mul.s(x, 2) for x in {})(tsum.s())", list(&xs)), 2 * xs.iter().sum::<u64>())
}

fn nested(random: &mut Random, _: u64) -> Work {
    let (xs, ys) = (numbers(random), numbers(random));
    let sum = |numbers: &[u64]| numbers.iter().sum::<u64>();
    let chord = |numbers: &[u64]| format!("chord(identity.s(x) for x in {})(tsum.s())", list(numbers));
    prints(format!("chord([{}, {}])(tsum.s()) | add.s(7)", chord(&xs), chord(&ys)), sum(&xs) + sum(&ys) + 7)
}

fn map(random: &mut Random, _: u64) -> Work {
    let xs = numbers(random);
    prints(format!("identity.map({})", list(&xs)), list(xs))
}

fn starmap(random: &mut Random, _: u64) -> Work {
    let xs = numbers(random);
    let canvas = format!("sub.starmap([{}])", xs.iter().map(|x| format!("(1000, {x})")).collect::<Vec<_>>().join(", "));
    prints(canvas, list(xs.iter().map(|x| 1_000 - x)))
}

fn chunks(random: &mut Random, _: u64) -> Work {
    let (items, bins) = (random.below(40), 1 + random.below(6));
    prints(format!("add.chunks(zip(range({items}), range({items})), {bins})"), doubled_in_bins(items, bins))
}

/// The doubles of the numbers below `items` in bins as equal as possible, larger ones first.
fn doubled_in_bins(items: u64, bins: u64) -> String {
    let (small, larger) = (items / bins, items % bins);
    let start = |bin: u64| bin * small + bin.min(larger);
    list((0..bins).map(|bin| list((start(bin)..start(bin + 1)).map(|x| 2 * x))))
}

fn fan_out(random: &mut Random, _: u64) -> Work {
    let (a, xs) = (random.below(1_000), numbers(random));
    let canvas = format!("identity.s({a}) | group(add.s(x) for x in {})", list(&xs));
    prints(canvas, list(xs.iter().map(|x| a + x)))
}

/// Tasks that take some time, so that kills hit them.
fn marks(random: &mut Random, _: u64) -> Work {
    let count = 1 + random.below(100);
    prints(format!("group(chaos.mark.s(i) for i in range({count}))"), list((0..count).map(|i| 3 * i + 1)))
}

fn flaky(random: &mut Random, id: u64) -> Work {
    let failures = random.below(4);
    let retries = failures + SPARE_RETRIES;
    prints(format!("chaos.flaky.s({id}, {failures}).set(retries={retries}) | add.s(1)"), id + 1)
}

fn failing(random: &mut Random, id: u64) -> Work {
    let a = random.below(1_000);
    let text = format!("on purpose {id}");
    Work { canvas: format!("add.s({a}, 1) | fail.si(\"{text}\") | add.s(1)"), outcome: Outcome::Fails(text) }
}

/// The error of the lowest index counts, whichever comes first.
fn failing_member(random: &mut Random, id: u64) -> Work {
    let before: String = (0..random.below(MEMBERS_MAX)).map(|i| format!("identity.s({i}), ")).collect();
    let canvas = format!("group({before}fail.s(\"first {id}\"), identity.s(1), fail.s(\"second {id}\"))");
    Work { canvas, outcome: Outcome::Fails(format!("first {id}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_as_equal_as_possible_and_the_first_larger() {
        assert_eq!(doubled_in_bins(5, 3), "[[0, 2], [4, 6], [8]]");
        assert_eq!(doubled_in_bins(1, 2), "[[0], []]");
    }

    #[test]
    fn a_chain_and_a_list_are_computed() {
        let mut random = Random::new(1, 0);
        let work = group(&mut random, 0);
        let Outcome::Prints(result) = &work.outcome else { panic!("a group gives a list") };
        assert!(result.starts_with('[') && result.ends_with(']'));
        assert_eq!(list([1, 2]), "[1, 2]");
        assert_eq!(list::<u64>([]), "[]");
    }
}
