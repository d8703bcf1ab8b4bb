//! The example module `flow`: tasks that ask to be tried again, say how far they are, submit others,
//! or replace themselves.
#![no_std]

use core::time::Duration;

use broccoli_sdk::canvas::{Replace, SetOptions, SubmitError, chain, chord, sig, submit};
use broccoli_sdk::prelude::*;

/// Lists up to this length are sorted where they are.
const SORT_HERE_MAX: usize = 8;

/// Gives the value once the time has come (milliseconds since 1970), and until then asks to be tried
/// again then: it takes no slot meanwhile.
#[task]
fn not_before(unix_ms: i64, value: Value) -> Result<Value, Retry> {
    let early = unix_ms.saturating_sub(now_ms());
    match u64::try_from(early) {
        Ok(early) if early > 0 => Err(Retry::after(Duration::from_millis(early)).because("not yet")),
        _ => Ok(value),
    }
}

/// Fails for good, or asks to be tried again after a pause.
#[task]
fn refuse(msg: String, again_ms: Option<u32>) -> Result<(), Failure> {
    match again_ms {
        Some(ms) => Err(Retry::after(Duration::from_millis(ms.into())).because(msg).into()),
        None => Err(msg.into()),
    }
}

/// Works in so many steps of so many milliseconds, and says after each how far it is.
#[task]
fn steps(count: u32, ms: u32) -> u32 {
    for done in 0..count {
        progress(done, count);
        sleep_ms(ms);
    }
    progress(count, count);
    count
}

/// Sorts numbers: long lists are parted, and the parts sorted wherever there is room.
#[task]
fn quicksort(mut numbers: Vec<i64>) -> Replace<Vec<i64>> {
    if numbers.len() <= SORT_HERE_MAX {
        numbers.sort_unstable();
        return Replace::Value(numbers);
    }
    let pivot = numbers.swap_remove(numbers.len() / 2);
    let (less, more): (Vec<i64>, Vec<i64>) = numbers.into_iter().partition(|number| *number < pivot);
    let parts = [less, more].map(|part| sig("flow.quicksort").arg(&part));
    Replace::With(chord(parts, sig("flow.around").arg(&pivot)))
}

/// Joins two sorted lists with a number between them.
#[task]
fn around(parts: (Vec<i64>, Vec<i64>), pivot: i64) -> Vec<i64> {
    let (mut joined, more) = parts;
    joined.push(pivot);
    joined.extend(more);
    joined
}

/// Puts a call into the queue of the node that runs this, and does not wait for it.
#[task]
fn later(function: &str, value: Value, ms: u32) -> Result<(), SubmitError> {
    submit(sig(function).arg(&value).set_countdown(Duration::from_millis(ms.into())))
}

/// Has the cluster sum the squares of the numbers below n, a little later and for nobody who waits: the node `home`
/// logs the sum.
#[task]
fn squares(n: u32, home: &str, ms: u32) -> Result<(), SubmitError> {
    let square =
        |number: u32| sig("tasks.mul").arg(&number).arg(&number).set_countdown(Duration::from_millis(ms.into()));
    let sum = chord((0..n).map(square), sig("tasks.tsum"));
    submit(chain([sum, sig("flow.tell").set_on(home)]))
}

/// Logs a number and gives it back.
#[task]
fn tell(number: i64) -> i64 {
    log(&number.to_string());
    number
}
