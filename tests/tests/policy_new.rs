//! `conclave policy new` and `build`: what a newcomer types, from an empty directory to a policy that
//! passes its cases.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use conclave_tests::{Outcome, binary, scratch};

fn policy(directory: &Path, arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(binary::conclave());
    command.current_dir(directory).arg("policy").args(arguments);
    // Compiled policies are kept for the other tests.
    command.env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"));
    command.output().context("cannot run conclave policy")
}

/// What it said to people, after it ended as expected.
fn said(output: &Output, status: i32) -> Result<String> {
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(status), "{}: {words}", output.status);
    Ok(words)
}

#[test]
fn every_language_gets_a_complete_project_and_nothing_is_overwritten() -> Outcome {
    let scratch = scratch::directory("policy-new")?;
    let here = scratch.path();
    for (language, source) in [
        ("rust", "src/lib.rs"),
        ("javascript", "policy.js"),
        ("python", "policy.py"),
        ("c", "policy.c"),
    ] {
        let name = format!("in-{language}");
        let words = said(&policy(here, &["new", &name, "--language", language])?, 0)?;
        assert!(words.contains("./build") && words.contains("conclave policy test"), "{words}");
        let project = here.join(&name);
        for file in [source, "README.md", "build", "tests/cases.yaml", "wit/policy.wit"] {
            let text = fs::read_to_string(project.join(file)).with_context(|| file.to_owned())?;
            assert!(!text.contains("{{"), "{file} of {language} is not filled in");
        }
        let mode = fs::metadata(project.join("build"))?.permissions().mode();
        assert!(mode & 0o111 != 0, "build is no program: {mode:o}");
        let words = said(&policy(here, &["new", &name])?, 2)?;
        assert!(words.contains("is not empty"), "{words}");
    }
    let words = said(&policy(here, &["new", "../up"])?, 2)?;
    assert!(words.contains("cannot be the name of a policy"), "{words}");
    Ok(())
}

#[test]
fn a_new_policy_in_rust_is_built_and_passes_its_cases() -> Outcome {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("a workspace")?;
    let scratch = scratch::directory("policy-new")?;
    said(&policy(scratch.path(), &["new", "rack-new"])?, 0)?;
    let project = scratch.path().join("rack-new");
    // This finds or installs a compiler, which the project's own script only asks for.
    let status = Command::new(root.join("plugins/build"))
        .arg("--project")
        .arg(root.join("examples/policy-rust"))
        .arg("--out")
        .arg(scratch.path().join("other.wasm"))
        .status()
        .context("cannot run plugins/build")?;
    assert!(status.success(), "plugins/build failed: {status}");

    let status = Command::new(project.join("build"))
        .env("CONCLAVE", binary::conclave())
        .env("CARGO_TARGET_DIR", scratch.path().join("target"))
        .status()
        .context("cannot run the project's build")?;
    assert!(status.success(), "the project's build failed: {status}");
    let component: PathBuf = project.join("rack-new.wasm");
    assert!(fs::metadata(&component)?.len() < 300_000, "a policy in Rust is small");

    let tested = policy(&project, &["test"])?;
    let told = String::from_utf8_lossy(&tested.stdout).into_owned();
    said(&tested, 0)?;
    // Its own two, and the three functions about generated views.
    assert!(told.contains("5 passed, 0 failed"), "{told}");

    let again = said(&policy(&project, &["build", "rack-new.wasm"])?, 2)?;
    assert!(again.contains("it is a component already"), "{again}");
    Ok(())
}
