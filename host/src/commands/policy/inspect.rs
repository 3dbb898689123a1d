//! `conclave policy inspect FILE`: what a policy is, or why a file is none.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use conclave_policy::{About, Interface, Policy, PolicyHost, SPEAKS};
use conclave_policy_test::{Options, PolicySource, load};
use serde::Serialize;

use super::{cache, printable};
use crate::cli::{Output, exit};
use crate::commands::{Usage, say};

/// Everything that is shown.
#[derive(Debug, Serialize)]
struct Report {
    /// By which the configuration refers to it: the file's name.
    policy: String,
    digest: String,
    bytes: usize,
    about: Option<AboutReport>,
    interfaces: Vec<InterfaceReport>,
    imports: Vec<String>,
    host_speaks: String,
}

#[derive(Debug, Serialize)]
struct AboutReport {
    name: String,
    version: String,
    summary: String,
    config_schema: Option<serde_json::Value>,
}

#[derive(Debug, Serialize)]
struct InterfaceReport {
    name: &'static str,
    version: String,
}

pub(in crate::commands) fn inspect(policy: &str, output: Output) -> Result<u8> {
    let limits = Options::default().limits;
    let host = PolicyHost::new(limits, cache()).context("cannot set the sandbox up")?;
    let source = PolicySource::new(policy, Path::new(""));
    let policy = load(&host, &source).map_err(|words| Usage(anyhow!(words)))?;
    let about = policy.about();
    let failed = about.is_err();
    let about = about.map(|answer| answer.value).unwrap_or_else(|error| {
        say(&format!("conclave: {:#}", anyhow::Error::from(error)));
        None
    });
    let schema = about.as_ref().map(|about| about.config_schema.clone());
    let report = report(&policy, about);
    match output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
        Output::Table => print!("{}", printable(&table(&report, schema))),
    }
    Ok(if failed { exit::FAILURE } else { exit::SUCCESS })
}

fn report(policy: &Policy, about: Option<About>) -> Report {
    let interface = |(interface, version): (Interface, String)| InterfaceReport {
        name: interface.name(),
        version,
    };
    Report {
        policy: policy.name().to_owned(),
        digest: policy.digest().to_string(),
        bytes: policy.size(),
        about: about.map(|about| AboutReport {
            name: about.name,
            version: about.version,
            summary: about.summary,
            // The host has checked that it is JSON.
            config_schema: about.config_schema.and_then(|text| serde_json::from_str(&text).ok()),
        }),
        interfaces: policy.versions().into_iter().map(interface).collect(),
        imports: policy.imports(),
        host_speaks: format!("conclave:policy@{SPEAKS}"),
    }
}

/// What stands in for an interface that a policy does not export.
const DEFAULTS: [(&str, &str); 4] = [
    ("about", "configurations are not checked"),
    ("facts", "no facts"),
    ("leadership", "the incumbent first, then the longest-standing"),
    ("placement", "exclusive manifests on the leader, the others everywhere"),
];

/// `schema` is as its author wrote it; the outer `None` stands for a policy that says nothing of itself.
fn table(report: &Report, schema: Option<Option<String>>) -> String {
    let mut out = String::new();
    let mut say = |name: &str, value: &str| {
        let line = format!("{name:<11} {value}");
        out.push_str(line.trim_end());
        out.push('\n');
    };
    say("policy", &report.policy);
    if let Some(about) = &report.about {
        say("name", &format!("{} {}", about.name, about.version));
        say("summary", &about.summary);
    }
    say("size", &format!("{} bytes", report.bytes));
    say("digest", &format!("sha256:{}", report.digest));
    for (at, (name, default)) in DEFAULTS.iter().enumerate() {
        let title = if at == 0 { "interfaces" } else { "" };
        match report.interfaces.iter().find(|interface| interface.name == *name) {
            Some(interface) => say(title, &format!("{name} {}", interface.version)),
            None => say(title, &format!("{name}: absent; built in: {default}")),
        }
    }
    say("host speaks", &report.host_speaks);
    if report.imports.is_empty() {
        say("imports", "nothing");
    }
    for (at, import) in report.imports.iter().enumerate() {
        say(if at == 0 { "imports" } else { "" }, import);
    }
    match schema {
        None => say("settings", "unknown"),
        Some(None) => say("settings", "no schema"),
        Some(Some(schema)) => {
            for (at, line) in schema.trim().lines().enumerate() {
                say(if at == 0 { "settings" } else { "" }, line);
            }
        }
    }
    out
}
