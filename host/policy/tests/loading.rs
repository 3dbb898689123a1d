//! What makes a usable policy of a file, and what is said of one that is none.

mod common;

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use common::{candidate, chain, component, host, patient, view};
use conclave_policy::{DirectoryError, LookupError, Origin, PolicyHost, Wanted};

const COLD: &str = "plugins/built/cold-standby.wasm";

/// A component with nothing but an empty instance exported under a name.
fn exporting(name: &str) -> Vec<u8> {
    compile(&format!(r#"(component (instance $i) (export "{name}" (instance $i)))"#))
}

fn compile(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap_or_else(|error| panic!("{error}"))
}

fn refused(bytes: &[u8]) -> String {
    chain(&host().load("x", bytes).expect_err("no usable policy"))
}

#[test]
fn other_versions_are_named_beside_those_that_the_host_speaks() {
    assert_eq!(
        refused(&exporting("conclave:policy/leadership@9.0.0")),
        "it exports `conclave:policy/leadership@9.0.0`; this host speaks conclave:policy@0.1"
    );
}

#[test]
fn a_component_that_is_no_policy_is_told_so() {
    assert!(refused(&compile("(component)")).starts_with("it exports nothing; a policy exports"));
    assert!(refused(&exporting("a:b/c@1.0.0")).starts_with("it exports `a:b/c@1.0.0`; a policy"));
}

#[test]
fn an_interface_without_its_functions_is_refused() {
    let text = refused(&exporting("conclave:policy/leadership@0.1.0"));
    assert!(text.starts_with("its `leadership` is not that of conclave:policy@0.1: "), "{text}");
}

#[test]
fn an_interface_with_other_types_is_refused() {
    let text = refused(&compile(
        r#"(component
            (core module $m (func (export "f") (result i32) i32.const 1))
            (core instance $c (instantiate $m))
            (func $f (result u32) (canon lift (core func $c "f")))
            (instance $i (export "rank" (func $f)))
            (export "conclave:policy/leadership@0.1.0" (instance $i)))"#,
    ));
    assert!(text.starts_with("its `leadership` is not that of conclave:policy@0.1: "), "{text}");
}

#[test]
fn imports_beyond_logging_and_the_empty_wasi_are_named() {
    for import in [
        "wasi:http/outgoing-handler@0.2.0",
        "wasi:io/streams@0.3.0",
        "conclave:policy/logging@0.2.0",
        "conclave:host/secrets@0.1.0",
    ] {
        let text = refused(&compile(&format!(
            r#"(component (import "{import}" (instance (export "f" (func)))))"#
        )));
        assert!(text.starts_with(&format!("it imports `{import}`, which")), "{text}");
    }
    assert!(refused(&compile(r#"(component (import "f" (func)))"#)).starts_with("it imports `f`"));
}

#[test]
fn an_allowed_import_of_another_type_is_refused() {
    let text = refused(&compile(
        r#"(component (import "conclave:policy/logging@0.1.0"
            (instance (export "log" (func (param "all" u64))))))"#,
    ));
    assert!(text.starts_with("its imports do not fit: "), "{text}");
}

#[test]
fn a_trap_at_the_start_is_found_when_loading() {
    let text = refused(&compile(
        r#"(component
            (core module $m
                (func $start unreachable)
                (func (export "f") (result i32) i32.const 1)
                (start $start))
            (core instance $c (instantiate $m))
            (func $f (result u32) (canon lift (core func $c "f")))
            (instance $i (export "rank" (func $f)))
            (export "conclave:policy/leadership@0.1.0" (instance $i)))"#,
    ));
    assert!(text.starts_with("a trial instance of it failed: it trapped"), "{text}");
}

#[test]
fn more_memory_than_allowed_is_found_when_loading() {
    // 1,025 pages are 64 KiB more than 64 MiB.
    let text = refused(&compile(
        r#"(component
            (core module $m (memory 1025) (func (export "f") (result i32) i32.const 1))
            (core instance $c (instantiate $m))
            (func $f (result u32) (canon lift (core func $c "f")))
            (instance $i (export "rank" (func $f)))
            (export "conclave:policy/leadership@0.1.0" (instance $i)))"#,
    ));
    assert!(text.starts_with("it does not compile"), "{text}");
}

#[test]
fn what_is_not_a_whole_component_is_refused() {
    let whole = component(COLD);
    assert!(
        refused(&whole[..whole.len() / 2]).starts_with("it does not compile (is it a complete")
    );
    assert!(refused(b"").starts_with("it is not a WebAssembly component"));
    assert!(refused(b"#!/bin/sh\n").starts_with("it is not a WebAssembly component"));
    let empty = refused(&compile("(module)"));
    assert!(
        empty.starts_with("it is a core WebAssembly module, which exports nothing;"),
        "{empty}"
    );
    let policy = refused(&compile(
        r#"(module
            (func (export "conclave:policy/facts@0.1.0#describe"))
            (func (export "conclave:policy/leadership@0.1.0#rank"))
            (memory (export "memory") 1))"#,
    ));
    let exports =
        "exports `conclave:policy/facts@0.1.0`, `conclave:policy/leadership@0.1.0`, `memory`;";
    assert!(policy.contains(exports) && policy.ends_with("speaks conclave:policy@0.1"), "{policy}");
}

#[test]
fn built_in_policies_need_no_directory() {
    let directory = host().load_directory(None, Wanted::All).expect("the built-in ones");
    let names: Vec<_> = directory.entries.keys().map(String::as_str).collect();
    let expected =
        ["cold-standby", "executor-match", "hot-standby", "oldest-version", "preferred", "spread"];
    assert_eq!(names, expected);
    for name in names {
        assert_eq!(directory.get(name).expect("usable").name(), name);
        assert_eq!(directory.entries[name].origin, Origin::BuiltIn);
    }
}

#[test]
fn files_win_over_built_in_policies_and_bad_ones_harm_no_other() {
    let plugins = tempfile::tempdir().expect("a directory");
    let put = |file: &str, bytes: &[u8]| {
        fs::write(plugins.path().join(file), bytes).expect("a file");
    };
    put("hot-standby.wasm", &component(COLD));
    put("cold-standby.wasm", &component(COLD)[..100]);
    put("mine.wasm", &component(COLD));
    put("not ours.wasm", &component(COLD));
    put(".mine.wasm.swp", b"junk");
    put(".hidden.wasm", b"junk");
    put("README", b"junk");
    fs::create_dir(plugins.path().join("folder.wasm")).expect("a directory");
    put("open.wasm", &component(COLD));
    fs::set_permissions(plugins.path().join("open.wasm"), Permissions::from_mode(0o666))
        .expect("a mode");

    let directory = host().load_directory(Some(plugins.path()), Wanted::All).expect("a directory");
    let path = plugins.path().join("hot-standby.wasm");
    assert_eq!(
        directory.entries["hot-standby"].origin,
        Origin::File { path, replaces_builtin: true }
    );
    let replaced = directory.get("hot-standby").expect("usable");
    let about = replaced.about().expect("an answer").value.expect("about");
    assert_eq!(about.name, "cold-standby");
    directory.get("mine").expect("usable");

    let bad: Vec<String> =
        directory.bad().map(|(name, _, error)| format!("{name}: {error}")).collect();
    assert_eq!(
        bad,
        [
            "cold-standby: it does not compile (is it a complete file?)",
            "folder: it is not a regular file",
            "not ours: its name may have letters, digits, `-`, `_` and `.` only",
            "open: everybody may write to it; take that right away (chmod o-w)",
        ]
    );
    let error = directory.get("cold-standby").expect_err("shadowed by a bad file");
    assert!(matches!(error, LookupError::Unusable { .. }), "{error}");
    let unknown = directory.get("colt-standby").expect_err("unknown").to_string();
    assert!(unknown.contains("`executor-match`, `folder`"), "{unknown}");
}

#[test]
fn only_what_is_wanted_is_loaded() {
    let wanted = BTreeSet::from(["cold-standby".to_owned()]);
    let directory = host().load_directory(None, Wanted::Only(&wanted)).expect("the built-in ones");
    assert!(directory.get("cold-standby").is_ok());
    assert!(directory.entries["hot-standby"].policy.is_none());
}

#[test]
fn a_directory_that_everybody_may_write_to_is_refused() {
    let plugins = tempfile::tempdir().expect("a directory");
    fs::set_permissions(plugins.path(), Permissions::from_mode(0o1777)).expect("a mode");
    let error = host().load_directory(Some(plugins.path()), Wanted::All).expect_err("refused");
    assert!(matches!(error, DirectoryError::WorldWritable { .. }), "{error}");
    let missing = host().load_directory(Some(&plugins.path().join("x")), Wanted::All);
    assert!(matches!(missing, Err(DirectoryError::Read { .. })));
}

#[test]
fn compiled_components_are_kept_privately_and_damage_is_compiled_again() {
    let state = tempfile::tempdir().expect("a directory");
    let cache = state.path().join("policies");
    let load = || {
        let host = PolicyHost::new(patient(), Some(cache.clone())).expect("a sandbox");
        let policy = host.load("cold-standby", &component(COLD)).expect("a policy");
        let ranks = policy.rank(&view(&["a", "b"], Some("b")), "{}").expect("an answer").value;
        assert_eq!(ranks.ranking.order[0].node.as_str(), "b");
    };
    let only_entry = || {
        let mut entries =
            fs::read_dir(&cache).expect("the cache").map(|e| e.expect("entry").path());
        let entry = entries.next().expect("an entry");
        assert!(entries.next().is_none(), "one entry only");
        entry
    };
    let written = || fs::metadata(only_entry()).expect("metadata").modified().expect("a time");
    let mode = |path: &std::path::Path| fs::metadata(path).expect("metadata").permissions().mode();

    load();
    assert_eq!(mode(&cache) & 0o777, 0o700);
    assert_eq!(mode(&only_entry()) & 0o777, 0o600);
    let first = written();
    load();
    assert_eq!(written(), first, "the second start takes it from the cache");

    let good = fs::read(only_entry()).expect("the entry");
    let mut damaged = good.clone();
    *damaged.last_mut().expect("content") ^= 1;
    for bad in [&damaged[..], &good[..good.len() / 2], b"", b"junk"] {
        fs::write(only_entry(), bad).expect("damage");
        load();
        assert_eq!(fs::read(only_entry()).expect("the entry"), good, "compiled again");
    }

    fs::set_permissions(only_entry(), Permissions::from_mode(0o602)).expect("a mode");
    load();
    assert_eq!(mode(&only_entry()) & 0o777, 0o600, "what others may write to is not used");
}

#[test]
fn compiled_code_is_no_plugin() {
    let state = tempfile::tempdir().expect("a directory");
    let host = PolicyHost::new(patient(), Some(state.path().to_owned())).expect("a sandbox");
    host.load("cold-standby", &component(COLD)).expect("a policy");
    let entry = fs::read_dir(state.path()).expect("the cache").next().expect("an entry");
    let kept = fs::read(entry.expect("an entry").path()).expect("compiled code");
    // As it is kept, and without the digest before it, as wasmtime itself writes it.
    for code in [&kept[..], &kept[32..]] {
        assert!(refused(code).starts_with("it is not a WebAssembly component"));
    }
}

#[test]
fn a_cache_that_cannot_be_used_is_done_without() {
    let state = tempfile::tempdir().expect("a directory");
    let file = state.path().join("policies");
    fs::write(&file, b"").expect("a file");
    let host = PolicyHost::new(patient(), Some(file)).expect("a sandbox");
    host.load("cold-standby", &component(COLD)).expect("a policy");
}

#[test]
fn the_same_question_gets_the_same_answer_for_the_same_fuel() {
    let host = host();
    let policy = host.load("cold-standby", &component(COLD)).expect("a policy");
    let mut view = view(&["a", "b", "c"], Some("c"));
    view.candidates.push(candidate("d"));
    let first = policy.rank(&view, r#"{"prefer": ["d"]}"#).expect("an answer");
    let second = policy.rank(&view, r#"{"prefer": ["d"]}"#).expect("an answer");
    assert_eq!(first.value, second.value);
    assert_eq!(first.usage.fuel, second.usage.fuel);
}
