//! `broccoli wordcount`: the word count of the first Broccoli, with one task for each word.
//!
//! The function `mapper(word)` runs on the nodes. It returns `[word, 1]` for a word that counts, else null. This
//! command adds the numbers.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use broccoli_node::{Canvas, Cbor, DeployKey, Form, Split, SubmitOptions};
use serde_json::json;

use super::deploy;
use crate::connect::{Common, Session};
use crate::exit::Failure;
use crate::function::stopped;
use crate::{jobs, output};

/// The function that runs for each word.
const MAPPER: &str = "mapper";
/// Maximum time for the nodes to get the example functions.
const DEPLOY_MAX: Duration = Duration::from_secs(10);

/// The texts.
#[derive(Debug, clap::Args)]
pub(crate) struct WordcountArgs {
    /// Text files, in UTF-8
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Divide the words into N bins, with one task for each bin, instead of one task for each word
    #[arg(long, value_name = "N", value_parser = crate::number::within(1..=u32::MAX))]
    chunks: Option<u32>,
    /// Print JSON: {"words": N, "counts": [[word, n], …]}, where N is the number of all words
    #[arg(long)]
    json: bool,
}

/// The number of each word, the most frequent word first, then in alphabetical order.
type Counts = Vec<(String, u64)>;

/// Prints how often each word of more than three letters occurs.
///
/// # Errors
/// If a text cannot be read, or a job fails.
pub(crate) async fn run(common: &Common, args: WordcountArgs) -> Result<(), Failure> {
    let mut text = String::new();
    for path in &args.files {
        let unreadable = |error| Failure::usage(format_args!("cannot read {}: {error}", path.display()));
        text.push_str(&fs::read_to_string(path).map_err(unreadable)?);
        text.push('\n');
    }
    let words = words(&text);
    let mut session = common.open_to_submit().await?;
    let key = common.deploy_key(&session.cluster);
    let counts = count_here(&mut session, key, &words, args.chunks).await;
    session.close().await;
    let counts = counts?;
    if args.json {
        return output::print(json!({"words": words.len(), "counts": counts}));
    }
    let width = counts.first().map_or(0, |(_, most)| most.to_string().len());
    let lines: Vec<String> = counts.iter().map(|(word, number)| format!("{number:width$} {word}")).collect();
    output::print(lines.join("\n"))
}

async fn count_here(
    session: &mut Session,
    key: Result<DeployKey, Failure>,
    words: &[String],
    bins: Option<u32>,
) -> Result<Counts, Failure> {
    provide_mapper(session, key).await?;
    count(session, words, bins).await
}

/// Deploys the example functions if no module has `mapper`.
async fn provide_mapper(session: &Session, key: Result<DeployKey, Failure>) -> Result<(), Failure> {
    let view = session.node.view().await.ok_or_else(stopped)?;
    let has_mapper = view.functions().any(|(_, function)| function.name == MAPPER);
    let is_taken = view.modules.iter().any(|module| module.name == deploy::EXAMPLES_NAME);
    if has_mapper {
        return Ok(());
    }
    if is_taken {
        return Err(Failure::usage(format_args!(
            "no function {MAPPER}: it is in the example module {}, but your own module has this name; rename yours",
            deploy::EXAMPLES_NAME
        )));
    }
    let key = key.map_err(|failure| Failure {
        message: format!("no function {MAPPER} is deployed yet, and {}", failure.message),
        ..failure
    })?;
    let deployed = deploy::deploy(session, &deploy::examples(), &key, DEPLOY_MAX).await?;
    output::note(format_args!("deployed {deployed}"));
    Ok(())
}

/// The words of a text, split at white space, without commas and full stops.
pub(super) fn words(text: &str) -> Vec<String> {
    let words = text.split_whitespace().map(|word| word.replace([',', '.'], ""));
    words.filter(|word| !word.is_empty()).collect()
}

/// Counts words on the cluster in one job, with `bins` tasks or one task for each word.
///
/// # Errors
/// See [`jobs::result`].
pub(super) async fn count(session: &mut Session, words: &[String], bins: Option<u32>) -> Result<Counts, Failure> {
    let canvas = canvas(words, bins);
    jobs::check(session, &canvas).await?;
    let result = jobs::result(session, canvas, SubmitOptions::default(), None).await?;
    let mut counts: HashMap<String, u64> = HashMap::new();
    for (word, number) in pairs(&result, bins.is_some())? {
        let count = counts.entry(word).or_default();
        *count = count.saturating_add(number);
    }
    let mut counts: Counts = counts.into_iter().collect();
    counts.sort_unstable_by(|(a, of_a), (b, of_b)| of_b.cmp(of_a).then_with(|| a.cmp(b)));
    Ok(counts)
}

fn canvas(words: &[String], bins: Option<u32>) -> Canvas {
    let item = |word: &String| match bins {
        // An item of `chunks` is a list of arguments.
        Some(_) => Cbor::encode(&[word.as_str()]),
        None => Cbor::encode(&word.as_str()),
    };
    let items: Vec<Cbor> = words.iter().map(item).collect();
    let (function, items) = (MAPPER.to_owned(), Cbor::array(items.iter().map(Cbor::as_bytes)));
    match bins {
        Some(bins) => Form::Chunks { function, items, split: Split::Bins(bins) }.into(),
        None => Form::Map { function, items }.into(),
    }
}

/// The `[word, n]` in a result. With bins they are one level deeper.
fn pairs(result: &Cbor, in_bins: bool) -> Result<Vec<(String, u64)>, Failure> {
    type Pairs = Vec<Option<(String, u64)>>;
    let bytes = result.as_bytes();
    let pairs = if in_bins {
        minicbor::decode::<Vec<Pairs>>(bytes).map(|bins| bins.into_iter().flatten().collect())
    } else {
        minicbor::decode::<Pairs>(bytes)
    };
    let other = |_| Failure::failed(format_args!("{MAPPER} returned something other than [word, n] or null"));
    Ok(pairs.map_err(other)?.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_and_full_stops_are_dropped() {
        assert_eq!(words("The Wolf, said:\n \"No.\" . U.S. don't"), ["The", "Wolf", "said:", "\"No\"", "US", "don't"]);
    }
}
