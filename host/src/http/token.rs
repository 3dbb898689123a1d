//! The bearer token, where one is demanded: read from its file, and again whenever that changes.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::middleware::Next;
use sha2::{Digest as _, Sha256};
use tracing::warn;

use super::answers;

/// How often the file is looked at, at most.
const LOOK: Duration = Duration::from_secs(1);

/// What callers have to show, if anything.
#[derive(Clone)]
pub(super) struct Token(Option<Arc<Mutex<Kept>>>);

struct Kept {
    file: PathBuf,
    looked: Option<Instant>,
    changed: Option<SystemTime>,
    /// Digests are compared, so that the time it takes tells nothing. `None` lets nobody in.
    digest: Option<[u8; 32]>,
}

impl Token {
    pub(super) fn of(file: Option<PathBuf>) -> Self {
        let kept = |file| Kept { file, looked: None, changed: None, digest: None };
        Token(file.map(|file| Arc::new(Mutex::new(kept(file)))))
    }

    /// Whether who shows this may ask.
    fn admits(&self, shown: Option<&HeaderValue>) -> bool {
        let Some(kept) = &self.0 else { return true };
        let shown = shown.and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        let digest = kept.lock().unwrap_or_else(PoisonError::into_inner).digest();
        match (shown, digest) {
            (Some(shown), Some(digest)) => <[u8; 32]>::from(Sha256::digest(shown)) == digest,
            _ => false,
        }
    }
}

impl Kept {
    fn digest(&mut self) -> Option<[u8; 32]> {
        if self.looked.is_none_or(|looked| looked.elapsed() >= LOOK) {
            self.looked = Some(Instant::now());
            self.look();
        }
        self.digest
    }

    fn look(&mut self) {
        let changed = std::fs::metadata(&self.file).and_then(|metadata| metadata.modified()).ok();
        if changed.is_some() && changed == self.changed {
            return;
        }
        self.changed = changed;
        self.digest = match std::fs::read_to_string(&self.file) {
            Ok(text) if !text.trim().is_empty() => Some(Sha256::digest(text.trim()).into()),
            Ok(_) => {
                warn!(file = %self.file.display(), "the token's file is empty: nobody may ask");
                None
            }
            Err(error) => {
                warn!(file = %self.file.display(), %error, "cannot read the token: nobody may ask");
                None
            }
        };
    }
}

/// Lets only those pass who show the token.
pub(super) async fn guard(
    State(token): State<Token>,
    request: Request,
    next: Next,
) -> Response<Body> {
    if token.admits(request.headers().get(header::AUTHORIZATION)) {
        return next.run(request).await;
    }
    let mut refused =
        answers::text(StatusCode::UNAUTHORIZED, "show the token: Authorization: Bearer …");
    refused.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    refused
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_of_the_file_lets_in() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        std::fs::write(&file, "s3cret\n").unwrap();
        for (file, shown, expected) in [
            (None, None, true),
            (Some(&file), Some("Bearer s3cret"), true),
            (Some(&file), Some("Bearer s3cre"), false),
            (Some(&file), Some("Bearer "), false),
            (Some(&file), Some("s3cret"), false),
            (Some(&file), None, false),
            (Some(&directory.path().join("none")), Some("Bearer s3cret"), false),
        ] {
            let token = Token::of(file.cloned());
            let header = shown.map(HeaderValue::from_static);
            assert_eq!(token.admits(header.as_ref()), expected, "{shown:?}");
        }
        std::fs::write(&file, " \n").unwrap();
        assert!(!Token::of(Some(file)).admits(Some(&HeaderValue::from_static("Bearer "))));
    }
}
