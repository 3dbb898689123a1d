//! One manifest: the newest source, the last good one, and the content to put in place.

use std::collections::BTreeMap;
use std::sync::Arc;

use conclave_core::ids::{ElectionName, NodeName, Token};
use conclave_core::record::Attributes;

use crate::digest::Digest;
use crate::error::phrase;
use crate::files::Target;
use crate::render::{Lookup, RenderError, RenderProblem, render};
use crate::settings::Handling;
use crate::source::Source;
use crate::validate::{InvalidManifest, MAX_MANIFEST_BYTES, validate};

/// What is put in place, byte for byte.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) bytes: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) digest: Digest,
}

/// Values for a policy's variables.
pub type Variables = BTreeMap<String, String>;

/// What rendering may draw from beside the placement.
#[derive(Clone, Debug)]
pub struct Scope {
    /// This node.
    pub node: NodeName,
    /// The election whose manifest it is.
    pub election: ElectionName,
    /// This node's variables.
    pub variables: Arc<Attributes>,
}

/// One manifest of an election.
#[derive(Debug)]
pub(crate) struct Manifest {
    pub(crate) target: Target,
    pub(crate) handling: Handling,
    /// The source directory that it was found in, by number; none if it is configured by name.
    pub(crate) directory: Option<usize>,
    /// What the reader said last, if it said anything yet.
    latest: Option<Result<Arc<Source>, String>>,
    /// The newest source that can be used.
    good: Option<Arc<Source>>,
    /// What is wrong with the latest.
    trouble: Option<String>,
    /// The variables of the last placement that said run.
    variables: Option<Variables>,
    /// The last rendering, for these inputs.
    rendered: Option<Rendered>,
}

#[derive(Debug)]
struct Rendered {
    source: Arc<Source>,
    token: Option<Token>,
    variables: Variables,
    content: Result<Arc<Content>, Unrendered>,
}

#[derive(Clone, Debug)]
struct Unrendered {
    reason: String,
    /// The policy, not asked yet, might give the variable.
    perhaps_later: bool,
}

impl Manifest {
    pub(crate) fn new(target: Target, handling: Handling, directory: Option<usize>) -> Self {
        Manifest {
            target,
            handling,
            directory,
            latest: None,
            good: None,
            trouble: None,
            variables: None,
            rendered: None,
        }
    }

    /// Takes what the reader found.
    pub(crate) fn read(&mut self, result: Result<Arc<Source>, String>, scope: &Scope) {
        self.latest = Some(result);
        self.judge(scope);
    }

    /// Takes the variables of a placement that says run.
    pub(crate) fn place(&mut self, variables: &Variables, scope: &Scope) {
        if self.variables.as_ref() != Some(variables) {
            self.variables = Some(variables.clone());
            self.judge(scope);
        }
    }

    /// Takes the variables that a placement would have in a term: what cannot be rendered is
    /// found out before there is one.
    pub(crate) fn rehearse(&mut self, variables: &Variables, scope: &Scope) {
        if self.handling.exclusive {
            self.place(variables, scope);
        }
    }

    /// Whether the reader has said anything yet.
    pub(crate) fn is_read(&self) -> bool {
        self.latest.is_some()
    }

    /// The good source's text, for policies.
    pub(crate) fn text(&self) -> &str {
        self.good.as_ref().map_or("", |source| &source.text)
    }

    /// The good source's digest, by which a change is noticed.
    pub(crate) fn digest(&self) -> Option<&Digest> {
        self.good.as_ref().map(|source| &source.digest)
    }

    /// The size of what would be put in place, roughly.
    pub(crate) fn size(&self) -> usize {
        self.good.as_ref().map_or(0, |source| source.text.len())
    }

    /// What is wrong with the latest source, and whether an earlier one can stand in.
    pub(crate) fn trouble(&self) -> Option<(&str, bool)> {
        self.trouble.as_deref().map(|reason| (reason, self.good.is_some()))
    }

    /// The content to put in place in this term; without one, on a node that only runs it.
    pub(crate) fn content(
        &mut self,
        token: Option<Token>,
        scope: &Scope,
    ) -> Result<Arc<Content>, String> {
        let Some(source) = self.good.clone() else {
            let reason = self.trouble.clone();
            return Err(reason.unwrap_or_else(|| "the source has not been read yet".to_owned()));
        };
        self.make(&source, token, scope).map_err(|unrendered| unrendered.reason)
    }

    /// Whether the latest source can be used; if not, the last good one stays.
    fn judge(&mut self, scope: &Scope) {
        let source = match &self.latest {
            None => return,
            Some(Err(reason)) => {
                self.trouble = Some(reason.clone());
                return;
            }
            Some(Ok(source)) => Arc::clone(source),
        };
        // The token is not known before the term; any number shows whether the rest is right.
        let token = self.handling.exclusive.then_some(Token(0));
        match self.make(&source, token, scope) {
            Ok(_) => {
                self.good = Some(source);
                self.trouble = None;
            }
            Err(unrendered) if unrendered.perhaps_later => {
                self.good = Some(source);
                self.trouble = None;
            }
            Err(unrendered) => {
                if self.good.as_ref().is_some_and(|good| Arc::ptr_eq(good, &source)) {
                    self.good = None;
                }
                self.trouble = Some(unrendered.reason);
            }
        }
    }

    fn make(
        &mut self,
        source: &Arc<Source>,
        token: Option<Token>,
        scope: &Scope,
    ) -> Result<Arc<Content>, Unrendered> {
        let none = Variables::new();
        let variables = self.variables.as_ref().unwrap_or(&none);
        if let Some(last) = &self.rendered
            && Arc::ptr_eq(&last.source, source)
            && (!self.handling.render || (last.token == token && last.variables == *variables))
            && last.content.as_ref().err().is_none_or(|unrendered| !unrendered.perhaps_later)
        {
            return last.content.clone();
        }
        let content = if self.handling.render {
            self.fill_in(source, token, variables, scope)
        } else {
            let bytes = source.text.clone().into_bytes();
            Ok(Content { bytes, mode: source.mode, digest: source.digest.clone() })
        };
        let content = content.map(Arc::new);
        self.rendered = Some(Rendered {
            source: Arc::clone(source),
            token,
            variables: variables.clone(),
            content: content.clone(),
        });
        content
    }

    fn fill_in(
        &self,
        source: &Source,
        token: Option<Token>,
        variables: &Variables,
        scope: &Scope,
    ) -> Result<Content, Unrendered> {
        let term = token.map(|token| token.to_string()).unwrap_or_default();
        let term = self.handling.exclusive.then_some(term.as_str());
        let text = fill_in(&source.text, term, variables, scope).map_err(|fault| Unrendered {
            perhaps_later: self.variables.is_none() && fault.is_unknown(),
            reason: phrase(&fault),
        })?;
        let digest = Digest::of(text.as_bytes());
        Ok(Content { bytes: text.into_bytes(), mode: source.mode, digest })
    }
}

/// Why a text cannot be rendered to a manifest.
#[derive(Debug, thiserror::Error)]
pub enum Unrenderable {
    /// A variable stands in the way.
    #[error("cannot render: {0}")]
    Variable(RenderError),
    /// Values can be long.
    #[error("rendered, it has more than {MAX_MANIFEST_BYTES} bytes")]
    TooLarge,
    /// Values can be anything.
    #[error("rendered, it is not a manifest")]
    Invalid(#[source] InvalidManifest),
}

impl Unrenderable {
    /// Whether it lacks a variable that somebody might give.
    fn is_unknown(&self) -> bool {
        let Unrenderable::Variable(error) = self else { return false };
        matches!(&error.problem, RenderProblem::Unknown { name } if !name.starts_with("CONCLAVE_"))
    }
}

/// Renders a manifest's text as the manifest loop does in a term, or where it runs everywhere, and
/// says why it cannot be put in place, if so. `placed` are the variables of the policy's placement.
///
/// # Errors
/// What stands in the way.
pub fn try_rendering(
    text: &str,
    exclusive: bool,
    scope: &Scope,
    placed: &Variables,
) -> Result<(), Unrenderable> {
    fill_in(text, exclusive.then_some("0"), placed, scope).map(drop)
}

/// What is exclusive has a term.
fn fill_in(
    text: &str,
    term: Option<&str>,
    placed: &Variables,
    scope: &Scope,
) -> Result<String, Unrenderable> {
    let lookup = |name: &str| match (name, term) {
        ("CONCLAVE_NODE", _) => Lookup::Value(scope.node.as_str()),
        ("CONCLAVE_ELECTION", _) => Lookup::Value(scope.election.as_str()),
        ("CONCLAVE_TERM" | "CONCLAVE_ROLE", None) => Lookup::ExclusiveOnly,
        ("CONCLAVE_TERM", Some(term)) => Lookup::Value(term),
        ("CONCLAVE_ROLE", Some(_)) => Lookup::Value("leader"),
        (other, _) => match placed.get(other).or_else(|| scope.variables.get(other)) {
            Some(value) => Lookup::Value(value),
            None => Lookup::Unknown,
        },
    };
    let text = render(text, lookup).map_err(Unrenderable::Variable)?;
    if text.len() as u64 > MAX_MANIFEST_BYTES {
        return Err(Unrenderable::TooLarge);
    }
    validate(&text).map_err(Unrenderable::Invalid)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const HEAD: &str = "apiVersion: v1\nkind: Pod\n";

    fn scope() -> Scope {
        let variables = BTreeMap::from([("IP".to_owned(), "10.0.0.1".to_owned())]);
        Scope { node: "a".into(), election: "e".into(), variables: Arc::new(variables) }
    }

    fn source(body: &str) -> Result<Arc<Source>, String> {
        let text = format!("{HEAD}{body}\n");
        let digest = Digest::of(text.as_bytes());
        Ok(Arc::new(Source { text, mode: 0o640, digest }))
    }

    fn template(exclusive: bool) -> Manifest {
        let target = Target::new(Path::new("/d/a.yaml")).unwrap();
        Manifest::new(target, Handling { exclusive, render: true, adopt: false }, None)
    }

    fn body(manifest: &mut Manifest, token: Option<Token>) -> Result<String, String> {
        manifest.content(token, &scope()).map(|content| {
            let text = String::from_utf8(content.bytes.clone()).unwrap();
            text.strip_prefix(HEAD).unwrap().trim_end().to_owned()
        })
    }

    #[test]
    fn renders_from_node_placement_and_term() {
        for (text, expected) in [
            ("a: ${IP}", Ok("a: 10.0.0.1")),
            ("a: ${PORT}", Ok("a: 80")),
            ("a: ${CONCLAVE_NODE}/${CONCLAVE_ELECTION}", Ok("a: a/e")),
            ("a: ${CONCLAVE_TERM} ${CONCLAVE_ROLE}", Ok("a: 17 leader")),
            ("a: ${CONCLAVE_OTHER}", Err("unknown variable CONCLAVE_OTHER")),
            ("a: ${BREAKS}", Err("rendered, it is not a manifest")),
        ] {
            let mut manifest = template(true);
            manifest.read(source(text), &scope());
            let variables = BTreeMap::from([
                ("PORT".to_owned(), "80".to_owned()),
                ("BREAKS".to_owned(), "'\n{".to_owned()),
            ]);
            manifest.place(&variables, &scope());
            match (body(&mut manifest, Some(Token(17))), expected) {
                (Ok(text), Ok(expected)) => assert_eq!(text, expected),
                (Err(reason), Err(expected)) => assert!(reason.contains(expected), "{reason}"),
                other => panic!("{text}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_placements_variables_win_over_the_nodes() {
        let mut manifest = template(true);
        manifest.read(source("a: ${IP}"), &scope());
        manifest.place(&BTreeMap::from([("IP".to_owned(), "::1".to_owned())]), &scope());
        assert_eq!(body(&mut manifest, Some(Token(1))).as_deref(), Ok("a: ::1"));
    }

    #[test]
    fn what_runs_everywhere_must_not_depend_on_role_or_term() {
        for name in ["CONCLAVE_TERM", "CONCLAVE_ROLE"] {
            let mut manifest = template(false);
            manifest.read(source(&format!("a: ${{{name}}}")), &scope());
            let (reason, good) = manifest.trouble().expect("refused");
            assert!(reason.contains("only in an exclusive manifest"), "{reason}");
            assert!(!good);
        }
        let mut manifest = template(false);
        manifest.read(source("a: ${CONCLAVE_NODE}"), &scope());
        assert_eq!(body(&mut manifest, None).as_deref(), Ok("a: a"));
    }

    #[test]
    fn a_variable_that_the_policy_may_give_is_no_trouble_until_it_answered() {
        let mut manifest = template(true);
        manifest.read(source("a: ${PORT}"), &scope());
        assert_eq!(manifest.trouble(), None);
        manifest.place(&Variables::new(), &scope());
        let (reason, good) = manifest.trouble().expect("now it is known to be missing");
        assert!(reason.contains("line 3, column 4: unknown variable PORT"), "{reason}");
        assert!(!good);
        manifest.place(&BTreeMap::from([("PORT".to_owned(), "1".to_owned())]), &scope());
        assert_eq!(manifest.trouble(), None);
        assert_eq!(body(&mut manifest, Some(Token(1))).as_deref(), Ok("a: 1"));
    }

    #[test]
    fn a_rehearsal_shows_what_a_term_would_lack() {
        for (exclusive, expected) in [(true, Some("unknown variable PORT")), (false, None)] {
            let target = Target::new(Path::new("/d/a.yaml")).unwrap();
            let handling = Handling { exclusive, render: true, adopt: false };
            let mut manifest = Manifest::new(target, handling, None);
            manifest.read(source("a: ${PORT}"), &scope());
            manifest.rehearse(&Variables::new(), &scope());
            let trouble = manifest.trouble().map(|(reason, _)| reason.to_owned());
            match (trouble, expected) {
                (None, None) => {}
                (Some(reason), Some(expected)) => assert!(reason.contains(expected), "{reason}"),
                other => panic!("exclusive: {exclusive}: {other:?}"),
            }
        }
    }

    #[test]
    fn the_last_good_source_stays() {
        let mut manifest = template(true);
        assert!(!manifest.is_read());
        manifest.read(Err("gone".into()), &scope());
        assert_eq!(manifest.trouble(), Some(("gone", false)));
        manifest.read(source("a: 1"), &scope());
        assert_eq!(manifest.trouble(), None);
        manifest.place(&Variables::new(), &scope());
        for bad in [Err("gone".into()), source("a: ${"), source("a: ${NO}"), source("a: 'x")] {
            manifest.read(bad, &scope());
            assert!(matches!(manifest.trouble(), Some((_, true))));
            assert_eq!(body(&mut manifest, Some(Token(1))).as_deref(), Ok("a: 1"));
        }
    }
}
