//! The policy interface's reference as a page, made of the WIT's own comments.
//!
//! The Bytecode Alliance's generator writes the interfaces; what the package says about itself, which
//! it leaves out, is put before them.

#![forbid(unsafe_code)]

use std::path::Path;

use anyhow::{Context as _, Result};
use wit_bindgen_core::Files;
use wit_bindgen_core::wit_parser::Resolve;

/// The world with everything that a policy can export.
const WORLD: &str = "policy";

/// Makes the page of the package in a directory of WIT files.
///
/// # Errors
/// When the WIT cannot be read.
pub fn page(wit: &Path) -> Result<String> {
    let mut resolve = Resolve::default();
    let (package, _) =
        resolve.push_dir(wit).with_context(|| format!("cannot read {}", wit.display()))?;
    let world = resolve.select_world(&[package], Some(WORLD))?;
    let about = &resolve.packages[package];
    let name = about.name.to_string();
    let intro = about.docs.contents.clone().context("the package says nothing about itself")?;

    let mut files = Files::default();
    wit_bindgen_markdown::Opts::default().build().generate(&mut resolve, world, &mut files)?;
    let mut texts = files.iter().filter(|(name, _)| name.ends_with(".md"));
    let (_, text) = texts.next().context("the generator wrote no page")?;
    let interfaces = std::str::from_utf8(text)?;
    Ok(format!(
        "# The policy interface `{name}`\n\n<!-- Made of the comments in wit/ by `make interface`. -->\n\n{}\n\n{}\n",
        demoted(intro.trim()),
        demoted(interfaces.trim()),
    ))
}

/// The same text one heading lower, without blanks at the ends of its lines.
fn demoted(text: &str) -> String {
    let line = |line: &str| {
        let mark = if line.starts_with('#') { "#" } else { "" };
        format!("{mark}{}", line.trim_end())
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headings_go_one_lower() {
        assert_eq!(demoted("# A \ntext  \n\n## B"), "## A\ntext\n\n### B");
    }

    #[test]
    fn the_committed_page_is_what_the_wit_says() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let committed = std::fs::read_to_string(root.join("docs/interface.md")).unwrap_or_default();
        let page = page(&root.join("wit")).unwrap();
        assert!(committed == page, "docs/interface.md is not what wit/ says: run `make interface`");
        for word in ["### <a id=\"conclave_policy_leadership", "rank", "What a policy may rely on"]
        {
            assert!(page.contains(word), "{word}");
        }
    }
}
