//! A `tls` block as written, of a server, a client or a proxy.

use crate::block::{At, Block, Unknown};
use crate::error::{ConfigError, Warning};

pub(crate) struct Tls {
    pub(crate) at: At<()>,
    pub(crate) insecure: Option<At<bool>>,
    pub(crate) insecure_skip_verify: Option<At<bool>>,
    pub(crate) include_system_ca_certs_pool: Option<At<bool>>,
    /// Own certificate and key; `None` for `{type: none}` too.
    pub(crate) source: Option<At<Source>>,
    pub(crate) ca_source: Option<At<Source>>,
    pub(crate) client_ca: Option<At<Source>>,
    pub(crate) tls_version: Option<At<String>>,
}

/// Where certificates come from; the values in the order of their keys. They may hold a private key: never shown.
pub(crate) enum Source {
    File(Vec<String>),
    Pem(Vec<String>),
    Spire,
}

pub(crate) const TLS_KEYS: [&str; 9] = [
    "insecure",
    "insecure_skip_verify",
    "source",
    "ca_source",
    "client_ca",
    "include_system_ca_certs_pool",
    "tls_version",
    "reload_interval",
    "reload_client_ca_file",
];
pub(crate) const SPIRE_KEYS: [&str; 5] = ["type", "socket_path", "target_spiffe_id", "jwt_audiences", "trust_domains"];

impl Tls {
    pub(crate) fn read(entry: &Block<'_>, warnings: &mut Vec<Warning>) -> Result<Self, ConfigError> {
        let block = entry.block("tls", Unknown::Ignored, &TLS_KEYS, warnings)?;
        if let Some(reload) = block.node("reload_interval") {
            let reload = Block::open(reload, Unknown::Ignored, &["secs", "nanos"], warnings)?;
            reload.unsigned::<u64>("secs")?.ok_or_else(|| reload.missing("secs"))?;
            reload.unsigned::<u32>("nanos")?.ok_or_else(|| reload.missing("nanos"))?;
            reload.at(()).warn("has no effect", warnings);
        }
        if let Some(reload) = block.boolean("reload_client_ca_file")?.filter(|reload| reload.value) {
            reload.warn("has no effect", warnings);
        }
        Ok(Self {
            at: block.at(()),
            insecure: block.boolean("insecure")?,
            insecure_skip_verify: block.boolean("insecure_skip_verify")?,
            include_system_ca_certs_pool: block.boolean("include_system_ca_certs_pool")?,
            ca_source: read_source(&block, "ca_source", &["path"], &["data"], warnings)?,
            source: read_source(&block, "source", &["cert", "key"], &["cert", "key"], warnings)?,
            client_ca: read_source(&block, "client_ca", &["path"], &["data"], warnings)?,
            tls_version: block.text("tls_version")?,
        })
    }
}

#[derive(Clone, Copy)]
enum Kind {
    File,
    Pem,
    Spire,
    None,
}

/// A certificate source: `{type: file, …}`, `{type: pem, …}`, `{type: spire, …}` or `{type: none}`.
fn read_source(
    tls: &Block<'_>,
    key: &str,
    file_keys: &[&str],
    pem_keys: &[&str],
    warnings: &mut Vec<Warning>,
) -> Result<Option<At<Source>>, ConfigError> {
    let Some(node) = tls.node(key) else { return Ok(None) };
    let any = Block::open(node.clone(), Unknown::Ignored, &[], &mut Vec::new())?;
    let kinds = [("file", Kind::File), ("pem", Kind::Pem), ("spire", Kind::Spire), ("none", Kind::None)];
    let kind = any.word("type", &kinds)?.ok_or_else(|| any.missing("type"))?;
    let keys: Vec<&str> = match kind.value {
        Kind::File => file_keys.to_vec(),
        Kind::Pem => pem_keys.to_vec(),
        Kind::Spire => SPIRE_KEYS[1..].to_vec(),
        Kind::None => Vec::new(),
    };
    let with_type: Vec<&str> = ["type"].into_iter().chain(keys.iter().copied()).collect();
    let block = Block::open(node, Unknown::Ignored, &with_type, warnings)?;
    let mut values = Vec::new();
    match kind.value {
        Kind::File | Kind::Pem => {
            for key in keys {
                values.push(block.secret(key)?.ok_or_else(|| block.missing(key))?.value);
            }
        }
        Kind::Spire => check_spire(&block)?,
        Kind::None => return Ok(None),
    }
    Ok(Some(block.at(match kind.value {
        Kind::File => Source::File(values),
        Kind::Pem => Source::Pem(values),
        Kind::Spire | Kind::None => Source::Spire,
    })))
}

pub(crate) fn check_spire(block: &Block<'_>) -> Result<(), ConfigError> {
    block.text("socket_path")?;
    block.text("target_spiffe_id")?;
    block.texts("jwt_audiences")?;
    block.texts("trust_domains")?;
    Ok(())
}
