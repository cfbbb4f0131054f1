//! The node of a test, and what it serves.

use std::fs;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use slimline_session::{App, ConnectConfig};

use crate::kit::{PATIENCE, Process, Python, SECRET};

static FILES: AtomicU32 = AtomicU32::new(0);

/// A file or folder of a test, gone with its owner.
pub(crate) struct TempFile(pub(crate) PathBuf);

impl TempFile {
    pub(crate) fn named(what: &str) -> Self {
        let number = FILES.fetch_add(1, Ordering::Relaxed);
        Self(std::env::temp_dir().join(format!("slimline-interop-{}-{number}-{what}", std::process::id())))
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = if self.0.is_dir() { fs::remove_dir_all(&self.0) } else { fs::remove_file(&self.0) };
    }
}

/// A private authority, a certificate of it for the node and one for its clients.
pub(crate) struct Certificates(TempFile);

impl Certificates {
    pub(crate) fn make() -> Arc<Self> {
        let made = Self(TempFile::named("pki"));
        fs::create_dir(&made.0.0).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(rcgen::DnType::CommonName, "authority of a test");
        fs::write(made.path("ca.pem"), parameters.self_signed(&key).unwrap().pem()).unwrap();
        let issuer = rcgen::Issuer::new(parameters, key);
        for (who, names) in
            [("node", vec!["localhost".to_owned(), "127.0.0.1".to_owned()]), ("client", vec!["client".to_owned()])]
        {
            let key = rcgen::KeyPair::generate().unwrap();
            let certificate = rcgen::CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
            fs::write(made.path(&format!("{who}.pem")), certificate.pem()).unwrap();
            fs::write(made.path(&format!("{who}.key")), key.serialize_pem()).unwrap();
        }
        Arc::new(made)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.0.join(name)
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }
}

/// What a node is to serve.
#[derive(Clone, Default)]
pub(crate) struct Serving {
    /// WebSocket instead of HTTP/2.
    pub(crate) web: bool,
    pub(crate) tls: Option<Arc<Certificates>>,
    /// Clients have to show a certificate.
    pub(crate) mutual: bool,
}

pub(crate) struct Node {
    pub(crate) url: String,
    /// The node in the wheel runs without header MACs.
    lax: bool,
    serving: Serving,
    process: Option<Process>,
    _python: Option<Python>,
    /// Read by the process at its leisure, so it stays as long as the process does.
    _config: Option<TempFile>,
}

/// `embedded`, or the path of a program.
fn asked_for() -> String {
    std::env::var("SLIMLINE_TEST_NODE").unwrap_or_else(|_| "embedded".into())
}

fn free_address() -> String {
    format!("127.0.0.1:{}", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port())
}

impl Node {
    pub(crate) fn start() -> Self {
        Self::start_at(&free_address(), Serving::default()).unwrap_or_else(|why| panic!("{why}"))
    }

    /// `None`, and a line on standard error, if the node says that it does not do that yet.
    pub(crate) fn serving(what: &str, serving: Serving) -> Option<Self> {
        match Self::start_at(&free_address(), serving) {
            Ok(node) => Some(node),
            Err(why) if why.contains("not supported yet") => {
                let why = why.lines().find(|line| line.contains("not supported yet")).unwrap_or_default();
                // Not `eprintln!`: that is kept from whoever reads the log of a test that passes.
                let _ = writeln!(std::io::stderr(), "SKIPPED {what}: the node says: {}", why.trim());
                None
            }
            Err(why) => panic!("{why}"),
        }
    }

    /// The process goes, another takes its place at the same address.
    pub(crate) fn restart(self) -> Self {
        let address = self.address().to_owned();
        drop(self);
        Self::start_at(&address, Serving::default()).unwrap_or_else(|why| panic!("{why}"))
    }

    /// Errors: what the node said before it ended.
    fn start_at(address: &str, serving: Serving) -> Result<Self, String> {
        let web = if serving.web { "ws" } else { "http" };
        let url = format!("{web}{}://{address}", if serving.tls.is_some() { "s" } else { "" });
        let listen = if serving.web { format!("{url}/") } else { address.to_owned() };
        let program = asked_for();
        if program == "embedded" {
            let mut python = Python::start();
            python.run(json!({"do": "serve", "address": listen, "tls": files(&serving, "node")}));
            let mut node = Self { url, lax: true, serving, process: None, _python: Some(python), _config: None };
            node.wait(address)?;
            return Ok(node);
        }
        let (config, said) = (TempFile::named("node.yaml"), TempFile::named("node.log"));
        let tls = match files(&serving, "node") {
            Value::Null => json!({"insecure": true}),
            files => {
                let authority = json!({"type": "file", "path": files["ca"]});
                let client_ca = if serving.mutual { authority } else { json!({"type": "none"}) };
                json!({"source": {"type": "file", "cert": files["cert"], "key": files["key"]}, "client_ca": client_ca})
            }
        };
        let server = json!({"endpoint": listen, "tls": tls});
        // JSON is YAML.
        let text = json!({
            "tracing": {"log_level": "warn"},
            "runtime": {"n_cores": 1},
            "services": {"slim/0": {"dataplane": {"servers": [server]}}},
        });
        fs::write(&config.0, text.to_string()).unwrap();
        let log = fs::File::create(&said.0).unwrap();
        let show = std::env::var_os("SHOW").is_some();
        let child = Command::new(program)
            .env_remove("LD_PRELOAD")
            .arg("--config")
            .arg(&config.0)
            .stdout(if show { Stdio::inherit() } else { log.try_clone().unwrap().into() })
            .stderr(if show { Stdio::inherit() } else { log.into() })
            .spawn()
            .expect("the node starts");
        let (process, _config) = (Some(Process(child)), Some(config));
        let mut node = Self { url, lax: false, serving, process, _python: None, _config };
        let began = node.wait(address);
        began.map_err(|why| format!("{why}: {}", fs::read_to_string(&said.0).unwrap_or_default()))?;
        Ok(node)
    }

    /// The same node by another address, where somebody passes everything on to it.
    pub(crate) fn through(&self, address: &str) -> Self {
        let url = format!("http://{address}");
        Self { url, lax: self.lax, serving: Serving::default(), process: None, _python: None, _config: None }
    }

    /// `host:port`.
    pub(crate) fn address(&self) -> &str {
        self.url.split_once("://").unwrap().1
    }

    /// Returns when somebody listens there. After a restart that may for a moment be the node before: the kernel takes its
    /// listener down later than its process.
    fn wait(&mut self, address: &str) -> Result<(), String> {
        let end = Instant::now() + PATIENCE;
        while TcpStream::connect(address).is_err() {
            if let Some(process) = &mut self.process
                && let Some(status) = process.0.try_wait().unwrap()
            {
                return Err(format!("the node ended: {status}"));
            }
            assert!(Instant::now() < end, "no node at {}", self.url);
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    #[track_caller]
    pub(crate) fn lives(&mut self) {
        if let Some(process) = &mut self.process {
            let ended = process.0.try_wait().unwrap();
            assert!(ended.is_none(), "the node ended: {ended:?}");
        }
    }

    /// How one of ours connects.
    pub(crate) fn config(&self) -> ConnectConfig {
        let mut config = ConnectConfig::new(&self.url);
        config.require_header_mac = !self.lax;
        if let Some(files) = &self.serving.tls {
            config.tls.authorities_pem = Some(files.read("ca.pem"));
            config.tls.client_pem = self.serving.mutual.then(|| (files.read("client.pem"), files.read("client.key")));
        }
        config
    }

    pub(crate) async fn app(&self, name: &str) -> App {
        App::with_secret(name, SECRET).unwrap().connect(self.config()).await.unwrap()
    }

    /// What Python connects with.
    pub(crate) fn tls_files(&self) -> Value {
        files(&self.serving, "client")
    }
}

/// Paths for `peer.py` and for a configuration: null without TLS.
fn files(serving: &Serving, whose: &str) -> Value {
    let Some(files) = &serving.tls else { return Value::Null };
    let show = |path: &Path| path.display().to_string();
    let mut paths = json!({"ca": show(&files.path("ca.pem")), "mutual": serving.mutual});
    if whose == "node" || serving.mutual {
        paths["cert"] = json!(show(&files.path(&format!("{whose}.pem"))));
        paths["key"] = json!(show(&files.path(&format!("{whose}.key"))));
    }
    paths
}
