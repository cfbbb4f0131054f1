//! `auth` blocks as written. Values are typed and judged here, never kept: nothing uses them yet, and what is not kept
//! cannot be shown.

use crate::block::{At, Block, Unknown};
use crate::error::{ConfigError, Warning};
use crate::raw::tls::{SPIRE_KEYS, check_spire};
use crate::yaml::Node;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Auth {
    None,
    Basic,
    StaticJwt,
    Jwt,
    Oidc,
    Spire,
    SharedSecret,
}

/// Octets an HMAC key has at least.
const SECRET_OCTETS_MIN: usize = 32;

/// `auth` of a server entry.
pub(crate) fn read_server(node: At<&Node>, warnings: &mut Vec<Warning>) -> Result<At<Auth>, ConfigError> {
    let kinds = [
        ("basic", Auth::Basic),
        ("jwt", Auth::Jwt),
        ("oidc", Auth::Oidc),
        ("spire", Auth::Spire),
        ("none", Auth::None),
    ];
    read(node, &kinds, warnings)
}

/// `auth` of a client entry.
pub(crate) fn read_client(node: At<&Node>, warnings: &mut Vec<Warning>) -> Result<At<Auth>, ConfigError> {
    let kinds = [
        ("basic", Auth::Basic),
        ("static_jwt", Auth::StaticJwt),
        ("jwt", Auth::Jwt),
        ("oidc", Auth::Oidc),
        ("spire", Auth::Spire),
        ("none", Auth::None),
    ];
    read(node, &kinds, warnings)
}

/// `auth` of a service: the credentials it registers with at a control plane.
pub(crate) fn read_registration(node: At<&Node>, warnings: &mut Vec<Warning>) -> Result<At<Auth>, ConfigError> {
    let kinds = [("shared_secret", Auth::SharedSecret), ("spire", Auth::Spire), ("jwt", Auth::Jwt)];
    read(node, &kinds, warnings)
}

fn read(node: At<&Node>, kinds: &[(&str, Auth)], warnings: &mut Vec<Warning>) -> Result<At<Auth>, ConfigError> {
    let any = Block::open(node.clone(), Unknown::Ignored, &[], &mut Vec::new())?;
    let kind = any.word("type", kinds)?.ok_or_else(|| any.missing("type"))?;
    match kind.value {
        Auth::Basic => {
            let block = Block::open(node, Unknown::Ignored, &["type", "username", "password"], warnings)?;
            for key in ["username", "password"] {
                let text = block.secret(key)?.ok_or_else(|| block.missing(key))?;
                if text.value.is_empty() {
                    return Err(text.refuse(format!("{key} cannot be empty")));
                }
            }
        }
        Auth::SharedSecret => {
            let block = Block::open(node, Unknown::Ignored, &["type", "secret", "id"], warnings)?;
            let secret = block.secret("secret")?.ok_or_else(|| block.missing("secret"))?;
            if secret.value.len() < SECRET_OCTETS_MIN {
                let help = format!("the secret needs at least {SECRET_OCTETS_MIN} octets");
                return Err(secret.refuse("hmac key is too short").help(help));
            }
            block.text("id")?;
        }
        Auth::StaticJwt => {
            let block = Block::open(node, Unknown::Ignored, &["type", "file", "duration"], warnings)?;
            block.required("file")?;
            block.duration("duration")?;
        }
        Auth::Spire => check_spire(&Block::open(node, Unknown::Ignored, &SPIRE_KEYS, warnings)?)?,
        // Their many keys are typed by the code that will use them; today the block as a whole is refused.
        Auth::Jwt | Auth::Oidc | Auth::None => {}
    }
    Ok(any.at(kind.value))
}
