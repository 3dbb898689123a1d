//! `conclave policy new`: a complete little project, ready to be built and tested.
//!
//! What it consists of lies under `host/templates`, with `{{…}}` where this fills something in. The
//! interface, and for Rust the SDK, go along as they are in this program, so that a project needs
//! nothing of Conclave but the program itself.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::cli::{Language, NewPolicy, exit};
use crate::commands::{Usage, say};

/// A file of a project: where it lies, its text, and whether it is a program.
type File = (&'static str, &'static str, bool);

macro_rules! template {
    ($path:literal) => {
        include_str!(concat!("../../../templates/", $path))
    };
}

macro_rules! files {
    ($to:literal, $from:literal, [$($name:literal),*]) => {
        &[$((concat!($to, $name), include_str!(concat!($from, $name)), false)),*]
    };
}

/// The interface.
const WIT: &[File] = files!(
    "wit/",
    "../../../../wit/",
    [
        "about.wit",
        "facts.wit",
        "leadership.wit",
        "logging.wit",
        "placement.wit",
        "policy.wit",
        "types.wit"
    ]
);

/// The SDK, without what is filled in at its `Cargo.toml`.
const SDK: &[File] = files!(
    "sdk/src/",
    "../../../../plugins/sdk/src/",
    ["config.rs", "lib.rs", "log.rs", "memory.rs", "placement.rs", "policy.rs", "ranking.rs"]
);

const RUST: &[File] = &[
    ("Cargo.toml", template!("rust/Cargo.toml"), false),
    ("src/lib.rs", template!("rust/src/lib.rs"), false),
    ("sdk/Cargo.toml", template!("rust/sdk/Cargo.toml"), false),
    ("build", template!("rust/build"), true),
    ("schema.json", template!("schema.json"), false),
    (".gitignore", "/target/\n/{{name}}.wasm\n", false),
];

const JAVASCRIPT: &[File] = &[
    ("package.json", template!("javascript/package.json"), false),
    ("policy.js", template!("javascript/policy.js"), false),
    ("build.mjs", template!("javascript/build.mjs"), false),
    ("build", template!("javascript/build"), true),
    ("schema.json", template!("schema.json"), false),
    (".gitignore", "/node_modules/\n/{{name}}.wasm\n", false),
];

const PYTHON: &[File] = &[
    ("policy.py", template!("python/policy.py"), false),
    ("build", template!("python/build"), true),
    (".gitignore", "/.venv/\n/wit_world/\n__pycache__/\n/{{name}}.wasm\n", false),
];

const C: &[File] = &[
    ("policy.c", template!("c/policy.c"), false),
    ("leadership_policy.c", template!("c/leadership_policy.c"), false),
    ("leadership_policy.h", template!("c/leadership_policy.h"), false),
    ("build", template!("c/build"), true),
    (".gitignore", "/.build/\n/.venv/\n/{{name}}.wasm\n", false),
];

/// An object file that says of which type the component is.
const C_TYPE: (&str, &[u8]) = (
    "leadership_policy_component_type.o",
    include_bytes!("../../../templates/c/leadership_policy_component_type.o"),
);

const COMMON: &[File] = &[
    ("README.md", template!("README.md"), false),
    ("tests/cases.yaml", template!("cases.yaml"), false),
];

/// What a language's project is made of, and what is said of it.
struct Kind {
    files: &'static [File],
    language: &'static str,
    source: &'static str,
    needs: &'static str,
}

fn kind(language: Language) -> Kind {
    let (files, language, source, needs) = match language {
        Language::Rust => {
            (RUST, "Rust", "`src/lib.rs`", "it says what it needs if that is missing")
        }
        Language::Javascript => {
            (JAVASCRIPT, "JavaScript", "`policy.js`", "needs Node.js 20 or newer")
        }
        Language::Python => {
            (PYTHON, "Python", "`policy.py`", "needs Python 3.10 or newer with venv")
        }
        Language::C => (C, "C", "`policy.c`", "fetches a compiler by Python 3 with venv"),
    };
    Kind { files, language, source, needs }
}

pub(in crate::commands) fn new(wanted: &NewPolicy) -> Result<u8> {
    check_name(&wanted.name).map_err(Usage)?;
    let directory = wanted.directory.clone().unwrap_or_else(|| PathBuf::from(&wanted.name));
    prepare(&directory)?;
    let kind = kind(wanted.language);
    let files = project(&kind, &wanted.name);
    for (path, text, program) in &files {
        write(&directory.join(path), text.as_bytes(), *program)?;
    }
    let binary = matches!(wanted.language, Language::C).then_some(C_TYPE);
    if let Some((path, bytes)) = binary {
        write(&directory.join(path), bytes, false)?;
    }
    let (count, shown) = (files.len() + usize::from(binary.is_some()), directory.display());
    say(&format!(
        "made {shown}, a policy in {} ({count} files). Next:\n    cd {shown}\n    ./build\n    \
         conclave policy test",
        kind.language
    ));
    Ok(exit::SUCCESS)
}

/// The host takes such file names, Cargo such packages, and npm such names.
fn check_name(name: &str) -> Result<()> {
    let fit = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    if name.is_empty()
        || !name.chars().all(fit)
        || !name.starts_with(|c: char| c.is_ascii_lowercase())
    {
        bail!(
            "`{name}` cannot be the name of a policy: it begins with a small letter and goes on with \
             small letters, digits, `-` and `_`, as `rack-first` does"
        );
    }
    Ok(())
}

/// Nothing that is there already is touched.
fn prepare(directory: &Path) -> Result<()> {
    match fs::read_dir(directory).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Usage(anyhow!(
            "{} is not empty; name another place by `--directory`",
            directory.display()
        ))
        .into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::create_dir_all(directory)
            .with_context(|| format!("cannot make {}", directory.display())),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", directory.display())),
    }
}

/// All texts of a project, filled in.
fn project(kind: &Kind, name: &str) -> Vec<(&'static str, String, bool)> {
    let sdk = if kind.files == RUST { SDK } else { &[] };
    let own = COMMON.iter().chain(kind.files);
    let own = own.map(|(path, text, program)| (*path, fill(text, kind, name), *program));
    let shared = WIT.iter().chain(sdk);
    // In the project the SDK lies beside the interface.
    let shared =
        shared.map(|(path, text, _)| (*path, text.replace("\"../../wit\"", "\"../wit\""), false));
    own.chain(shared).collect()
}

fn fill(text: &str, kind: &Kind, name: &str) -> String {
    let schema = template!("schema.json").replace("{{name}}", name);
    text.replace("{{name}}", name)
        .replace("{{crate}}", &name.replace('-', "_"))
        .replace("{{version}}", env!("CARGO_PKG_VERSION"))
        .replace("{{language}}", kind.language)
        .replace("{{source}}", kind.source)
        .replace("{{needs}}", kind.needs)
        .replace("{{schema-in-c}}", &in_c(&schema))
        .replace("{{schema}}", &schema)
}

/// A text as C writes it, a literal for each line.
fn in_c(text: &str) -> String {
    let literal =
        |line: &str| format!("    \"{}\\n\"", line.replace('\\', "\\\\").replace('"', "\\\""));
    text.lines().map(literal).collect::<Vec<_>>().join("\n")
}

fn write(path: &Path, bytes: &[u8], program: bool) -> Result<()> {
    let written = || -> io::Result<()> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let mode = if program { 0o777 } else { 0o666 }; // what the umask leaves of it
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(bytes)
    };
    written().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_whole_interface_and_the_whole_sdk_go_along() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for (files, prefix, directory) in
            [(WIT, "wit/", root.join("wit")), (SDK, "sdk/src/", root.join("plugins/sdk/src"))]
        {
            let given: BTreeSet<String> =
                files.iter().map(|(path, ..)| path.replacen(prefix, "", 1)).collect();
            let there: BTreeSet<String> = fs::read_dir(&directory)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            assert_eq!(given, there, "{}", directory.display());
        }
    }

    #[test]
    fn everything_is_filled_in() {
        for language in [Language::Rust, Language::Javascript, Language::Python, Language::C] {
            let kind = kind(language);
            for (path, text, _) in project(&kind, "rack-first") {
                assert!(!text.contains("{{"), "{} of {}", path, kind.language);
            }
        }
    }

    #[test]
    fn names_are_such_that_everything_can_be_called_so() {
        for name in ["rack-first", "a", "a1_b"] {
            check_name(name).unwrap();
        }
        for name in ["", "Rack", "1st", "-a", "a b", "a/b", "ä"] {
            let error = check_name(name).unwrap_err().to_string();
            assert!(error.starts_with(&format!("`{name}` cannot be")), "{error}");
        }
    }
}
