//! Every door: last words arrive, and who takes a slot hears nothing of who had it before.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use super::*;

const ENGINES: &[EngineKind] = if cfg!(feature = "glommio") {
    &[EngineKind::IoUring, EngineKind::Epoll, EngineKind::Glommio]
} else {
    &[EngineKind::IoUring, EngineKind::Epoll]
};
/// How many take the slot, one after the other.
const GUESTS: u8 = 20;

/// Says each caller's number first, and takes what it says until it ends.
fn host(listener: TcpListener) -> thread::JoinHandle<Vec<Vec<u8>>> {
    thread::spawn(move || {
        (0..GUESTS)
            .map(|number| {
                let mut guest = listener.accept().unwrap().0;
                guest.write_all(&[number]).unwrap();
                let mut said = Vec::new();
                let _ = guest.read_to_end(&mut said); // a reset ends it as well
                said
            })
            .collect()
    })
}

#[test]
fn last_words_arrive_and_the_slot_is_free_at_once() {
    for &engine in ENGINES {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let host = host(listener);
        let mut door = open(engine, true).unwrap();
        let mut wanted = Vec::new();
        for number in 0..GUESTS {
            door.adopt(3, TcpStream::connect(address).unwrap()).unwrap();
            let mut out = Outbox::default();
            out.octets.extend_from_slice(b"come ");
            out.cut();
            door.send(3, &mut out).unwrap();
            let (start, mut heard) = (Instant::now(), Vec::new());
            // Every other one leaves while its first write may be under way.
            while number % 2 == 0 && heard.is_empty() {
                assert!(start.elapsed() < Duration::from_secs(10), "{engine:?}: the greeting does not come");
                let told = door.wait(Duration::from_millis(100), &mut |slot, arrival| {
                    assert_eq!(slot, 3, "{engine:?}");
                    match arrival {
                        Arrival::Octets(octets) => heard.extend_from_slice(octets),
                        Arrival::Writable => out.blocked = false,
                        Arrival::Ended(reason) => panic!("{engine:?}: {reason:?}"),
                    }
                });
                told.unwrap();
                assert!(heard.iter().all(|heard| *heard == number), "{engine:?}: {heard:?} for {number}");
            }
            out.octets.extend_from_slice(&[b'0' + number; 3]);
            door.leave(3, &mut out);
            wanted.push([&b"come "[..], &[b'0' + number; 3]].concat());
        }
        let start = Instant::now();
        while !host.is_finished() {
            assert!(start.elapsed() < Duration::from_secs(10), "{engine:?}: somebody has not left");
            door.wait(Duration::from_millis(5), &mut |slot, _| panic!("{engine:?}: {slot} has left")).unwrap();
        }
        for (number, (said, wanted)) in host.join().unwrap().iter().zip(&wanted).enumerate() {
            // Whoever leaves with the greeting unread resets the connection, and with it what was still under way.
            let is_whole = if number % 2 == 0 { said == wanted } else { wanted.starts_with(said) };
            assert!(is_whole, "{engine:?}: {number} said {said:?}");
        }
    }
}

#[test]
fn a_waker_ends_a_wait() {
    for &engine in ENGINES {
        let mut door = open(engine, true).unwrap();
        let waker = door.waker();
        thread::scope(|scope| {
            scope.spawn(move || waker.wake());
            let start = Instant::now();
            door.wait(Duration::from_secs(30), &mut |_, _| ()).unwrap();
            assert!(start.elapsed() < Duration::from_secs(20), "{engine:?}");
        });
    }
}
