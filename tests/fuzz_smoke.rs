//! Runs every fuzz target of `fuzz/` on stable: over its corpus, and over a
//! bounded number of seeded mutations of it. The same on every run; what
//! libFuzzer finds joins the corpus and is a regression test from then on.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

#[path = "../fuzz/src/lib.rs"]
mod targets;

use targets::{TARGETS, Target};

/// Mutations of all the seeds of a target together, and the variable that changes it.
const MUTATIONS: usize = 3_000;
const MUTATIONS_VARIABLE: &str = "FUZZ_MUTATIONS";
/// A target that does cryptography for milliseconds gets this share of them.
const COSTLY_SHARE: usize = 50;
/// Longest input made.
const MAX_LEN: usize = 16 * 1024;

#[test]
fn every_target_survives_its_corpus_and_mutations_of_it() {
    let failures: Vec<String> = std::thread::scope(|scope| {
        let runs: Vec<_> = TARGETS.iter().map(|target| scope.spawn(|| smoke(target))).collect();
        runs.into_iter().filter_map(|run| run.join().expect("caught inside").err()).collect()
    });
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn targets_binaries_and_corpora_are_the_same_set() {
    let mut expected: Vec<String> = TARGETS.iter().map(|t| t.name.to_owned()).collect();
    expected.sort();
    let binaries: Vec<String> = names_in("fuzz_targets");
    assert_eq!(binaries.iter().map(|n| n.trim_end_matches(".rs")).collect::<Vec<_>>(), expected);
    assert_eq!(names_in("corpus"), expected);
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("the manifest");
    for name in &expected {
        let path = format!("path = \"fuzz_targets/{name}.rs\"");
        assert!(manifest.contains(&path), "{name} has no [[bin]]");
        let binary = root().join(format!("fuzz_targets/{name}.rs"));
        let binary = fs::read_to_string(binary).expect("a binary");
        assert!(binary.contains(&format!("railbird_fuzz::{name}(data)")), "{name} runs another");
    }
}

/// Runs one target; what panics is reported with the input, for the corpus.
fn smoke(target: &Target) -> Result<(), String> {
    let seeds = seeds(target);
    let mut random = Random(7);
    for (name, seed) in &seeds {
        attempt(target, seed).map_err(|why| format!("{}: {name}: {why}", target.name))?;
    }
    let asked = std::env::var(MUTATIONS_VARIABLE).ok().and_then(|count| count.parse().ok());
    let count = asked.unwrap_or(MUTATIONS) / if target.costly { COSTLY_SHARE } else { 1 };
    for number in 0..count {
        let input = mutate(&seeds, &mut random);
        attempt(target, &input).map_err(|why| {
            let path = std::env::temp_dir().join(format!("crash-{}-{number}", target.name));
            let kept = fs::write(&path, &input).map(|()| path.display().to_string());
            format!("{}: mutation {number} ({kept:?}): {why}", target.name)
        })?;
    }
    Ok(())
}

fn attempt(target: &Target, input: &[u8]) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(|| (target.run)(input))).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        text.unwrap_or_else(|| "panicked".to_owned())
    })
}

/// The corpus of a target in a fixed order, and the samples that tests keep elsewhere.
fn seeds(target: &Target) -> Vec<(String, Vec<u8>)> {
    let folders = [format!("corpus/{}", target.name)];
    let folders = folders.iter().map(String::as_str).chain(target.samples.iter().copied());
    let mut seeds: Vec<(String, Vec<u8>)> = folders
        .flat_map(|folder| {
            names_in(folder).into_iter().map(move |name| root().join(folder).join(name))
        })
        .map(|path| (path.display().to_string(), fs::read(&path).expect("a seed")))
        .collect();
    assert!(!seeds.is_empty(), "{} has no corpus", target.name);
    seeds.push(("empty".to_owned(), Vec::new()));
    seeds
}

/// Changes a seed in one to four places: bits, bytes, lengths, order, its end.
fn mutate(seeds: &[(String, Vec<u8>)], random: &mut Random) -> Vec<u8> {
    let mut input = seeds[random.below(seeds.len())].1.clone();
    for _ in 0..=random.below(4) {
        let at = random.below(input.len());
        let len = random.below(64).min(input.len() - at);
        match random.below(8) {
            0 => input.truncate(at),
            1 if !input.is_empty() => input[at] ^= 1 << random.below(8),
            2 if !input.is_empty() => input[at] = random.below(256) as u8,
            3 if !input.is_empty() => input[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
            4 => drop(input.drain(at..at + len)),
            5 => {
                let piece = input[at..at + len].to_vec();
                let to = random.below(input.len());
                input.splice(to..to, piece);
            }
            6 => {
                let other = &seeds[random.below(seeds.len())].1;
                let from = random.below(other.len());
                input.splice(at.., other[from..].iter().copied());
            }
            _ => input.insert(at, random.below(256) as u8),
        }
    }
    input.truncate(MAX_LEN);
    input
}

/// SplitMix64.
struct Random(u64);

impl Random {
    /// Below `limit`; 0 when that is 0.
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % (limit.max(1) as u64)) as usize
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn names_in(folder: &str) -> Vec<String> {
    let entries =
        fs::read_dir(root().join(folder)).unwrap_or_else(|error| panic!("{folder}: {error}"));
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}
