//! Filling `${NAME}` into a manifest. Pure: text and variables in, text or a located error out.

use crate::validate::MAX_MANIFEST_BYTES;

/// What stands in the way of rendering, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {problem}")]
pub struct RenderError {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong there.
    pub problem: RenderProblem,
}

/// What can be wrong with a reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RenderProblem {
    /// Nobody gave this variable a value.
    #[error(
        "unknown variable {name}; give it a value on the node or from the policy, \
         or write $${{{name}}} for the literal text"
    )]
    Unknown {
        /// Its name.
        name: String,
    },
    /// The variable depends on the role, and the manifest is not exclusive.
    #[error("{name} may be used only in an exclusive manifest")]
    ExclusiveOnly {
        /// Its name.
        name: String,
    },
    /// `${` without what follows it.
    #[error(
        "expected ${{NAME}} with letters, digits and underscores, not starting with a digit; \
         write $${{ for a literal ${{"
    )]
    Malformed,
    /// The value of this variable makes the text too long.
    #[error("with the value of {name} it has more than {MAX_MANIFEST_BYTES} bytes")]
    TooLong {
        /// Its name.
        name: String,
    },
}

/// A variable's value, as the caller of [`render`] answers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup<'a> {
    /// It has this value.
    Value(&'a str),
    /// It has none.
    Unknown,
    /// It must not be used in a manifest that is not exclusive.
    ExclusiveOnly,
}

const MAX_BYTES: usize = MAX_MANIFEST_BYTES as usize;

/// Replaces every `${NAME}` by what `lookup` answers, and every `$${` by a literal `${`. A lone
/// `$`, and `$NAME` without braces, stay as they are. Ends as soon as a value makes the text longer than
/// any manifest may be.
pub fn render<'v>(text: &str, lookup: impl Fn(&str) -> Lookup<'v>) -> Result<String, RenderError> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("$${") {
            out.push_str("${");
            rest = after;
        } else if let Some(after) = rest.strip_prefix("${") {
            let problem = match reference(after) {
                None => RenderProblem::Malformed,
                Some((name, after)) => match lookup(name) {
                    // Whoever gives a value does not know how often it is used.
                    Lookup::Value(value) if out.len() + value.len() > MAX_BYTES => {
                        RenderProblem::TooLong { name: name.to_owned() }
                    }
                    Lookup::Value(value) => {
                        out.push_str(value);
                        rest = after;
                        continue;
                    }
                    Lookup::Unknown => RenderProblem::Unknown { name: name.to_owned() },
                    Lookup::ExclusiveOnly => RenderProblem::ExclusiveOnly { name: name.to_owned() },
                },
            };
            return Err(locate(text, text.len() - rest.len(), problem));
        } else {
            out.push('$');
            rest = &rest[1..];
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// Whether a text can have come of a template, whatever the values were: all that stands between the
/// references is in it, in order, and is the greater part of it.
pub(crate) fn may_come_of(text: &str, template: &str) -> bool {
    // No manifest has this character, so it can stand for any value.
    const VALUE: &str = "\0";
    let Ok(marked) = render(template, |_| Lookup::Value(VALUE)) else { return false };
    let mut pieces: Vec<&str> = marked.split(VALUE).collect();
    let fixed: usize = pieces.iter().map(|piece| piece.len()).sum();
    let (Some(last), rest) = (pieces.pop(), pieces) else { return false };
    if rest.is_empty() {
        return text == last;
    }
    let mut left = text;
    for (number, piece) in rest.into_iter().enumerate() {
        match left.find(piece) {
            Some(at) if number > 0 || at == 0 => left = &left[at + piece.len()..],
            _ => return false,
        }
    }
    left.ends_with(last) && fixed > text.len() / 2
}

/// Splits `NAME}…` into the name and what follows the brace.
fn reference(text: &str) -> Option<(&str, &str)> {
    let (name, after) = text.split_once('}')?;
    let mut bytes = name.bytes();
    let first = bytes.next()?;
    let starts = first.is_ascii_alphabetic() || first == b'_';
    (starts && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')).then_some((name, after))
}

fn locate(text: &str, offset: usize, problem: RenderProblem) -> RenderError {
    let before = &text[..offset];
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    RenderError {
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
        problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Lookup<'static> {
        match name {
            "IP" => Lookup::Value("10.0.0.1"),
            "EMPTY" => Lookup::Value(""),
            "NESTED" => Lookup::Value("${IP}"),
            "_x1" => Lookup::Value("x"),
            "CONCLAVE_TERM" => Lookup::ExclusiveOnly,
            _ => Lookup::Unknown,
        }
    }

    #[test]
    fn fills_in_what_is_known_and_nothing_else() {
        for (text, expected) in [
            ("", ""),
            ("no variables", "no variables"),
            ("a ${IP} b", "a 10.0.0.1 b"),
            ("${IP}${IP}", "10.0.0.110.0.0.1"),
            ("[${EMPTY}]", "[]"),
            ("${_x1}", "x"),
            ("a value is not rendered again: ${NESTED}", "a value is not rendered again: ${IP}"),
            ("$${IP}", "${IP}"),
            ("$$${IP}", "$${IP}"),
            ("$IP $ $$ $1 $(IP) $", "$IP $ $$ $1 $(IP) $"),
            ("é${IP}\r\nü", "é10.0.0.1\r\nü"),
        ] {
            assert_eq!(render(text, lookup).as_deref(), Ok(expected), "{text:?}");
        }
    }

    #[test]
    fn says_where_it_fails() {
        let unknown = |name: &str| RenderProblem::Unknown { name: name.to_owned() };
        for (text, line, column, problem) in [
            ("${NO}", 1, 1, unknown("NO")),
            ("a\nbé ${IP} ${NO}", 2, 10, unknown("NO")),
            ("$${IP} ${ip}", 1, 8, unknown("ip")),
            ("\n\n  ${", 3, 3, RenderProblem::Malformed),
            ("${}", 1, 1, RenderProblem::Malformed),
            ("${1A}", 1, 1, RenderProblem::Malformed),
            ("${A-B}", 1, 1, RenderProblem::Malformed),
            ("${ IP }", 1, 1, RenderProblem::Malformed),
            (
                "x${CONCLAVE_TERM}",
                1,
                2,
                RenderProblem::ExclusiveOnly { name: "CONCLAVE_TERM".to_owned() },
            ),
        ] {
            assert_eq!(
                render(text, lookup),
                Err(RenderError { line, column, problem }),
                "{text:?}"
            );
        }
    }

    #[test]
    fn tells_whether_a_text_may_come_of_a_template() {
        let template = "kind: Pod\nip: ${IP}\nterm: '${CONCLAVE_TERM}'\ncost: $${x}\n";
        let rendered =
            |ip: &str, term: &str| format!("kind: Pod\nip: {ip}\nterm: '{term}'\ncost: ${{x}}\n");
        for (text, expected) in [
            (rendered("10.0.0.1", "17"), true),
            (rendered("", ""), true),
            (rendered("a\nterm: 'b", "17"), true),
            (rendered("10.0.0.1", "17").replace("Pod", "Job"), false),
            (rendered("10.0.0.1", "17") + "more: 1\n", false),
            ("#".to_owned() + &rendered("10.0.0.1", "17"), false),
            (rendered(&"x".repeat(100), "17"), false),
            (String::new(), false),
        ] {
            assert_eq!(may_come_of(&text, template), expected, "{text}");
        }
        assert!(may_come_of("as it is", "as it is") && !may_come_of("as it was", "as it is"));
        assert!(!may_come_of("anything", "${ALL}") && !may_come_of("${", "${"));
    }

    #[test]
    fn values_that_multiply_are_not_written_out() {
        let large = "x".repeat(MAX_BYTES / 2);
        let lookup = |_: &str| Lookup::Value(&large);
        assert_eq!(render("${A}${A}", lookup).map(|text| text.len()), Ok(MAX_BYTES));
        let error = render(&format!("a\n{}", "${A}".repeat(300_000)), lookup).unwrap_err();
        assert_eq!((error.line, error.column), (2, 5));
        assert_eq!(error.problem, RenderProblem::TooLong { name: "A".to_owned() });
    }

    #[test]
    fn its_messages_say_what_to_do() {
        let message = render("a: ${PORT}", lookup).unwrap_err().to_string();
        assert_eq!(
            message,
            "line 1, column 4: unknown variable PORT; give it a value on the node or from the \
             policy, or write $${PORT} for the literal text"
        );
    }
}
