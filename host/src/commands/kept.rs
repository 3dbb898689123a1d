//! The configuration as the guard keeps it for its daemons: in memory, where no disk and no editor gets at it.
//!
//! It grows: every accepted change is written behind the one before and ends with a NUL, which no configuration
//! contains. The last that ends so counts, so that a write that was cut off is none.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::AsFd as _;

use anyhow::{Context as _, Result, bail};
use rustix::fs::{FileType, MemfdFlags, fstat, memfd_create};

const END: char = '\0';

/// Keeps a text.
pub(super) fn keep(text: &str) -> io::Result<File> {
    let mut file = File::from(memfd_create("configuration", MemfdFlags::CLOEXEC)?);
    append(&mut file, text)?;
    Ok(file)
}

/// What the guard handed to this process as its standard input.
pub(super) fn handed_over() -> Result<String> {
    let input = io::stdin();
    if FileType::from_raw_mode(fstat(&input)?.st_mode) != FileType::RegularFile {
        bail!("the daemon is started by its guard; use `conclave run`");
    }
    let mut text = String::new();
    input.lock().read_to_string(&mut text).context("cannot read the configuration")?;
    Ok(newest(&text).to_owned())
}

/// Has every daemon from now on find another text: the guard's file is this process' standard input.
pub(super) fn replace(text: &str) -> io::Result<()> {
    append(&mut File::from(io::stdin().as_fd().try_clone_to_owned()?), text)
}

fn append(file: &mut File, text: &str) -> io::Result<()> {
    file.seek(SeekFrom::End(0))?;
    file.write_all(format!("{text}{END}").as_bytes())
}

fn newest(kept: &str) -> &str {
    match kept.rfind(END) {
        Some(end) => kept[..end].rsplit(END).next().unwrap_or_default(),
        // As an earlier version kept it.
        None => kept,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_whole_text_counts() {
        for (kept, expected) in [
            ("", ""),
            ("a: 1\n", "a: 1\n"),
            ("a: 1\n\0", "a: 1\n"),
            ("a: 1\n\0b: 2\n\0", "b: 2\n"),
            ("a: 1\n\0b: 2", "a: 1\n"),
            ("\0", ""),
        ] {
            assert_eq!(newest(kept), expected, "{kept:?}");
        }
        let mut file = keep("a").unwrap();
        append(&mut file, "b").unwrap();
        file.rewind().unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(newest(&text), "b");
    }
}
