//! `docs/hazards.md` keeps its word: every hazard has a test, or a reason why it cannot happen, and
//! every test that it or another page names exists and is run.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use conclave_tests::Outcome;

/// The hazards have the numbers from 1 to this.
const LAST: u32 = 42;

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

/// One hazard, as the page tells of it.
#[derive(Debug, Default)]
struct Row {
    /// Each test's name and its file.
    tests: Vec<(String, PathBuf)>,
    by_design: bool,
    words: usize,
}

/// The rows of the page by number. One begins with its number and title in bold.
fn rows(page: &str) -> Result<BTreeMap<u32, Row>> {
    let mut rows = BTreeMap::new();
    let mut current = None;
    for line in page.lines() {
        if line.starts_with('#') {
            current = None;
        } else if let Some(number) = line.strip_prefix("**").and_then(|rest| rest.split_once(". "))
        {
            let number: u32 = number.0.parse().with_context(|| format!("a number in {line:?}"))?;
            ensure!(rows.insert(number, Row::default()).is_none(), "row {number} is there twice");
            current = Some(number);
        }
        let Some(row) = current.and_then(|number| rows.get_mut(&number)) else { continue };
        match line.strip_prefix("- [`") {
            Some(link) => {
                row.tests.push(test(link).with_context(|| format!("a test in {line:?}"))?)
            }
            None => row.words += line.split_whitespace().count(),
        }
        row.by_design |= line.starts_with("*By design:* ");
    }
    Ok(rows)
}

/// A test's name and file, from a link whose beginning has been taken off.
fn test(link: &str) -> Option<(String, PathBuf)> {
    let (name, file) = link.strip_suffix(')')?.split_once("`](")?;
    Some((name.to_owned(), docs().join(file)))
}

/// Whether a file has a test of this name that is run: by the test harness, as a trial of a harness
/// of its own, or as a case of a contract.
fn is_run(name: &str, file: &Path) -> Result<bool> {
    let source = fs::read_to_string(file).with_context(|| format!("{}", file.display()))?;
    if source.contains(&format!("trial(\"{name}\", ")) {
        return Ok(true);
    }
    let Some((before, _)) = source.split_once(&format!("fn {name}(")) else { return Ok(false) };
    // What precedes `fn` in its line, then the attributes above.
    let above = before.rsplit('\n').skip(1).map(str::trim);
    let attributes: Vec<&str> = above.take_while(|line| line.starts_with("#[")).collect();
    if attributes.iter().any(|attribute| attribute.starts_with("#[ignore")) {
        return Ok(false);
    }
    if attributes.iter().any(|a| a.starts_with("#[test]") || a.starts_with("#[tokio::test")) {
        return Ok(true);
    }
    let module = file.file_stem().unwrap_or_default().to_string_lossy();
    let main = fs::read_to_string(file.with_file_name("main.rs")).unwrap_or_default();
    Ok([",", "]"].iter().any(|end| main.contains(&format!("{module}::{name}{end}"))))
}

#[test]
fn every_hazard_has_a_test_or_cannot_happen() -> Outcome {
    let rows = self::rows(&fs::read_to_string(docs().join("hazards.md"))?)?;
    let mut mistakes = Vec::new();
    for number in 1..=LAST {
        match rows.get(&number) {
            None => mistakes.push(format!("hazard {number} is missing")),
            Some(row) if row.tests.is_empty() && !row.by_design => {
                mistakes.push(format!("hazard {number} has neither a test nor a reason"));
            }
            Some(row) if row.words < 12 => {
                mistakes.push(format!("hazard {number} does not say what goes wrong"));
            }
            Some(_) => {}
        }
    }
    mistakes
        .extend(rows.keys().filter(|n| !(1..=LAST).contains(*n)).map(|n| format!("what is {n}?")));
    for (number, row) in &rows {
        for (name, file) in &row.tests {
            if !is_run(name, file)? {
                mistakes.push(format!("hazard {number}: {} runs no `{name}`", file.display()));
            }
        }
    }
    assert!(mistakes.is_empty(), "{}", mistakes.join("\n"));
    Ok(())
}

#[test]
fn every_test_that_other_pages_name_is_run() -> Outcome {
    for page in ["threats.md", "compatibility.md"] {
        let text = fs::read_to_string(docs().join(page))?;
        let links = text.split("[`").skip(1).filter_map(|rest| rest.split_inclusive(')').next());
        let named: Vec<_> = links.filter(|link| link.ends_with(".rs)")).collect();
        assert!(named.len() > 2, "{page} names {named:?}");
        for link in named {
            let (name, file) = test(link).with_context(|| format!("a test in {link:?}"))?;
            assert!(is_run(&name, &file)?, "{page}: {} runs no `{name}`", file.display());
        }
    }
    Ok(())
}

#[test]
fn the_check_notices() -> Outcome {
    let page = "**1. A.** Some words.\n\n- [`no_such_test`](../tests/tests/hazards.rs)\n\n## x\n\n\
                **2. B.** Other words.\n*By design:* it is so.\n";
    let rows = self::rows(page)?;
    assert_eq!(rows.len(), 2);
    assert!(!rows[&1].by_design && rows[&2].by_design && rows[&2].tests.is_empty());
    let (name, file) = &rows[&1].tests[0];
    assert!(!is_run(name, file)?);
    assert!(is_run("the_check_notices", file)?);
    assert!(!is_run("rows", file)?, "a function is no test");
    let ignored = docs().join("../host/manifests/tests/trouble.rs");
    assert!(!is_run("inside_a_full_disk", &ignored)?, "what is ignored is not run");
    assert!(self::rows("**1. A.** x\n**1. B.** y\n").is_err(), "a number is there twice");
    Ok(())
}
