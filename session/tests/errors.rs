//! Whatever goes wrong: a typed error in time, whose text says what happened and what to do.
//!
//! One table per moment: before there is a connection, on it, in a session. Each row names its error, words of its text,
//! and how long it may take.

#[path = "common/authority.rs"]
mod authority;
#[path = "common/node.rs"]
mod node;
#[path = "common/script.rs"]
mod script;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use authority::Authority;
use h2::Reason;
use node::TestNode;
use script::{End, Fault, Part, Script};
use slimline_session::error::{IdentityError, NameError, SessionError};
use slimline_session::identity::jwt::JwtVerifier;
use slimline_session::identity::{Provider, SharedSecret, SigningKey, StaticJwt, Verifier as _};
use slimline_session::{
    App, ConnectConfig, ConnectError, Credentials, Direction, Keepalive, MESSAGE_OCTETS_MAX, Name, Publish,
    ReceiveError, SessionConfig, SessionHandle, TlsVersion,
};

const SECRET: &str = "0123456789abcdef0123456789abcdef";
/// What each step of connecting may take here.
const STEP: Duration = Duration::from_millis(400);
/// What the machine may take beside: it may be busy.
const SLACK: Duration = Duration::from_secs(3);

fn config(url: &str) -> ConnectConfig {
    let mut config = ConnectConfig::new(url);
    config.step_timeout = STEP;
    config
}

/// Few retries, so that nobody waits long.
fn brief(config: SessionConfig) -> SessionConfig {
    config.with_retries(Duration::from_millis(100), 2)
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

async fn connect(name: &str, config: ConnectConfig) -> Result<App, ConnectError> {
    App::with_secret(name, SECRET).unwrap().connect(config).await
}

async fn app(url: &str, name: &str) -> App {
    connect(name, config(url)).await.unwrap()
}

/// The future's error, which has to come in time.
#[track_caller]
fn in_time<T, E>(what: &str, limit: Duration, future: impl Future<Output = Result<T, E>>) -> impl Future<Output = E> {
    let what = what.to_owned();
    async move {
        let started = Instant::now();
        let result = tokio::time::timeout(limit + SLACK + SLACK, future).await;
        let error =
            result.unwrap_or_else(|_| panic!("{what}: hangs")).err().unwrap_or_else(|| panic!("{what}: no error"));
        assert!(started.elapsed() < limit + SLACK, "{what}: took {:?}", started.elapsed());
        error
    }
}

#[track_caller]
fn says(what: &str, error: &impl std::fmt::Display, words: &[&str]) {
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "{what}: {word:?} is missing in: {text}");
    }
}

/// The error's kind, which is what programs tell errors apart by.
fn kind(error: &impl std::fmt::Debug) -> String {
    let text = format!("{error:?}");
    text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned()
}

/// A node that is not one, or will not have us: told by `connect`.
#[tokio::test]
#[rustfmt::skip]
async fn before_there_is_a_connection() {
    use Fault::{Compressed, NoKey, NoVersion, NotALink, NotEvenAMessage, OtherLink};
    let rows: &[(Part, &str, &[&str])] = &[
        (Part::Mute,                                "TimedOut",    &["opening the stream", "400ms", "does a SLIM node run there"]),
        (Part::Closes,                              "Http",        &["does a SLIM node listen at http://127.0.0.1", "https://"]),
        (Part::Says(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "Http",  &["does a SLIM node listen", "https://"]),
        (Part::Says(b"\x15\x03\x03\x00\x02\x02\x46"), "Http",      &["With TLS the endpoint begins with https://"]),
        (Part::Says(&[0xff; 4096]),                 "Http",        &["does a SLIM node listen"]),
        (Part::Http(401),                           "Refused",     &["401", "credentials are missing or wrong"]),
        (Part::Http(404),                           "Refused",     &["404", "no SLIM node answers at this address"]),
        (Part::Http(503),                           "Refused",     &["503", "try again later"]),
        (Part::Refuses("16", "token%20ended"),      "Status",      &["UNAUTHENTICATED (16): token ended", "credentials for the node"]),
        (Part::Refuses("7", "not you"),             "Status",      &["PERMISSION_DENIED (7): not you", "ask its operator"]),
        (Part::Refuses("8", "full"),                "Status",      &["RESOURCE_EXHAUSTED (8): full", "limit of the node"]),
        (Part::Refuses("12", ""),                   "Status",      &["UNIMPLEMENTED (12)", "not that of a SLIM node"]),
        (Part::NeverNegotiates,                     "TimedOut",    &["link negotiation", "400ms"]),
        (Part::Negotiates(NoVersion),               "Negotiation", &["semantic version", "another version of the protocol"]),
        (Part::Negotiates(NoKey),                   "Negotiation", &["no header MAC", "require_header_mac: false"]),
        (Part::Negotiates(OtherLink),               "Negotiation", &["another link id than ours"]),
        (Part::Negotiates(NotALink),                "Negotiation", &["first message is not a link negotiation"]),
        (Part::Negotiates(NotEvenAMessage),         "Negotiation", &["the link was not agreed on"]),
        (Part::Negotiates(Compressed),              "Http",        &["compressed message, but no compression was agreed"]),
        (Part::RefusesNames("not yours"),           "NotSubscribed", &["acme/ns/alice", "not yours"]),
    ];
    for (part, expected, words) in rows {
        let script = Script::play(*part).await;
        let what = format!("{part:?}");
        let error = in_time(&what, STEP * 2, connect("acme/ns/alice", config(&script.url()))).await;
        assert_eq!(kind(&error), *expected, "{what}: {error}");
        says(&what, &error, words);
        assert_eq!(script.connections(), 1, "{what}: tried once");
    }
}

/// What is wrong with what we were given is told before anything is sent.
#[tokio::test]
async fn what_we_were_given() {
    for endpoint in ["", "ftp://x:1", "http://localhost", "http://x:1/path", "http://:80"] {
        let error = in_time(endpoint, STEP, connect("a/b/c", config(endpoint))).await;
        assert_eq!(error, ConnectError::Endpoint(endpoint.to_owned()));
        says(endpoint, &error, &["http://host:port"]);
    }
    let error = in_time("no such host", STEP, connect("a/b/c", config("http://no-such-host.invalid:1"))).await;
    assert!(matches!(error, ConnectError::Unreachable { .. } | ConnectError::TimedOut { .. }), "{error}");
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = in_time("nobody", STEP, connect("a/b/c", config(&format!("http://{nobody}")))).await;
    assert!(matches!(error, ConnectError::Unreachable { .. }));
    says("nobody", &error, &["no connection to http://127.0.0.1", "is the node running there?"]);
    let error = in_time("no socket", STEP, connect("a/b/c", config("unix:///nonexistent/node"))).await;
    says("no socket", &error, &["/nonexistent/node", "is the node running there?"]);

    let error = App::with_secret("a/b", SECRET).unwrap_err();
    assert_eq!(error, ConnectError::Name(NameError::Shape("a/b".into())));
    says("name", &error, &["organisation/namespace/service"]);
    let error = App::with_secret("a/b/c", "short").unwrap_err();
    assert_eq!(error, ConnectError::Identity(IdentityError::SecretTooShort { octets: 5, min: 32 }));
    says("secret", &error, &["5 octets", "at least 32"]);
    let mut headers = config("http://127.0.0.1:1");
    headers.headers.push(("a b".into(), "c".into()));
    assert!(connect("a/b/c", headers).await.is_err());
}

/// Tokens: made with another secret, ended, from the future, for somebody else.
#[test]
fn tokens() {
    let now = 1_700_000_000;
    let ours = SharedSecret::new("acme/ns/alice", SECRET).unwrap();
    let theirs = SharedSecret::new("acme/ns/bob", "another secret of at least 32 octets").unwrap();
    let verify = |token: &str, at| ours.verify(token, at).unwrap_err();
    let rows = [
        (verify(&theirs.token(now).unwrap(), now), "WrongSecret", "both sides need the same"),
        (
            verify(&ours.token(now).unwrap(), now + 3700),
            "Expired",
            "compare the clocks, or let the peer make a new one",
        ),
        (verify(&ours.token(now + 60).unwrap(), now), "FromTheFuture", "60 s ahead: compare the clocks"),
        (verify("a:b", now), "Malformed", "malformed identity token"),
    ];
    for (error, expected, words) in rows {
        assert_eq!(kind(&error), expected);
        says(expected, &error, &[words]);
    }
}

/// An identity that makes no token, or none that can sign, is told before or at the first need.
#[tokio::test]
async fn an_identity_that_does_not_serve() {
    let node = TestNode::start("127.0.0.1:0").await;
    let path = std::env::temp_dir().join(format!("slimline-errors-token-{}", std::process::id()));
    let ended = jsonwebtoken::encode(
        &jsonwebtoken::Header::default(),
        &serde_json::json!({"sub": "alice", "exp": 1000, "iat": 1}),
        &jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes()),
    );
    std::fs::write(&path, ended.unwrap()).unwrap();
    let verifier = Arc::new(JwtVerifier::new(jsonwebtoken::Algorithm::HS256, SECRET.as_bytes()).unwrap());
    let of = |provider: Arc<dyn Provider>| Credentials {
        provider,
        verifier: verifier.clone(),
        binding: slimline_session::identity::Binding::Enforce,
    };
    match StaticJwt::from_file(&path) {
        Err(error) => assert_eq!(kind(&error), "Expired", "{error}"),
        Ok(identity) => {
            let builder = App::with_credentials(name("acme/ns/alice"), of(Arc::new(identity)));
            let error = in_time("ended token", STEP, builder.connect(config(&node.url()))).await;
            assert!(matches!(error, ConnectError::Identity(IdentityError::Expired { .. })), "{error:?}");
            says("ended token", &error, &["ended", "ago"]);
        }
    }
    let life = serde_json::json!({"sub": "alice", "exp": unix_s() + 600, "iat": unix_s()});
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
    std::fs::write(&path, jsonwebtoken::encode(&jsonwebtoken::Header::default(), &life, &key).unwrap()).unwrap();
    let keyless = Arc::new(StaticJwt::from_file(&path).unwrap());
    let alice = App::with_credentials(name("acme/ns/alice"), of(keyless)).connect(config(&node.url())).await.unwrap();
    let bob = name("acme/ns/bob");
    let error = in_time("no key", STEP, alice.create_session(SessionConfig::point_to_point(), &bob)).await;
    assert_eq!(error, SessionError::Identity(IdentityError::NoKey));
    says("no key", &error, &["no signature key"]);
    std::fs::remove_file(path).unwrap();
}

fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// An identity that makes no token at times.
struct Failing(SharedSecret, Arc<AtomicBool>);

impl Provider for Failing {
    fn subject(&self) -> &str {
        self.0.subject()
    }

    fn token(&self, now: u64) -> Result<String, IdentityError> {
        if self.1.load(Ordering::Relaxed) { Err(IdentityError::Unavailable("gone".into())) } else { self.0.token(now) }
    }

    fn signing_key(&self) -> Option<&SigningKey> {
        self.0.signing_key()
    }
}

/// A publish that failed for its token leaves no gap: the peer waits for nothing, and loses nothing.
#[tokio::test]
async fn a_token_that_fails_for_a_while() {
    let node = TestNode::start("127.0.0.1:0").await;
    let failing = Arc::new(AtomicBool::new(false));
    let of = || SharedSecret::new("acme/ns/alice", SECRET).unwrap();
    let credentials = Credentials {
        provider: Arc::new(Failing(of(), failing.clone())),
        verifier: Arc::new(of()),
        binding: slimline_session::identity::Binding::Enforce,
    };
    let alice = App::with_credentials(name("acme/ns/alice"), credentials).connect(config(&node.url())).await.unwrap();
    let bob = app(&node.url(), "acme/ns/bob").await;
    let ours = alice.create_session(brief(SessionConfig::point_to_point()), &name("acme/ns/bob")).await.unwrap();
    let theirs = bob.listen().await.unwrap();
    for n in 0..10_u8 {
        failing.store(n % 3 == 1, Ordering::Relaxed);
        match ours.publish(vec![n]).await {
            Ok(publication) => assert!(publication.delivered().await.unwrap().is_complete()),
            Err(error) => assert_eq!(error, SessionError::Identity(IdentityError::Unavailable("gone".into()))),
        }
    }
    for n in [0, 2, 3, 5, 6, 8, 9] {
        assert_eq!(theirs.recv_within(Duration::from_secs(2)).await.unwrap().payload[..], [n]);
    }
}

/// An identity whose clock goes wrong by so many seconds.
struct Skewed(SharedSecret, i64);

impl Provider for Skewed {
    fn subject(&self) -> &str {
        self.0.subject()
    }

    fn token(&self, now: u64) -> Result<String, IdentityError> {
        self.0.token(now.saturating_add_signed(self.1))
    }

    fn signing_key(&self) -> Option<&SigningKey> {
        self.0.signing_key()
    }
}

/// Whoever cannot be brought in: unknown, silent, of another secret, with another clock.
#[tokio::test]
async fn peers_that_do_not_come() {
    let node = TestNode::start("127.0.0.1:0").await;
    let alice = app(&node.url(), "acme/ns/alice").await;
    let other = App::with_secret("acme/ns/other", "another secret of at least 32 octets").unwrap();
    let _other = other.connect(config(&node.url())).await.unwrap();
    let mut kept = Vec::new();
    for (who, skew) in [("acme/ns/ahead", 60), ("acme/ns/behind", -4000)] {
        let (identity, known) = (SharedSecret::new(who, SECRET).unwrap(), SharedSecret::new(who, SECRET).unwrap());
        let binding = slimline_session::identity::Binding::Enforce;
        let skewed = Credentials { provider: Arc::new(Skewed(identity, skew)), verifier: Arc::new(known), binding };
        kept.push(App::with_credentials(name(who), skewed).connect(config(&node.url())).await.unwrap());
    }
    let group = alice.create_session(brief(SessionConfig::group()), &name("acme/ns/chan")).await.unwrap();
    for (who, expected, words) in [
        ("acme/ns/nobody", "NoAnswer", ["acme/ns/nobody did not answer", "is it running, subscribed", "300ms"]),
        ("acme/ns/other", "NoAnswer", ["acme/ns/other did not answer", "same secret", "clocks"]),
        (
            "acme/ns/ahead",
            "Refused",
            ["acme/ns/ahead: its answer is not to be believed", "60 s ahead", "compare the clocks"],
        ),
        ("acme/ns/behind", "Refused", ["acme/ns/behind: its answer", "ended 40", "compare the clocks"]),
    ] {
        let limit = Duration::from_secs(1);
        let peer = name(who);
        let error = in_time(who, limit, alice.create_session(brief(SessionConfig::point_to_point()), &peer)).await;
        assert_eq!(kind(&error), expected, "{who}: {error}");
        says(who, &error, &words);
        let error = in_time(who, limit, group.invite(&name(who))).await;
        assert_eq!(kind(&error), expected, "{who} into a group: {error}");
        says(who, &error, &["failed to add participant to session"]);
    }
    assert_eq!(group.participants().unwrap().len(), 1, "the group is what it was");
}

/// A session says no with its reason, at once.
#[tokio::test]
async fn sessions_say_no() {
    let node = TestNode::start("127.0.0.1:0").await;
    let (alice, bob) = (app(&node.url(), "acme/ns/alice").await, app(&node.url(), "acme/ns/bob").await);
    let bobs = name("acme/ns/bob");
    let group = alice.create_session(brief(SessionConfig::group()), &name("acme/ns/chan")).await.unwrap();
    let nobody = group.publish(vec![1]).await.unwrap_err();
    assert_eq!(nobody, SessionError::NobodyOnline);
    says("nobody", &nobody, &["nobody is online", "Event::Joined"]);
    group.invite(&bobs).await.unwrap();
    let joined = bob.listen().await.unwrap();
    let pair = alice.create_session(brief(SessionConfig::point_to_point()), &bobs).await.unwrap();
    let theirs = bob.listen().await.unwrap();

    let huge = vec![0; MESSAGE_OCTETS_MAX];
    let error = in_time("too large", STEP, pair.publish(huge)).await;
    assert!(matches!(error, SessionError::TooLarge { limit: MESSAGE_OCTETS_MAX, .. }));
    says("too large", &error, &["the path takes 4194304", "in pieces"]);
    pair.publish(vec![0; MESSAGE_OCTETS_MAX - 16 * 1024]).await.unwrap().delivered().await.unwrap();

    let rows = [
        (in_time("again", STEP, group.invite(&bobs)).await, "AlreadyMember", "already in group: acme/ns/bob"),
        (in_time("who", STEP, group.remove(&name("a/b/c"))).await, "NotMember", "not found in group: a/b/c"),
        (in_time("rights", STEP, joined.invite(&name("a/b/c"))).await, "NotModerator", "only the moderator may invite"),
        (in_time("kind", STEP, pair.invite(&name("a/b/c"))).await, "NotGroup", "invite needs a group session"),
        (in_time("to", STEP, group.publish_to(&name("a/b/c"), vec![1])).await, "NotMember", "not found in group"),
    ];
    for (error, expected, words) in rows {
        assert_eq!(kind(&error), expected);
        says(expected, &error, &[words]);
    }
    assert_eq!(theirs.recv_within(STEP).await.unwrap().payload.len(), MESSAGE_OCTETS_MAX - 16 * 1024);
    assert_eq!(theirs.recv_within(Duration::from_millis(50)).await, Err(ReceiveError::TimedOut));

    let listener = App::with_secret("acme/ns/deaf", SECRET).unwrap().direction(Direction::RECEIVE);
    let listener = listener.connect(config(&node.url())).await.unwrap();
    let one_way = alice.create_session(brief(SessionConfig::point_to_point()), &name("acme/ns/deaf")).await.unwrap();
    let heard = listener.listen().await.unwrap();
    let error = heard.publish(vec![1]).await.unwrap_err();
    assert_eq!(error, SessionError::ReceiveOnly);
    assert!(one_way.publish(vec![1]).await.unwrap().delivered().await.unwrap().is_complete());

    let reserved = [("PUBLISH_TO".to_owned(), "TRUE".to_owned())];
    let publish = Publish { metadata: reserved.clone().into(), ..vec![1].into() };
    let error = in_time("reserved", STEP, pair.publish(publish)).await;
    assert_eq!(error, SessionError::ReservedMetadata("PUBLISH_TO"));
    says("reserved", &error, &["metadata key \"PUBLISH_TO\"", "choose another"]);
    let settings = SessionConfig { metadata: reserved.into(), ..brief(SessionConfig::point_to_point()) };
    let error = in_time("reserved", STEP, alice.create_session(settings, &bobs)).await;
    assert_eq!(error, SessionError::ReservedMetadata("PUBLISH_TO"));
    joined.go_offline().await.unwrap();
    let error = in_time("offline", STEP, joined.publish(vec![1])).await;
    assert_eq!(error, SessionError::Offline);
    says("offline", &error, &["offline in this session", "rejoin before"]);
    joined.rejoin().await.unwrap();

    pair.close().await.unwrap();
    pair.close().await.unwrap();
    for handle in [&pair, &theirs] {
        handle.closed().await;
        let error = in_time("closed", STEP, handle.publish(vec![1])).await;
        assert_eq!(error, SessionError::Closed);
        says("closed", &error, &["session closed"]);
        assert_eq!(in_time("closed", STEP, handle.recv()).await, ReceiveError::Session(SessionError::Closed));
        while handle.event().await.is_ok() {} // what happened before is told first
        assert_eq!(in_time("closed", STEP, handle.event()).await, SessionError::Closed);
    }
    // Removed, while a command of its own is under way: each is told why.
    group.remove(&bobs).await.unwrap();
    assert_eq!(joined.closed().await, SessionError::Removed);
    assert_eq!(joined.publish(vec![1]).await.unwrap_err(), SessionError::Removed);
}

/// A node that refuses the channel ends the session that needs it, instead of one that hears nothing.
#[tokio::test]
async fn names_that_are_refused() {
    let node = TestNode::start("127.0.0.1:0").await;
    let (alice, bob) = (app(&node.url(), "acme/ns/alice").await, app(&node.url(), "acme/ns/bob").await);
    node.refuse_channels();
    let group = alice.create_session(brief(SessionConfig::group()), &name("acme/ns/chan")).await.unwrap();
    let error = in_time("refused channel", SLACK, group.invite(&name("acme/ns/bob"))).await;
    assert!(matches!(error, SessionError::NotRouted { .. }), "{error:?}");
    says("refused channel", &error, &["refused to subscribe channel acme/ns/chan", "no channels here"]);
    assert_eq!(group.closed().await, error);
    assert!(tokio::time::timeout(STEP, bob.listen()).await.is_err(), "nobody was brought into what cannot be heard");

    let script = Script::play(Part::NeverAcknowledges).await;
    let error = in_time("no ack", Duration::from_secs(10), connect("acme/ns/alice", config(&script.url()))).await;
    assert!(matches!(error, ConnectError::TimedOut { step: "subscribing", .. }), "{error:?}");
    says("no ack", &error, &["subscribing took longer than 10s"]);
}

/// What ends a connection is told to whoever gives up: here after one attempt more.
#[tokio::test]
#[rustfmt::skip]
async fn on_a_connection() {
    let rows: &[(End, &str, &[&str])] = &[
        (End::Status("7", "expelled"),           "NodeRefuses", &["does not let us in", "PERMISSION_DENIED (7): expelled", "ask its operator"]),
        (End::Status("16", "token ended"),       "NodeGone",    &["after 0 attempts", "UNAUTHENTICATED (16): token ended"]),
        (End::Status("8", "larger than max"),    "NodeGone",    &["RESOURCE_EXHAUSTED (8): larger than max"]),
        (End::Status("0", ""),                   "NodeGone",    &["ended the stream without a reason"]),
        (End::Reset(Reason::ENHANCE_YOUR_CALM),  "NodeGone",    &["the node reset the stream: ENHANCE_YOUR_CALM"]),
        (End::GoAwayNow(Reason::PROTOCOL_ERROR), "NodeGone",    &["the node closed the connection: PROTOCOL_ERROR"]),
        (End::Cut,                               "NodeGone",    &["http://127.0.0.1", "the last of which failed so"]),
    ];
    for (end, expected, words) in rows {
        let script = Script::play(Part::Ends(*end)).await;
        let entry = format!(
            "{{endpoint: '{}', tls: {{insecure: true}}, backoff: {{type: fixed_interval, interval: 50ms, max_attempts: 0}}}}",
            script.url()
        );
        let what = format!("{end:?}");
        let no_more = ConnectConfig::parse(&entry, "entry", |_| None);
        let alice = match no_more {
            Ok(config) => connect("acme/ns/alice", config).await.unwrap(),
            Err(error) => panic!("{error}"),
        };
        let group = alice.create_session(SessionConfig::group(), &name("acme/ns/chan")).await.unwrap();
        let error = in_time(&what, Duration::from_secs(1), async { Err::<(), _>(group.closed().await) }).await;
        assert_eq!(kind(&error), *expected, "{what}: {error}");
        says(&what, &error, words);
        let error = in_time(&what, STEP, alice.listen()).await;
        assert!(matches!(error, ConnectError::GivenUp { .. }));
    }
}

/// A graceful GOAWAY and messages that are none change nothing; the connection stays.
#[tokio::test]
async fn what_does_not_end_a_connection() {
    for end in [End::GoAway, End::Garbage] {
        let script = Script::play(Part::Ends(end)).await;
        let alice = app(&script.url(), "acme/ns/alice").await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(alice.is_connected() && script.connections() == 1, "{end:?}");
        tokio::time::timeout(SLACK, alice.subscribe(&name("acme/ns/more"))).await.unwrap().unwrap();
    }
}

/// A node that drops us over and over is asked less and less often, although each connection succeeds.
#[tokio::test]
async fn a_flapping_node_is_not_stormed() {
    let script = Script::play(Part::Ends(End::Cut)).await;
    let _alice = app(&script.url(), "acme/ns/alice").await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    // 150 ms of connection and then half to all of 100, 200, 400, 800, 1600 ms: seven in four seconds at the very most.
    assert!((2..=7).contains(&script.connections()), "{} connections", script.connections());
}

/// A node that reads no more: publishes wait and fail in time, what was accepted is reported, and the application can go.
#[tokio::test]
async fn a_node_that_stops_reading() {
    let script = Script::play(Part::StopsReading).await;
    let mut patient = config(&script.url());
    patient.keepalive = None;
    let alice = connect("acme/ns/alice", patient).await.unwrap();
    let bob = name("acme/ns/bob");
    let error =
        in_time("call", Duration::from_secs(1), alice.create_session(brief(SessionConfig::point_to_point()), &bob))
            .await;
    assert!(matches!(error, SessionError::NoAnswer { .. }), "{error}");
    // Requests pile up before the connection; nothing hangs for it.
    for _ in 0..50 {
        let brief = SessionConfig::point_to_point().with_retries(Duration::from_millis(10), 1);
        let _ = tokio::time::timeout(SLACK, alice.create_session(brief, &bob)).await.expect("no hang");
    }
    let started = Instant::now();
    alice.shut_down().await;
    assert!(started.elapsed() < Duration::from_secs(8) + SLACK, "{:?}", started.elapsed());
}

/// A node that falls silent in mid-session is given up by keepalive, and sessions go on elsewhere in time.
#[tokio::test]
async fn a_node_that_dies_in_mid_call() {
    let script = Script::play_each(|before| if before == 0 { Part::StopsReading } else { Part::Mute }).await;
    let mut probing = config(&script.url());
    let (http2, timeout) = (Duration::from_millis(100), Duration::from_millis(200));
    probing.keepalive = Some(Keepalive { tcp: Duration::from_secs(1), http2, timeout });
    let alice = connect("acme/ns/alice", probing).await.unwrap();
    let bob = name("acme/ns/bob");
    // The node is mute from the second connection on: connecting takes its time, the call's own limit holds all the same.
    let call = alice.create_session(SessionConfig::point_to_point().with_retries(Duration::from_millis(300), 3), &bob);
    let error = in_time("call", Duration::from_millis(1200), call).await;
    assert!(matches!(error, SessionError::NoAnswer { .. }), "{error}");
    let started = Instant::now();
    alice.shut_down().await;
    assert!(started.elapsed() < SLACK, "nobody waits for a node that is not there: {:?}", started.elapsed());
}

/// Without a connection publishes are taken until the queue is full, then wait, then say so.
#[tokio::test]
async fn publishing_without_a_connection() {
    let node = TestNode::start("127.0.0.1:0").await;
    let (alice, bob) = (app(&node.url(), "acme/ns/alice").await, app(&node.url(), "acme/ns/bob").await);
    let unreliable = SessionConfig::point_to_point().unreliable();
    let ours = alice.create_session(unreliable, &name("acme/ns/bob")).await.unwrap();
    let _theirs = bob.listen().await.unwrap();
    node.stop().await;
    let lost = async {
        while alice.is_connected() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SLACK, lost).await.unwrap();
    let publishing = async {
        loop {
            ours.publish(vec![0; 64]).await?;
        }
        #[allow(unreachable_code)]
        Ok::<(), SessionError>(())
    };
    let error = in_time("full", Duration::from_secs(10), publishing).await;
    let waited = Duration::from_secs(10);
    assert_eq!(error, SessionError::NotTaken { waited, connected: false });
    says("full", &error, &["within 10s", "the connection is lost", "was not published", "try again later"]);
}

/// `http://` to a TLS port and the reverse, a foreign authority, another name, a certificate that ended or lies ahead.
#[tokio::test]
async fn transport_security() {
    let authority = Authority::new();
    let good = TestNode::start_with("127.0.0.1:0", Some(authority.for_all(-1, 1))).await;
    let ended = TestNode::start_with("127.0.0.1:0", Some(authority.for_all(-3, -1))).await;
    let ahead = TestNode::start_with("127.0.0.1:0", Some(authority.for_all(1, 3))).await;
    let plain = TestNode::start("127.0.0.1:0").await;
    let (ours, foreign) = (Some(authority.pem.clone()), Some(Authority::new().pem));
    let to = |scheme: &str, node: &TestNode, host: &str, trusted: &Option<String>| {
        let mut config = config(&format!("{scheme}://{host}:{}", node.address.port()));
        config.step_timeout = Duration::from_secs(2);
        config.tls.authorities_pem = trusted.clone().map(String::into_bytes);
        config
    };
    // Whoever has to show a certificate and has none is told after the handshake, or in it (TLS 1.2).
    let members = TestNode::start_with("127.0.0.1:0", Some(authority.for_members())).await;
    for version in [TlsVersion::Tls13, TlsVersion::Tls12] {
        let mut without = to("https", &members, "localhost", &ours);
        without.tls.version = Some(version);
        let error = in_time("no certificate", Duration::from_secs(2), connect("acme/ns/alice", without)).await;
        assert_eq!(kind(&error), "Tls", "{version:?}: {error}");
        says("no certificate", &error, &["the node asks for a certificate of ours", "client_pem"]);
    }
    connect("acme/ns/alice", to("https", &good, "localhost", &ours)).await.unwrap();
    let mut nonsense = to("https", &good, "localhost", &ours);
    nonsense.tls.authorities_pem = Some(b"nonsense".to_vec());
    let rows = [
        ("plain to TLS", to("http", &good, "127.0.0.1", &None), "Http", "With TLS the endpoint begins with https://"),
        ("ws to TLS", to("ws", &good, "127.0.0.1", &None), "Http", "wss://"),
        (
            "certificates over plain text",
            to("http", &plain, "127.0.0.1", &ours),
            "Tls",
            "is not secured: write https://",
        ),
        ("TLS to plain", to("https", &plain, "localhost", &ours), "Tls", "http://"),
        ("foreign", to("https", &good, "localhost", &foreign), "Tls", "tls.ca_source"),
        ("other name", to("https", &good, "127.0.0.1", &ours), "Tls", "server_name"),
        ("ended", to("https", &ended, "localhost", &ours), "Tls", "renew the node's certificate"),
        ("ahead", to("https", &ahead, "localhost", &ours), "Tls", "compare the clocks"),
        ("no authority", nonsense, "Tls", "no authority to trust"),
    ];
    for (what, config, expected, words) in rows {
        let error = in_time(what, Duration::from_secs(2), connect("acme/ns/alice", config)).await;
        assert_eq!(kind(&error), expected, "{what}: {error}");
        says(what, &error, &[words]);
    }
}

/// Everything an application holds may be moved to, and shared by, any task.
#[test]
fn handles_are_send_and_sync() {
    fn both<T: Send + Sync + 'static>() {}
    fn sends<T: Send>(_: &T) {}
    both::<(App, SessionHandle, slimline_session::AppBuilder, ConnectConfig, ConnectError, SessionError, ReceiveError)>(
    );
    fn futures(app: &'static App, session: &'static SessionHandle, name: &'static Name) {
        sends(&App::with_secret("a/b/c", SECRET).map(|builder| builder.connect(ConnectConfig::new(""))));
        sends(&(app.subscribe(name), app.create_session(SessionConfig::group(), name), app.listen()));
        sends(&app.clone().shut_down());
        sends(&(session.publish(vec![]), session.publish_to(name, vec![]), session.recv(), session.event()));
        sends(&(session.recv_within(STEP), session.invite(name), session.remove(name), session.closed()));
        sends(&(session.go_offline(), session.rejoin(), session.close()));
        sends(&async { session.publish(vec![]).await?.delivered().await });
    }
    let _ = futures;
}
