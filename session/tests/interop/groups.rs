//! Groups, moderated by either side.

use std::time::Instant;

use serde_json::{Value, json};
use slimline_session::error::SessionError;
use slimline_session::{Event, ReceiveError, SessionConfig};

use crate::kit::{PATIENCE, Python, SECOND, begun, create, kinds, name, text};
use crate::nodes::Node;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs SLIMLINE_TEST_PYTHON"]
async fn group_we_moderate() {
    let node = Node::start();
    for config in kinds(SessionConfig::group) {
        let mut one = Python::join(&node, "acme/ns/one");
        let mut two = Python::join(&node, "acme/ns/two");
        let moderator = node.app("acme/ns/mod").await;
        let session = moderator.create_session(config.clone(), &name("acme/ns/chan")).await.unwrap();
        let mut theirs = Vec::new();
        for (python, service) in [(&mut one, "acme/ns/one"), (&mut two, "acme/ns/two")] {
            let waiting = python.ask(json!({"do": "listen"}));
            session.invite(&name(service)).await.unwrap();
            theirs.push(python.answer(waiting)["session"].clone());
        }
        session.publish(b"Hello group!".to_vec()).await.unwrap().delivered().await.unwrap();
        assert_eq!(one.text(&theirs[0]), "Hello group!");
        assert_eq!(two.text(&theirs[1]), "Hello group!");
        one.run(json!({"do": "publish", "session": theirs[0], "text": "from one", "wait": true}));
        assert_eq!(text(&session).await, "from one");
        assert_eq!(two.text(&theirs[1]), "from one");
        // To one alone, both ways.
        two.run(json!({"do": "answer", "session": theirs[1], "text": "for one alone"}));
        assert_eq!(one.text(&theirs[0]), "for one alone");
        one.run(json!({"do": "publish", "session": theirs[0], "text": "again"}));
        let message = session.recv_within(SECOND * 5).await.unwrap();
        two.text(&theirs[1]);
        let alone = session.publish_to(&message.source, b"for you alone".to_vec()).await.unwrap();
        assert_eq!(one.text(&theirs[0]), "for you alone");
        assert!(alone.delivered().await.unwrap().is_complete());
        let listed = one.run(json!({"do": "participants", "session": theirs[0]}));
        assert_eq!(listed["names"].as_array().unwrap().len(), 3, "{listed}");

        session.remove(&name("acme/ns/one")).await.unwrap();
        one.sees_the_end(&theirs[0]);
        session.publish(b"without one".to_vec()).await.unwrap().delivered().await.unwrap();
        assert_eq!(two.text(&theirs[1]), "without one");
        session.close().await.unwrap();
        two.sees_the_end(&theirs[1]);
        moderator.shut_down().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs SLIMLINE_TEST_PYTHON"]
async fn group_we_participate() {
    let node = Node::start();
    for config in kinds(SessionConfig::group) {
        let mut moderator = Python::join(&node, "acme/ns/mod");
        let mut other = Python::join(&node, "acme/ns/other");
        let us = node.app("acme/ns/us").await;
        let theirs = moderator.run(create(&config, true, "acme/ns/chan"))["session"].clone();
        moderator.run(json!({"do": "invite", "session": theirs, "name": "acme/ns/us"}));
        let session = begun(&us).await;
        let waiting = other.ask(json!({"do": "listen"}));
        moderator.run(json!({"do": "invite", "session": theirs, "name": "acme/ns/other"}));
        let others = other.answer(waiting)["session"].clone();
        moderator.run(json!({"do": "publish", "session": theirs, "text": "Hello group!", "wait": true}));
        assert_eq!(text(&session).await, "Hello group!");
        assert_eq!(other.text(&others), "Hello group!");
        let delivery = session.publish(b"from us".to_vec()).await.unwrap().delivered().await.unwrap();
        assert_eq!(delivery.recipients.len(), if config.reliable.is_some() { 2 } else { 0 });
        assert!(delivery.is_complete());
        assert_eq!(moderator.text(&theirs), "from us");
        assert_eq!(other.text(&others), "from us");
        other.run(json!({"do": "publish", "session": others, "text": "from the other", "wait": true}));
        assert_eq!(text(&session).await, "from the other");
        assert_eq!(moderator.text(&theirs), "from the other");
        assert_eq!(session.participants().unwrap().len(), 3);

        moderator.run(json!({"do": "remove", "session": theirs, "name": "acme/ns/us"}));
        assert_eq!(tokio::time::timeout(PATIENCE, session.closed()).await.unwrap(), SessionError::Removed);
        assert_eq!(session.recv().await, Err(ReceiveError::Session(SessionError::Removed)));
        us.shut_down().await;
    }
}

/// We go away while nothing changes, and while somebody comes: back either way, and our place in each stream is kept.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs SLIMLINE_TEST_PYTHON"]
async fn we_rejoin_their_group() {
    let node = Node::start();
    let mut moderator = Python::join(&node, "acme/ns/mod");
    let us = node.app("acme/ns/us").await;
    let theirs = moderator.run(create(&SessionConfig::group(), true, "acme/ns/chan"))["session"].clone();
    moderator.run(json!({"do": "invite", "session": theirs, "name": "acme/ns/us"}));
    let session = begun(&us).await;
    session.go_offline().await.unwrap();
    offline(&mut moderator, &theirs, 1);
    session.rejoin().await.unwrap();
    offline(&mut moderator, &theirs, 0);
    session.publish(b"back".to_vec()).await.unwrap().delivered().await.unwrap();
    assert_eq!(moderator.text(&theirs), "back");
    session.go_offline().await.unwrap();
    offline(&mut moderator, &theirs, 1);
    let mut late = Python::join(&node, "acme/ns/late");
    let waiting = late.listen();
    moderator.run(json!({"do": "invite", "session": theirs, "name": "acme/ns/late"}));
    let lates = late.answer(waiting)["session"].clone();
    session.rejoin().await.unwrap();
    let joined = async {
        while session.participants().unwrap().len() < 3 {
            tokio::time::sleep(SECOND / 10).await;
        }
    };
    tokio::time::timeout(PATIENCE, joined).await.expect("the roster grows to three");
    session.publish(b"back again".to_vec()).await.unwrap().delivered().await.unwrap();
    assert_eq!(late.text(&lates), "back again");
    assert_eq!(moderator.text(&theirs), "back again");
    // After a rejoin the Python moderator finishes no further task: its replay check drops the acknowledgement of its own
    // rejoin reply, which has to carry the id of the request. So we leave, and are not removed.
    session.close().await.unwrap();
}

/// So many members are away as far as that application knows, soon.
#[track_caller]
fn offline(python: &mut Python, session: &Value, count: u64) {
    let end = Instant::now() + PATIENCE;
    loop {
        let listed = python.run(json!({"do": "participants", "session": session}));
        if listed["offline"] == count {
            return;
        }
        assert!(Instant::now() < end, "not {count}: {listed}");
        std::thread::sleep(SECOND / 10);
    }
}

/// So many members are left as far as that application knows, soon.
#[track_caller]
fn present(python: &mut Python, session: &Value, count: usize) {
    let end = Instant::now() + PATIENCE;
    loop {
        let listed = python.run(json!({"do": "participants", "session": session}));
        if listed["names"].as_array().unwrap().len() == count {
            return;
        }
        assert!(Instant::now() < end, "not {count}: {listed}");
        std::thread::sleep(SECOND / 10);
    }
}

/// Members leave of themselves, theirs our group and we theirs; then the moderator ends it for whoever is left.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs SLIMLINE_TEST_PYTHON"]
async fn members_leave() {
    let node = Node::start();
    for config in kinds(SessionConfig::group) {
        let mut one = Python::join(&node, "acme/ns/one");
        let mut two = Python::join(&node, "acme/ns/two");
        let us = node.app("acme/ns/us").await;
        let ours = us.create_session(config.clone(), &name("acme/ns/chan")).await.unwrap();
        let mut theirs = Vec::new();
        for (python, service) in [(&mut one, "acme/ns/one"), (&mut two, "acme/ns/two")] {
            let waiting = python.listen();
            ours.invite(&name(service)).await.unwrap();
            theirs.push(python.answer(waiting)["session"].clone());
        }
        one.run(json!({"do": "close", "session": theirs[0]}));
        let left = async {
            loop {
                if let Event::Left(name) = ours.event().await.unwrap() {
                    return name;
                }
            }
        };
        let left = tokio::time::timeout(PATIENCE, left).await.expect("seen to leave");
        assert_eq!(left.components(), ["acme", "ns", "one"]);
        present(&mut two, &theirs[1], 2);
        let delivery = ours.publish(b"without one".to_vec()).await.unwrap().delivered().await.unwrap();
        assert_eq!(delivery.recipients.len(), usize::from(config.reliable.is_some()));
        assert_eq!(two.text(&theirs[1]), "without one");
        ours.close().await.unwrap();
        two.sees_the_end(&theirs[1]);

        let session = one.run(create(&config, true, "acme/ns/chan2"))["session"].clone();
        one.run(json!({"do": "invite", "session": session, "name": "acme/ns/us"}));
        let ours = begun(&us).await;
        let waiting = two.listen();
        one.run(json!({"do": "invite", "session": session, "name": "acme/ns/two"}));
        let second = two.answer(waiting)["session"].clone();
        ours.close().await.unwrap();
        present(&mut one, &session, 2);
        one.say(&session, "without us");
        assert_eq!(two.text(&second), "without us");
        one.run(json!({"do": "invite", "session": session, "name": "acme/ns/us"}));
        let ours = begun(&us).await;
        one.say(&session, "with us again");
        assert_eq!(text(&ours).await, "with us again");
        one.run(json!({"do": "close", "session": session}));
        assert_eq!(tokio::time::timeout(PATIENCE, ours.closed()).await.expect("an end"), SessionError::Closed);
        us.shut_down().await;
    }
}

/// Taken out and invited again at once, again and again: each time its application sees one session end and another begin.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs SLIMLINE_TEST_PYTHON"]
async fn removed_and_invited_again() {
    let node = Node::start();
    let mut one = Python::join(&node, "acme/ns/one");
    let moderator = node.app("acme/ns/mod").await;
    let session = moderator.create_session(SessionConfig::group(), &name("acme/ns/chan")).await.unwrap();
    for round in 0..5 {
        let waiting = one.listen();
        session.invite(&name("acme/ns/one")).await.unwrap();
        let theirs = one.answer(waiting)["session"].clone();
        assert!(theirs.is_number(), "round {round}: a session");
        let said = format!("round {round}");
        let publication = session.publish(said.clone().into_bytes()).await.unwrap();
        assert_eq!(one.text(&theirs), said);
        assert!(publication.delivered().await.unwrap().is_complete());
        session.remove(&name("acme/ns/one")).await.unwrap();
    }
}

/// A Python moderator with three more of theirs and three of ours: everybody hears everybody, each speaker in order.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs SLIMLINE_TEST_PYTHON"]
async fn a_mixed_group_of_theirs() {
    let node = Node::start();
    let config = SessionConfig::group().with_retries(SECOND * 2, 10);
    let mut theirs = vec![(Python::join(&node, "acme/ns/mod"), Value::Null)];
    theirs[0].1 = theirs[0].0.run(create(&config, true, "acme/ns/chan"))["session"].clone();
    let mut ours = Vec::new();
    for n in 0..3 {
        let service = format!("acme/ns/py{n}");
        let mut python = Python::join(&node, &service);
        let waiting = python.listen();
        let (moderator, session) = &mut theirs[0];
        moderator.run(json!({"do": "invite", "session": session, "name": service}));
        let session = python.answer(waiting)["session"].clone();
        theirs.push((python, session));
        let service = format!("acme/ns/rs{n}");
        let app = node.app(&service).await;
        let (moderator, session) = &mut theirs[0];
        moderator.run(json!({"do": "invite", "session": session, "name": service}));
        let session = begun(&app).await;
        ours.push((app, session));
    }
    let mut heard = vec![Vec::new(); 3];
    for speaker in 0..theirs.len() {
        let said = format!("from Python {speaker}");
        let (python, session) = &mut theirs[speaker];
        python.say(session, &said);
        for (n, (python, session)) in theirs.iter_mut().enumerate() {
            if n != speaker {
                assert_eq!(python.text(session), said);
            }
        }
        for (heard, (_, session)) in heard.iter_mut().zip(&ours) {
            heard.push(text(session).await);
        }
    }
    let expected: Vec<_> = (0..4).map(|n| format!("from Python {n}")).collect();
    assert_eq!(heard, vec![expected; 3]);
    for (n, (_, session)) in ours.iter().enumerate() {
        let said = format!("from Rust {n}");
        let delivery = session.publish(said.clone().into_bytes()).await.unwrap().delivered().await.unwrap();
        assert_eq!((delivery.recipients.len(), delivery.is_complete()), (6, true), "{delivery:?}");
        for (python, session) in &mut theirs {
            assert_eq!(python.text(session), said);
        }
        for (m, (_, session)) in ours.iter().enumerate() {
            if m != n {
                assert_eq!(text(session).await, said);
            }
        }
    }
}

/// A Python member goes away, misses somebody's coming, and is readmitted by our moderator.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs SLIMLINE_TEST_PYTHON"]
async fn a_python_member_rejoins_our_group() {
    let node = Node::start();
    let mut one = Python::join(&node, "acme/ns/one");
    let moderator = node.app("acme/ns/mod").await;
    let session = moderator.create_session(SessionConfig::group(), &name("acme/ns/chan")).await.unwrap();
    let waiting = one.ask(json!({"do": "listen"}));
    session.invite(&name("acme/ns/one")).await.unwrap();
    let theirs = one.answer(waiting)["session"].clone();
    let two = node.app("acme/ns/two").await;
    session.invite(&name("acme/ns/two")).await.unwrap();
    let second = two.listen().await.unwrap();
    one.run(json!({"do": "away", "session": theirs}));
    let offline = async { while !matches!(session.event().await, Ok(Event::Offline(_))) {} };
    tokio::time::timeout(PATIENCE, offline).await.expect("seen to go");
    let three = node.app("acme/ns/three").await;
    session.invite(&name("acme/ns/three")).await.unwrap();
    let third = three.listen().await.unwrap();
    one.run(json!({"do": "rejoin", "session": theirs}));
    let online = async { while !matches!(session.event().await, Ok(Event::Online(_))) {} };
    tokio::time::timeout(PATIENCE, online).await.expect("seen to come back");
    present(&mut one, &theirs, 4);
    session.publish(b"welcome back".to_vec()).await.unwrap().delivered().await.unwrap();
    assert_eq!(one.text(&theirs), "welcome back");
    one.run(json!({"do": "publish", "session": theirs, "text": "thank you", "wait": true}));
    for session in [&second, &third] {
        assert_eq!(text(session).await, "welcome back");
        assert_eq!(text(session).await, "thank you");
    }
    assert_eq!(text(&session).await, "thank you");
}

/// Eight members, half of them Python, with a moderator of ours: everybody hears everybody.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs SLIMLINE_TEST_PYTHON"]
async fn a_mixed_group_of_eight() {
    let node = Node::start();
    let moderator = node.app("acme/ns/mod").await;
    let config = SessionConfig::group().with_retries(SECOND * 2, 10);
    let session = moderator.create_session(config, &name("acme/ns/chan")).await.unwrap();
    let mut theirs = Vec::new();
    let mut ours = Vec::new();
    for n in 0..4 {
        let service = format!("acme/ns/py{n}");
        let mut python = Python::join(&node, &service);
        let waiting = python.ask(json!({"do": "listen"}));
        session.invite(&name(&service)).await.unwrap();
        let id = python.answer(waiting)["session"].clone();
        theirs.push((python, id));
        if n < 3 {
            let service = format!("acme/ns/rs{n}");
            let app = node.app(&service).await;
            session.invite(&name(&service)).await.unwrap();
            let session = app.listen().await.unwrap();
            ours.push((app, session));
        }
    }
    assert_eq!(session.participants().unwrap().len(), 8);
    let delivery = session.publish(b"Hello group!".to_vec()).await.unwrap().delivered().await.unwrap();
    assert_eq!(delivery.recipients.len(), 7);
    assert!(delivery.is_complete(), "{delivery:?}");
    for (python, id) in &mut theirs {
        assert_eq!(python.text(id), "Hello group!");
    }
    for (_, session) in &ours {
        assert_eq!(text(session).await, "Hello group!");
    }
    let (python, id) = &mut theirs[2];
    python.run(json!({"do": "publish", "session": id, "text": "from Python", "wait": true}));
    ours[1].1.publish(b"from Rust".to_vec()).await.unwrap().delivered().await.unwrap();
    assert_eq!(text(&session).await, "from Python");
    assert_eq!(text(&session).await, "from Rust");
    assert_eq!(text(&ours[0].1).await, "from Python");
    let (python, id) = &mut theirs[0];
    assert_eq!(python.text(id), "from Python");
    assert_eq!(python.text(id), "from Rust");
    session.close().await.unwrap();
    for (_, session) in &ours {
        assert_eq!(tokio::time::timeout(PATIENCE, session.closed()).await.unwrap(), SessionError::Closed);
    }
}
