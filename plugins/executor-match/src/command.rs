//! What a manifest's containers run: the words of each `command` and `args`, variables filled in.

use saphyr_parser::{Event, Parser};

/// What is open around a place in a YAML text.
enum Open {
    /// A mapping: the key whose value comes next, or `None` where a key comes next.
    Mapping(Option<String>),
    /// A sequence under a key.
    Sequence(String),
}

/// The words that each list under `command` or `args` consists of, in the text's order. `${NAME}` is
/// filled in where `variable` knows it. A string that holds several words, as `sh -c` takes it,
/// is split.
///
/// # Errors
/// What is wrong with the YAML, in words.
pub(crate) fn commands<'v>(
    yaml: &str,
    variable: impl Fn(&str) -> Option<&'v str>,
) -> Result<Vec<Vec<String>>, String> {
    let mut open: Vec<Open> = Vec::new();
    let mut commands: Vec<Vec<String>> = Vec::new();
    for event in Parser::new_from_str(yaml) {
        let (event, _) = event.map_err(|error| format!("the manifest is no YAML: {error}"))?;
        match event {
            Event::MappingStart(..) => open.push(Open::Mapping(None)),
            Event::SequenceStart(..) => {
                let key = match open.last() {
                    Some(Open::Mapping(Some(key))) => key.clone(),
                    _ => String::new(),
                };
                if is_command(&key) {
                    commands.push(Vec::new());
                }
                open.push(Open::Sequence(key));
            }
            Event::MappingEnd | Event::SequenceEnd => {
                open.pop();
                value_ends(&mut open);
            }
            Event::Scalar(text, ..) => match open.last_mut() {
                Some(Open::Mapping(key @ None)) => *key = Some(text.into_owned()),
                Some(Open::Sequence(key)) if is_command(key) => {
                    let filled = fill(&text, &variable);
                    let words = filled.split_whitespace().map(str::to_owned);
                    commands
                        .last_mut()
                        .into_iter()
                        .for_each(|command| command.extend(words.clone()));
                }
                _ => value_ends(&mut open),
            },
            Event::Alias(_) => value_ends(&mut open),
            _ => {}
        }
    }
    Ok(commands)
}

fn is_command(key: &str) -> bool {
    key == "command" || key == "args"
}

/// After a value in a mapping comes the next key.
fn value_ends(open: &mut [Open]) {
    if let Some(Open::Mapping(key)) = open.last_mut() {
        *key = None;
    }
}

/// Fills in `${NAME}`; `$${` is a literal `${`, as in the host's rendering.
fn fill<'v>(text: &str, variable: &impl Fn(&str) -> Option<&'v str>) -> String {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, after) = rest.split_at(at);
        if let Some(before) = before.strip_suffix('$') {
            filled += before;
            filled += "${";
            rest = &after[2..];
            continue;
        }
        filled += before;
        let known =
            after[2..].split_once('}').and_then(|(name, rest)| Some((variable(name)?, rest)));
        match known {
            Some((value, behind)) => {
                filled += value;
                rest = behind;
            }
            None => {
                filled += "${";
                rest = &after[2..];
            }
        }
    }
    filled + rest
}

/// Whether a manifest runs a scheduler: a word of a command is one, or a program's path ends in one.
pub(crate) fn runs_scheduler(yaml: &str) -> bool {
    let program = |word: &String| {
        let name = word.rsplit('/').next().unwrap_or_default();
        !word.starts_with('-') && (name == "scheduler" || name.ends_with("-scheduler"))
    };
    commands(yaml, |_| None).is_ok_and(|commands| commands.iter().flatten().any(program))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_found_wherever_a_pod_has_them() {
        let variables = |name: &str| (name == "IP").then_some("10.0.0.1");
        for (yaml, expected) in [
            ("command: [km, scheduler, --v=1]", vec![vec!["km", "scheduler", "--v=1"]]),
            (
                "spec:\n  containers:\n  - name: command\n    command:\n    - km\n    args: ['--a=${IP}:1', \"--b\", x]\n",
                vec![vec!["km"], vec!["--a=10.0.0.1:1", "--b", "x"]],
            ),
            (
                "command: [sh, -c, 'exec km scheduler --a=$${IP} --b=${OTHER} --c=${']",
                vec![vec![
                    "sh",
                    "-c",
                    "exec",
                    "km",
                    "scheduler",
                    "--a=${IP}",
                    "--b=${OTHER}",
                    "--c=${",
                ]],
            ),
            ("metadata: {name: x}\n# command: [km]\n", vec![]),
            ("command: km scheduler", vec![]),
            (
                r#"{"spec": {"containers": [{"args": ["--x"]}, {"args": ["--y"]}]}}"#,
                vec![vec!["--x"], vec!["--y"]],
            ),
            ("a: {env: [{name: args, value: [x]}], args: [y]}", vec![vec!["y"]]),
        ] {
            assert_eq!(
                commands(yaml, variables).as_deref(),
                Ok(&expected
                    .iter()
                    .map(|c| c.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>())
                    .collect::<Vec<_>>()[..]),
                "{yaml}"
            );
        }
        assert!(commands("a: [", variables).unwrap_err().starts_with("the manifest is no YAML"));
    }

    #[test]
    fn a_scheduler_is_known_by_its_command() {
        for (command, expected) in [
            ("[/opt/kubernetes/km, scheduler, --v=1]", true),
            ("[/usr/bin/kube-scheduler]", true),
            ("[sh, -c, 'exec k8sm-scheduler --v=1']", true),
            ("[km, controller-manager, --scheduler]", false),
            ("[km, apiserver]", false),
        ] {
            assert_eq!(runs_scheduler(&format!("command: {command}")), expected, "{command}");
        }
    }
}
