//! A token that somebody else makes and keeps fresh in a file, as agents of identity systems do.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::jwt::{self, Peeked};
use super::key::SigningKey;
use super::{Provider, UnixSeconds};
use crate::error::IdentityError;

/// Octets a token file may hold.
const FILE_OCTETS_MAX: u64 = 64 * 1024;

/// Our identity by a token from a file; the file is looked at once a second, and read again when it changed.
///
/// The token cannot be made to vouch for a key of ours. So messages can be signed, and MLS spoken, only if whoever makes the
/// token puts a `pubkey` into it and gives us the private key ([`StaticJwt::with_key`]). To read other people's tokens, see
/// [`super::jwt::JwtVerifier`].
/// Source: slim-session §1.3.
pub struct StaticJwt {
    path: PathBuf,
    subject: String,
    key: Option<SigningKey>,
    held: Mutex<Held>,
}

struct Held {
    token: String,
    expires: Option<UnixSeconds>,
    seen: Seen,
    looked: Option<UnixSeconds>,
}

/// What tells a file's content from another, without reading it.
#[derive(PartialEq, Eq)]
struct Seen {
    inode: u64,
    octets: u64,
    modified: (i64, i64),
}

impl StaticJwt {
    /// The token in that file; white space around it is left out.
    ///
    /// Errors: a file that cannot be read or holds no JWT with a subject.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, IdentityError> {
        let path = path.as_ref().to_owned();
        let (held, peeked) = read(&path)?;
        Ok(Self { path, subject: peeked.subject, key: None, held: Mutex::new(held) })
    }

    /// With the private key that the token vouches for: then messages are signed, and MLS can be spoken.
    ///
    /// Errors: the token vouches for another key, or for none.
    pub fn with_key(mut self, key: SigningKey) -> Result<Self, IdentityError> {
        let (_, peeked) = read(&self.path)?;
        if peeked.public_key.as_deref() != Some(key.public_key()) {
            return Err(IdentityError::Key("the token in the file does not vouch for it"));
        }
        self.key = Some(key);
        Ok(self)
    }

    /// Takes the file's content if it changed and fits; what does not fit leaves us what we had.
    fn look(&self, held: &mut Held) -> Result<(), IdentityError> {
        if seen(&self.path)? == held.seen {
            return Ok(());
        }
        let (fresh, peeked) = read(&self.path)?;
        if peeked.subject != self.subject {
            return Err(IdentityError::Foreign("the token file names another subject now"));
        }
        if let Some(key) = &self.key
            && peeked.public_key.as_deref() != Some(key.public_key())
        {
            return Err(IdentityError::Key("the token in the file vouches for another one now"));
        }
        *held = fresh;
        Ok(())
    }
}

impl Provider for StaticJwt {
    fn subject(&self) -> &str {
        &self.subject
    }

    fn token(&self, now: UnixSeconds) -> Result<String, IdentityError> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.looked != Some(now) {
            let looked = self.look(&mut held);
            held.looked = Some(now);
            if let Err(error) = looked {
                // A file that is being replaced may be gone or cut short for a moment.
                tracing::warn!(%error, path = %self.path.display(), "the identity token was not read again");
                if held.expires.is_some_and(|expires| now > expires) {
                    return Err(error);
                }
            }
        }
        match held.expires {
            Some(expires) if now > expires => Err(IdentityError::Expired { since_s: now - expires }),
            _ => Ok(held.token.clone()),
        }
    }

    fn signing_key(&self) -> Option<&SigningKey> {
        self.key.as_ref()
    }
}

fn refused(path: &Path, error: &io::Error) -> IdentityError {
    IdentityError::File { path: path.display().to_string(), why: error.to_string() }
}

fn seen(path: &Path) -> Result<Seen, IdentityError> {
    let metadata = std::fs::metadata(path).map_err(|error| refused(path, &error))?;
    if metadata.len() > FILE_OCTETS_MAX {
        return Err(IdentityError::Malformed("a token file of more than 64 KiB"));
    }
    let modified = (metadata.mtime(), metadata.mtime_nsec());
    Ok(Seen { inode: metadata.ino(), octets: metadata.len(), modified })
}

fn read(path: &Path) -> Result<(Held, Peeked), IdentityError> {
    let seen = seen(path)?; // before the content: what changes between the two is read again
    let text = std::fs::read_to_string(path).map_err(|error| refused(path, &error))?;
    let token = text.trim().to_owned();
    let peeked = jwt::peek(&token)?;
    Ok((Held { token, expires: peeked.expires, seen, looked: None }, peeked))
}

#[cfg(test)]
mod tests {
    use super::super::jwt::{Algorithm, JwtProvider, JwtVerifier};
    use super::super::key::KeyKind;
    use super::super::{Provider as _, Verifier as _};
    use super::*;

    const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

    struct File(PathBuf);

    impl File {
        fn new(name: &str) -> Self {
            Self(std::env::temp_dir().join(format!("slimline-static-jwt-{name}-{}", std::process::id())))
        }

        fn write(&self, text: &str) {
            // As agents do it: the new file takes the place of the old one.
            let beside = self.0.with_extension("new");
            std::fs::write(&beside, text).unwrap();
            std::fs::rename(&beside, &self.0).unwrap();
        }
    }

    impl Drop for File {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    fn maker(subject: &str) -> JwtProvider {
        JwtProvider::new(subject, "issuer", &["slim"], Algorithm::HS256, SECRET).unwrap()
    }

    #[test]
    fn the_file_is_read_again_when_it_changes() {
        let file = File::new("again");
        let maker = maker("alice");
        let first = maker.token(1000).unwrap();
        file.write(&format!("{first}\n"));
        let identity = StaticJwt::from_file(&file.0).unwrap();
        assert_eq!(identity.subject(), "alice");
        assert_eq!(identity.token(1001).unwrap(), first);
        let second = maker.token(4000).unwrap();
        file.write(&second);
        assert_eq!(identity.token(1001).unwrap(), first, "looked at once a second");
        assert_eq!(identity.token(1002).unwrap(), second);
        let verifier = JwtVerifier::new(Algorithm::HS256, SECRET).unwrap();
        assert_eq!(verifier.verify(&second, 4000).unwrap().subject, "alice");
    }

    #[test]
    fn what_does_not_fit_is_not_taken() {
        let file = File::new("fit");
        let first = maker("alice").token(1000).unwrap();
        file.write(&first);
        let identity = StaticJwt::from_file(&file.0).unwrap();
        file.write(&maker("mallory").token(1000).unwrap());
        assert_eq!(identity.token(1001).unwrap(), first);
        file.write("not a token");
        assert_eq!(identity.token(1002).unwrap(), first);
        std::fs::remove_file(&file.0).unwrap();
        assert_eq!(identity.token(4600).unwrap(), first);
        assert!(matches!(identity.token(4601), Err(IdentityError::File { .. })), "ended, and no file to read");
        file.write(&first);
        assert_eq!(identity.token(4700), Err(IdentityError::Expired { since_s: 100 }));
        assert!(matches!(StaticJwt::from_file("/nowhere/token"), Err(IdentityError::File { .. })));
    }

    #[test]
    fn only_a_key_that_the_token_vouches_for_signs() {
        let file = File::new("key");
        let maker = maker("alice");
        file.write(&maker.token(1000).unwrap());
        let identity = StaticJwt::from_file(&file.0).unwrap();
        assert!(identity.signing_key().is_none());
        let private = maker.signing_key().unwrap().private_key().unwrap();
        let key = SigningKey::from_p256_scalar(&private).unwrap();
        assert!(identity.with_key(key).unwrap().signing_key().is_some());
        let other = SigningKey::generate(KeyKind::P256).unwrap();
        let identity = StaticJwt::from_file(&file.0).unwrap();
        assert!(matches!(identity.with_key(other), Err(IdentityError::Key(_))));
    }
}
