//! One service as written: `services.<kind>/<name>`.

use crate::block::{At, Block, Unknown};
use crate::error::{ConfigError, Warning};
use crate::raw::auth::{self, Auth};
use crate::raw::client::Client;
use crate::raw::server::Server;
use crate::yaml::Node;

pub(crate) struct Service {
    /// The whole key, `slim/0`.
    pub(crate) key: At<String>,
    pub(crate) node_id: Option<At<String>>,
    pub(crate) domain_name: Option<At<String>>,
    pub(crate) auth: Option<At<Auth>>,
    pub(crate) dataplane: Plane,
    pub(crate) controller: Plane,
    pub(crate) peers: Option<At<()>>,
    pub(crate) default_gateway: Option<At<DefaultGateway>>,
}

/// `dataplane` or `controller`: the same keys.
pub(crate) struct Plane {
    pub(crate) at: At<()>,
    pub(crate) enforce_pqc: Option<At<bool>>,
    pub(crate) servers: Vec<Server>,
    pub(crate) clients: Vec<Client>,
    pub(crate) outbound_clients: Vec<Client>,
}

/// Where a message goes that matches no name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DefaultGateway {
    /// To the only Edge connection, when there is exactly one.
    #[default]
    Auto,
    /// Nowhere: it is dropped and counted.
    Off,
}

pub(crate) const SERVICE_KEYS: [&str; 7] =
    ["node_id", "domain_name", "auth", "dataplane", "controller", "peers", "default_gateway"];
pub(crate) const PLANE_KEYS: [&str; 4] = ["enforce_pqc", "servers", "clients", "outbound_clients"];
pub(crate) const PEERS_KEYS: [&str; 2] = ["topology", "discovery"];
pub(crate) const STATIC_KEYS: [&str; 2] = ["type", "peers"];
pub(crate) const KUBERNETES_KEYS: [&str; 4] = ["type", "namespace", "service_name", "port"];
const KIND_CHARS_MAX: usize = 63;
const NAME_OCTETS_MAX: usize = 1024;

/// Reads the mapping under `services`.
pub(crate) fn read_all(services: At<&Node>, warnings: &mut Vec<Warning>) -> Result<Vec<Service>, ConfigError> {
    // Its keys are names, so none is unknown: they are checked one by one below.
    let services = Block::open(services, Unknown::Ignored, &[], &mut Vec::new())?;
    services.entries().map(|(key, node)| Service::read(key.map(str::to_owned), node, warnings)).collect()
}

impl Service {
    fn read(key: At<String>, node: At<&Node>, warnings: &mut Vec<Warning>) -> Result<Self, ConfigError> {
        check_key(&key)?;
        let block = Block::open(node, Unknown::Refused, &SERVICE_KEYS, warnings)?;
        let auth = match block.node("auth") {
            Some(node) => Some(auth::read_registration(node, warnings)?),
            None => None,
        };
        let peers = match block.node("peers") {
            Some(node) => Some(read_peers(node, warnings)?),
            None => None,
        };
        Ok(Self {
            key,
            node_id: block.text("node_id")?,
            domain_name: block.text("domain_name")?,
            auth,
            dataplane: Plane::read(&block, "dataplane", warnings)?,
            controller: Plane::read(&block, "controller", warnings)?,
            peers,
            default_gateway: block
                .word("default_gateway", &[("auto", DefaultGateway::Auto), ("off", DefaultGateway::Off)])?,
        })
    }
}

/// Shape: `kind/name`; kind a letter, then up to 62 of `[0-9A-Za-z_]`; name `[a-z0-9-]*`, at most 1024 octets.
fn check_key(key: &At<String>) -> Result<(), ConfigError> {
    let help = "write a kind and a name, such as `slim/0`";
    let Some((kind, name)) = key.value.split_once('/') else {
        return Err(key.refuse("id cannot be empty").help(help));
    };
    let kind_is_good = kind.starts_with(|first: char| first.is_ascii_alphabetic())
        && kind.len() <= KIND_CHARS_MAX
        && kind.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !kind_is_good {
        return Err(key.refuse(format!("invalid kind `{kind}`: a letter, then up to 62 of 0-9 A-Z a-z _")).help(help));
    }
    let name_is_good = name.len() <= NAME_OCTETS_MAX
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if !name_is_good {
        return Err(key.refuse(format!("invalid name `{name}`: up to 1024 of a-z 0-9 -")).help(help));
    }
    Ok(())
}

impl Plane {
    fn read(service: &Block<'_>, key: &str, warnings: &mut Vec<Warning>) -> Result<Self, ConfigError> {
        let block = service.block(key, Unknown::Refused, &PLANE_KEYS, warnings)?;
        let mut clients = |key| -> Result<Vec<Client>, ConfigError> {
            let nodes = block.list(key)?.into_iter();
            nodes.map(|node| Client::read(node, &[], Unknown::Ignored, warnings)).collect()
        };
        Ok(Self {
            at: block.at(()),
            enforce_pqc: block.boolean("enforce_pqc")?,
            clients: clients("clients")?,
            outbound_clients: clients("outbound_clients")?,
            servers: block
                .list("servers")?
                .into_iter()
                .map(|node| Server::read(node, warnings))
                .collect::<Result<_, _>>()?,
        })
    }
}

fn read_peers(node: At<&Node>, warnings: &mut Vec<Warning>) -> Result<At<()>, ConfigError> {
    let block = Block::open(node, Unknown::Refused, &PEERS_KEYS, warnings)?;
    block.word("topology", &[("full_mesh", ())])?;
    let Some(discovery) = block.node("discovery") else {
        return Err(block.missing("discovery"));
    };
    // Which keys are allowed depends on `type`, so it is read first.
    let any = Block::open(discovery.clone(), Unknown::Ignored, &[], &mut Vec::new())?;
    let is_static = any.word("type", &[("static", true), ("kubernetes", false)])?.ok_or_else(|| any.missing("type"))?;
    if is_static.value {
        let discovery = Block::open(discovery, Unknown::Refused, &STATIC_KEYS, warnings)?;
        let peers = discovery.list("peers")?;
        if peers.is_empty() {
            return Err(discovery.at(()).refuse("static discovery needs at least one entry below `peers`"));
        }
        for peer in peers {
            Client::read(peer, &["node_id"], Unknown::Refused, warnings)?;
        }
    } else {
        let discovery = Block::open(discovery, Unknown::Refused, &KUBERNETES_KEYS, warnings)?;
        discovery.required("namespace")?;
        discovery.required("service_name")?;
        discovery.unsigned::<u16>("port")?.ok_or_else(|| discovery.missing("port"))?;
    }
    Ok(block.at(()))
}
