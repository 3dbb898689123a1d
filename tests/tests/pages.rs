//! What the project's pages link to or name by its path is there.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use conclave_tests::Outcome;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace").to_owned()
}

/// The pages that people read.
fn pages() -> Result<Vec<PathBuf>> {
    let mut pages: Vec<PathBuf> =
        ["README.md", "ARCHITECTURE.md"].iter().map(|name| root().join(name)).collect();
    for directory in ["docs", "examples/languages", "examples/policy-rust"] {
        for entry in fs::read_dir(root().join(directory)).context(directory)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    Ok(pages)
}

/// What links of a page lead to, as far as it is in the project.
fn links(page: &str) -> impl Iterator<Item = &str> {
    let targets = page.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0));
    let here = |target: &&str| !target.contains("://") && !target.starts_with('#');
    targets.filter(here).map(|target| target.split('#').next().unwrap_or(target))
}

/// The sources that a page names between backticks, from the project's root on.
fn sources(page: &str) -> impl Iterator<Item = &str> {
    let named = page.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
    named.filter(|name| {
        name.contains('/') && name.ends_with(".rs") && !name.contains(['*', ' ', '<'])
    })
}

#[test]
fn what_pages_name_is_there() -> Outcome {
    let (mut found, mut missing) = (0, Vec::new());
    for page in pages()? {
        let text = fs::read_to_string(&page)?;
        let beside = page.parent().context("a directory")?;
        let named = links(&text)
            .map(|target| (target, beside.join(target)))
            .chain(sources(&text).map(|name| (name, root().join(name))));
        for (name, path) in named {
            found += 1;
            if !path.exists() {
                missing.push(format!("{}: {name}", page.display()));
            }
        }
    }
    assert!(missing.is_empty(), "not there:\n{}", missing.join("\n"));
    assert!(found > 100, "only {found} links and paths were found");
    Ok(())
}
