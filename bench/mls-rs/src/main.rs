//! One application message sealed and opened, by slimline's group and by mls-rs's, in turns: same payload, members, suite.
//!
//! Every message is opened once, in order, its signature checked, from octets to octets on both sides. Lines of JSON on
//! standard output; `cargo xtask bench mls-rs` records them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mls_rs::client_builder::MlsConfig;
use mls_rs::group::ReceivedMessage;
use mls_rs::identity::SigningIdentity;
use mls_rs::identity::basic::{BasicCredential, BasicIdentityProvider};
use mls_rs::{CipherSuite, CipherSuiteProvider as _, Client, CryptoProvider as _, Group, MlsMessage};
use mls_rs_crypto_awslc::AwsLcCryptoProvider;
use slimline_session::identity::key::KeyKind;
use slimline_session::identity::{Provider as _, SharedSecret, SigningKey};
use slimline_session::mls;

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const NOW: u64 = 1_000_000;
const MEMBERS: usize = 4;
const PAYLOAD: [u8; 1024] = [7; 1024];
/// What SLIM authenticates beside a message is about this long.
const AAD: [u8; 420] = [9; 420];
/// Messages one side seals, or opens, before it is the other's turn: within what a scheduler lets run undisturbed.
const TURN: usize = 20;
/// Receivers keep 1024 keys that were skipped: what came before that is warm-up.
const WARM_UP_TURNS: usize = 60;
const TURNS: usize = 200;
const ROUNDS: u32 = 10;

/// One sender and one receiver of a group.
trait Pair {
    fn name(&self) -> &'static str;
    fn seal(&mut self) -> Vec<u8>;
    /// What was sealed, and what was authenticated beside it.
    fn open(&mut self, sealed: &[u8]) -> (Vec<u8>, Vec<u8>);
}

struct Slimline {
    sender: mls::Group,
    receiver: mls::Group,
}

fn identity(kind: KeyKind, member: usize) -> SharedSecret {
    let key = SigningKey::generate(kind).expect("a key");
    SharedSecret::with_subject(format!("acme/ns/member{member}_12345678"), SECRET, key).expect("a good secret")
}

impl Slimline {
    fn new(kind: KeyKind) -> Self {
        let mut members = (0..MEMBERS).map(|member| {
            let identity = Arc::new(identity(kind, member));
            mls::Group::new(identity.clone(), identity).expect("an identity with a key")
        });
        let mut sender = members.next().expect("a first member");
        sender.create(NOW).expect("a group");
        let mut inside: Vec<mls::Group> = Vec::new();
        for mut newcomer in members {
            let added = sender.add(&newcomer.key_package(NOW).expect("a key package"), NOW).expect("one member more");
            for member in &mut inside {
                member.apply(&added.commit, NOW).expect("a commit of ours");
            }
            newcomer.join(&added.welcome.expect("a welcome")).expect("a welcome of ours");
            inside.push(newcomer);
        }
        Self { sender, receiver: inside.swap_remove(0) }
    }
}

impl Pair for Slimline {
    fn name(&self) -> &'static str {
        "slimline"
    }

    fn seal(&mut self) -> Vec<u8> {
        self.sender.seal(&PAYLOAD, AAD.to_vec()).expect("sealed")
    }

    fn open(&mut self, sealed: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let opened = self.receiver.open(sealed).expect("opened");
        (opened.plaintext, opened.aad)
    }
}

struct MlsRs<C: MlsConfig> {
    sender: Group<C>,
    receiver: Group<C>,
}

fn client(suite: CipherSuite, kind: KeyKind, member: usize) -> Client<impl MlsConfig> {
    let crypto = AwsLcCryptoProvider::default();
    let provider = crypto.cipher_suite_provider(suite).expect("a suite that aws-lc knows");
    let (secret, public) = provider.signature_key_generate().expect("a key");
    // A credential as long as SLIM's: the whole token of an application.
    let token = identity(kind, member).token(NOW).expect("a token");
    let credential = BasicCredential::new(token.into_bytes()).into_credential();
    Client::builder()
        .identity_provider(BasicIdentityProvider)
        .crypto_provider(crypto)
        .signing_identity(SigningIdentity::new(credential, public), secret, suite)
        .build()
}

fn mls_rs(suite: CipherSuite, kind: KeyKind) -> MlsRs<impl MlsConfig> {
    let mut clients = (0..MEMBERS).map(|member| client(suite, kind, member));
    let first = clients.next().expect("a first member");
    let mut sender = first.create_group(Default::default(), Default::default(), None).expect("a group");
    let mut inside: Vec<Group<_>> = Vec::new();
    for newcomer in clients {
        let package = newcomer.generate_key_package_message(Default::default(), Default::default(), None);
        let commit = sender.commit_builder().add_member(package.expect("a key package")).expect("one member more");
        let commit = commit.build().expect("a commit");
        sender.apply_pending_commit().expect("its own commit");
        for member in &mut inside {
            member.process_incoming_message(commit.commit_message.clone()).expect("a commit of ours");
        }
        inside.push(newcomer.join_group(None, &commit.welcome_messages[0], None).expect("a welcome of ours").0);
    }
    MlsRs { sender, receiver: inside.swap_remove(0) }
}

impl<C: MlsConfig> Pair for MlsRs<C> {
    fn name(&self) -> &'static str {
        "mls-rs"
    }

    fn seal(&mut self) -> Vec<u8> {
        let sealed = self.sender.encrypt_application_message(&PAYLOAD, AAD.to_vec()).expect("sealed");
        sealed.to_bytes().expect("octets")
    }

    fn open(&mut self, sealed: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let message = MlsMessage::from_bytes(sealed).expect("a message");
        match self.receiver.process_incoming_message(message).expect("opened") {
            ReceivedMessage::ApplicationMessage(message) => (message.data().to_vec(), message.authenticated_data),
            other => panic!("{other:?} is no application message"),
        }
    }
}

/// How long sealing and opening took, per message of one turn.
fn turn(pair: &mut dyn Pair, messages: usize) -> [f64; 2] {
    let each = |spent: Duration| spent.as_nanos() as f64 / messages as f64;
    let started = Instant::now();
    let sealed: Vec<Vec<u8>> = (0..messages).map(|_| pair.seal()).collect();
    let sealing = each(started.elapsed());
    let started = Instant::now();
    let opened: Vec<_> = sealed.iter().map(|sealed| pair.open(sealed)).collect();
    let opening = each(started.elapsed());
    for (plaintext, aad) in opened {
        assert!(plaintext == PAYLOAD && aad == AAD, "{} opens what it sealed", pair.name());
    }
    [sealing, opening]
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (warm_up, turns, rounds) = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => (WARM_UP_TURNS, TURNS, ROUNDS),
        ["--rounds", rounds] => (WARM_UP_TURNS, TURNS, rounds.parse().expect("a number of rounds")),
        ["--quick"] => (0, 1, 1),
        _ => {
            eprintln!("usage: slimline-bench-mls-rs [--quick | --rounds N]");
            std::process::exit(2);
        }
    };
    for (suite, kind, title) in [
        (CipherSuite::P256_AES128, KeyKind::P256, "0x0002"),
        (CipherSuite::CURVE25519_AES128, KeyKind::Ed25519, "0x0001"),
    ] {
        let mut pairs: [Box<dyn Pair>; 2] = [Box::new(Slimline::new(kind)), Box::new(mls_rs(suite, kind))];
        for _ in 0..warm_up {
            for pair in &mut pairs {
                turn(&mut **pair, TURN);
            }
        }
        for round in 0..rounds {
            let mut taken: [[Vec<f64>; 2]; 2] = Default::default();
            for at in 0..turns {
                // Whoever went first goes second in the next turn.
                for which in if at % 2 == 0 { [0, 1] } else { [1, 0] } {
                    for (figures, each) in taken[which].iter_mut().zip(turn(&mut *pairs[which], TURN)) {
                        figures.push(each);
                    }
                }
            }
            for (pair, figures) in pairs.iter().zip(taken) {
                for (what, figures) in ["encrypt", "decrypt"].into_iter().zip(figures) {
                    let label = format!("{what}, suite {title}");
                    let name = pair.name();
                    let line =
                        serde_json::json!({"target": name, "label": label, "round": round, "ns_each": median(figures)});
                    println!("{line}");
                }
            }
        }
    }
}
