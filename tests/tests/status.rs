//! What a reader of the store shows, and that it leaves nothing behind.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use conclave_tests::{Outcome, binary, scratch};

fn status(arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(binary::conclave());
    command.arg("status").args(arguments).output().context("cannot run conclave status")
}

/// That it failed as a wrong call does, named `path`, and left `directory` as it was.
fn refused(output: &Output, path: &str, directory: &Path, files: usize) -> Result<()> {
    let words = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(2), "{}: {words}", output.status);
    ensure!(words.contains("there is no Conclave store at") && words.contains(path), "{words}");
    ensure!(fs::read_dir(directory)?.count() == files, "it left something behind");
    Ok(())
}

#[test]
fn a_misspelt_store_is_not_created() -> Outcome {
    let scratch = scratch::directory("status")?;
    let directory = scratch.path();
    let typo = directory.join("stoer.db");
    let typo = typo.to_str().context("a path of text")?;
    refused(&status(&["--embedded", typo, "--cluster", "c"])?, typo, directory, 0)?;

    fs::create_dir(directory.join("pods"))?;
    let config = directory.join("conclave.yaml");
    fs::write(
        &config,
        "cluster: c\nnode: {name: a}\nstore: {embedded: {path: stoer.db}}\nelections:\n- name: e\n  \
         overlap: accepted\n  manifests: [{source: pod.yaml, destination: pods/pod.yaml}]\n",
    )?;
    let config = config.to_str().context("a path of text")?;
    refused(&status(&["--config", config])?, typo, directory, 2)?;
    Ok(())
}
