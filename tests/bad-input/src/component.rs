//! A file in the plugin directory of any content.

use std::sync::OnceLock;
use std::time::Duration;

use conclave_policy::{Limits, LoadError, PolicyHost};

/// Takes bytes for a component; text that begins with a parenthesis for WebAssembly's text form.
pub fn run(bytes: &[u8]) {
    match std::str::from_utf8(bytes).ok().filter(|text| text.starts_with('(')) {
        Some(text) => {
            if let Ok(binary) = wat::parse_str(text) {
                load(&binary);
            }
        }
        None => load(bytes),
    }
}

fn load(bytes: &[u8]) {
    match host().load("fuzzed", bytes) {
        Ok(policy) => {
            assert!(!policy.interfaces().is_empty(), "a policy that says nothing is none");
            assert_eq!(policy.name(), "fuzzed");
            // It may answer or fail, within its limits; that is for `answer` to judge.
            if let Err(error) = policy.about() {
                assert!(crate::told(&error).contains("policy `fuzzed` ("));
            }
            let question = policy.validate(&"masters".into(), "{}");
            if let Err(error) = question {
                assert!(crate::told(&error).contains("for election `masters`"));
            }
        }
        Err(error) => {
            let text = crate::told(&error);
            assert!(text.len() < 20_000, "an error of {} bytes", text.len());
            if let LoadError::Version { .. } = error {
                assert!(text.contains("this host speaks"), "{text}");
            }
        }
    }
}

/// Fuel decides, and not how busy the machine is; little of it, since nobody waits for an answer.
fn host() -> &'static PolicyHost {
    static HOST: OnceLock<PolicyHost> = OnceLock::new();
    HOST.get_or_init(|| {
        let limits =
            Limits { deadline: Duration::from_secs(60), fuel: 10_000_000, ..Limits::default() };
        PolicyHost::new(limits, None).expect("a sandbox")
    })
}
