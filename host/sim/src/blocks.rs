//! Long runs in blocks of seeds, with a digest for each, and their comparison.
//!
//! A file of digests names the sources that it belongs to, by a digest of what git names them: any
//! change of the core or of the simulator may make other digests. Then one line for each block, in any order.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::ops::Range;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::coverage::Coverage;
use crate::digest;
use crate::runner::play_block;

/// What the digests depend on.
const SOURCES: [&str; 2] = ["host/core/src", "host/sim/src"];

/// Plays blocks, on so many threads, and adds their digests to a file. No block is begun after the
/// limit.
///
/// # Errors
/// The broken promises, or what is wrong with the file, in words.
pub fn run(
    blocks: Range<u64>,
    digests: Option<&Path>,
    threads: usize,
    limit: Option<Duration>,
) -> Result<(), String> {
    let known = match digests {
        Some(path) => prepare(path)?,
        None => BTreeMap::new(),
    };
    let wanted: Vec<u64> = blocks.filter(|block| !known.contains_key(block)).collect();
    let began = Instant::now();
    let coverage = play(&wanted, threads, limit, |block, digest| {
        let line = format!("{block} {digest}\n");
        print!("{line}");
        digests.map_or(Ok(()), |path| append(path, &line))
    })?;
    let (took, count) = (began.elapsed().as_secs_f64(), coverage.schedules);
    println!("{coverage}\n{count} schedules in {took:.1} s: {:.0} a second", count as f64 / took);
    let missing = coverage.missing();
    if !missing.is_empty() {
        println!("did not occur: {}", missing.join(", "));
    }
    Ok(())
}

/// Plays the blocks of a file again, or some of them, and compares.
///
/// # Errors
/// What differs, or is broken, in words.
pub fn check(path: &Path, blocks: Option<Range<u64>>, threads: usize) -> Result<(), String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    if let Ok(now) = header()
        && !text.starts_with(&now)
    {
        eprintln!("note: these are not the sources that the file was made with:\n{now}");
    }
    let known = parse(&text)?;
    let wanted: Vec<u64> = match blocks {
        Some(blocks) => blocks.collect(),
        None => known.keys().copied().collect(),
    };
    let differ = Mutex::new(Vec::new());
    play(&wanted, threads, None, |block, digest| {
        let same = known.get(&block) == Some(&digest);
        println!("{block} {digest} {}", if same { "as committed" } else { "DIFFERS" });
        if !same {
            differ.lock().unwrap_or_else(|e| e.into_inner()).push(block);
        }
        Ok(())
    })?;
    let differ = differ.into_inner().unwrap_or_else(|e| e.into_inner());
    if differ.is_empty() { Ok(()) } else { Err(format!("these blocks differ: {differ:?}")) }
}

fn play(
    blocks: &[u64],
    threads: usize,
    limit: Option<Duration>,
    done: impl Fn(u64, String) -> Result<(), String> + Sync,
) -> Result<Coverage, String> {
    let (began, next) = (Instant::now(), AtomicU64::new(0));
    let total = Mutex::new(Coverage::default());
    let failed = Mutex::new(Vec::new());
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed) as usize;
            let over = limit.is_some_and(|limit| began.elapsed() > limit);
            let Some(block) = blocks.get(index).filter(|_| !over) else { return };
            let played = play_block(*block).map_err(|failure| {
                format!("{}\nreplay it with: {}", failure.what, failure.replay())
            });
            let outcome = played.and_then(|(digest, coverage)| {
                total.lock().unwrap_or_else(|e| e.into_inner()).add(&coverage);
                done(*block, digest)
            });
            // The other blocks are played all the same: hours may have gone into them.
            if let Err(words) = outcome {
                eprintln!("{words}");
                failed.lock().unwrap_or_else(|e| e.into_inner()).push(words);
            }
        }
    };
    std::thread::scope(|scope| (0..threads.max(1)).for_each(|_| drop(scope.spawn(work))));
    match failed.into_inner().unwrap_or_else(|e| e.into_inner()).as_slice() {
        [] => Ok(total.into_inner().unwrap_or_else(|e| e.into_inner())),
        failed => Err(format!("{} blocks failed:\n{}", failed.len(), failed.join("\n"))),
    }
}

/// The file's digests so far; begins the file if there is none.
fn prepare(path: &Path) -> Result<BTreeMap<u64, String>, String> {
    let header = header()?;
    match std::fs::read_to_string(path) {
        Ok(text) if text.starts_with(&header) => parse(&text),
        Ok(_) => Err(format!("{} belongs to other sources than these:\n{header}", path.display())),
        Err(_) => {
            append(path, &header)?;
            Ok(BTreeMap::new())
        }
    }
}

fn append(path: &Path, text: &str) -> Result<(), String> {
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| format!("{}: {error}", path.display()))
}

fn parse(text: &str) -> Result<BTreeMap<u64, String>, String> {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let line = |line: &str| {
        let (block, digest) = line.split_once(' ')?;
        Some((block.parse().ok()?, digest.to_owned()))
    };
    lines.map(|text| line(text).ok_or_else(|| format!("no block and digest: {text}"))).collect()
}

/// Which sources these are, for the file's beginning.
fn header() -> Result<String, String> {
    let mut header = String::from("# Digests of blocks of 10,000 schedules; play any again with\n");
    header
        .push_str("#   cargo run --release -p conclave-sim -- digest --check FILE --blocks A..B\n");
    git(&[&["diff", "--quiet", "HEAD", "--"][..], &SOURCES].concat())
        .map_err(|_| format!("{SOURCES:?} have changes that are not committed"))?;
    let files = git(&[&["ls-tree", "-r", "HEAD", "--"][..], &SOURCES].concat())?;
    // Tests of the core decide nothing that a schedule shows.
    let files = files.lines().filter(|file| !file.contains("/tests/"));
    let _ = writeln!(header, "# sources {}", digest::of_lines(files));
    Ok(header)
}

fn git(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("git").args(arguments).output();
    let output = output.map_err(|error| format!("git: {error}"))?;
    if !output.status.success() {
        return Err(format!("git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_whatever_the_order_of_its_lines() {
        let known = parse("# tree host/core/src abc\n3 dd\n\n1 ee\n").unwrap();
        assert_eq!(known, BTreeMap::from([(1, "ee".to_owned()), (3, "dd".to_owned())]));
        assert!(parse("nonsense\n").is_err());
    }
}
