//! A manifest of any content: whether it is one, and what rendering makes of it.

use conclave_manifests::{InvalidManifest, Lookup, render, validate};

/// Takes bytes for a manifest and for a template.
pub fn run(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let lines = crate::lines(&text);
    match validate(&text) {
        Ok(()) => {
            assert!(text.contains("apiVersion") || text.contains('\\') || text.contains('!'));
        }
        Err(error) => {
            crate::told(&error);
            if let InvalidManifest::Syntax { line, .. } = error {
                assert!(line <= lines + 1, "line {line} of {lines}");
            }
        }
    }
    rendering(&text);
}

fn rendering(text: &str) {
    if !text.contains("${") {
        // Not one byte is changed where nothing is asked for.
        assert_eq!(render(text, |_| Lookup::Unknown).as_deref(), Ok(text));
    }
    match render(text, |_| Lookup::Value("")) {
        Ok(rendered) => assert!(rendered.len() <= text.len()),
        Err(error) => {
            crate::told(&error);
            let line = text.split('\n').nth(error.line - 1).expect("the line is there");
            let here: String = line.chars().skip(error.column - 1).collect();
            assert!(here.starts_with("${"), "{error} points at {here:?}");
        }
    }
}
