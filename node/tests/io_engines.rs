//! One suite of behaviour, run on every engine and every rung of the ladder.

mod io_support;

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use io_support::*;
use slimline_node::io::{Block, Body, Done, Ended, Io, IoOptions, Shared, bind};

/// Writes `sent` in random chunks while reading the same octets back.
fn chatter(
    mut write: impl Write + Send + 'static,
    mut read: impl Read,
    sent: Vec<u8>,
    seed: u64,
    end: impl FnOnce() + Send + 'static,
) {
    let expected = sent.clone();
    let writer = thread::spawn(move || {
        let mut dice = Dice(seed);
        let mut rest = &sent[..];
        while !rest.is_empty() {
            let chunk = (1 + dice.below(20_000)).min(rest.len());
            write.write_all(&rest[..chunk]).unwrap();
            rest = &rest[chunk..];
        }
        end();
    });
    let mut back = Vec::new();
    read.read_to_end(&mut back).unwrap();
    writer.join().unwrap();
    assert!(back == expected, "echo differs: {} octets for {}", back.len(), expected.len());
}

#[test]
fn echoes_random_chunks_over_tcp_and_unix_sockets() {
    on_every_rung(|io| {
        let mut echo = Echo::new(io);
        let mut threads = Vec::new();
        for seed in 1..=6_u64 {
            let sent = Dice(seed).octets(300_000);
            if seed % 2 == 0 {
                let (ours, peer) = tcp_pair();
                echo.adopt(ours);
                let (write, end) = (peer.try_clone().unwrap(), peer.try_clone().unwrap());
                threads.push(thread::spawn(move || {
                    chatter(write, peer, sent, seed, move || end.shutdown(Shutdown::Write).unwrap());
                }));
            } else {
                let (ours, peer) = UnixStream::pair().unwrap();
                echo.adopt(ours.into());
                let (write, end) = (peer.try_clone().unwrap(), peer.try_clone().unwrap());
                threads.push(thread::spawn(move || {
                    chatter(write, peer, sent, seed, move || end.shutdown(Shutdown::Write).unwrap());
                }));
            }
        }
        let deadline = Instant::now() + Duration::from_secs(20);
        while echo.ended < 6 {
            assert!(Instant::now() < deadline, "echo hangs: {:?}", echo.io.counters());
            echo.turn(Duration::from_millis(50));
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_quiet(&echo.io);
    });
}

#[test]
fn a_peer_that_does_not_read_is_paused_and_loses_nothing() {
    on_every_rung(|io| {
        let mut echo = Echo::new(io);
        let (ours, peer) = UnixStream::pair().unwrap();
        echo.adopt(ours.into());
        let sent = Dice(7).octets(2_000_000);
        let expected = sent.clone();
        let mut write = peer.try_clone().unwrap();
        let writer = thread::spawn(move || {
            write.write_all(&sent).unwrap();
            write.shutdown(Shutdown::Write).unwrap();
        });
        let quiet_since = Instant::now();
        while quiet_since.elapsed() < Duration::from_millis(150) {
            echo.turn(Duration::from_millis(10)); // the peer reads nothing: both directions fill up
        }
        assert!(
            !writer.is_finished(),
            "the writer is held back: {:?}, held {}",
            echo.io.counters(),
            echo.held_octets_max
        );
        // A receive already under way may still bring what was in the socket when the pause was asked for.
        assert!(echo.held_octets_max < 700_000, "held {}", echo.held_octets_max);
        let reader = thread::spawn(move || {
            let mut back = Vec::new();
            (&peer).read_to_end(&mut back).unwrap();
            back
        });
        let deadline = Instant::now() + Duration::from_secs(20);
        while echo.ended < 1 {
            assert!(Instant::now() < deadline, "echo hangs: {:?}", echo.io.counters());
            echo.turn(Duration::from_millis(50));
        }
        writer.join().unwrap();
        assert!(reader.join().unwrap() == expected);
        assert_quiet(&echo.io);
    });
}

#[test]
fn a_thousand_connections_are_accepted_served_and_closed() {
    on_every_rung(|mut io| {
        let socket = bind(loopback(), 1024).unwrap();
        let listener = std::net::TcpListener::from(socket.try_clone().unwrap());
        let address = listener.local_addr().unwrap();
        drop(listener);
        io.listen(3, socket);
        let mut echo = Echo::new(io);
        let clients = thread::spawn(move || {
            let mut streams: Vec<_> = (0..1000).map(|_| TcpStream::connect(address).unwrap()).collect();
            for (index, stream) in streams.iter_mut().enumerate() {
                stream.set_nodelay(true).unwrap();
                write!(stream, "hello {index:04}").unwrap();
            }
            for (index, stream) in streams.iter_mut().enumerate() {
                let mut back = [0; 10];
                stream.read_exact(&mut back).unwrap();
                assert_eq!(back, format!("hello {index:04}").as_bytes());
            }
        });
        let deadline = Instant::now() + Duration::from_secs(30);
        while echo.ended < 1000 {
            assert!(Instant::now() < deadline, "{} of 1000 ended", echo.ended);
            echo.turn(Duration::from_millis(50));
        }
        clients.join().unwrap();
        echo.io.unlisten(3);
        echo.turn(Duration::from_millis(1));
        assert_quiet(&echo.io);
    });
}

#[test]
fn without_a_free_buffer_receiving_ends_and_starts_again_when_asked() {
    let tiny = |options| IoOptions { recv_buf_count: 2, recv_buf_octets: 512, ..options };
    on_every_rung_with(tiny, |mut io| {
        let mut done = VecDeque::new();
        let (a, b) = (key(0, 1), key(1, 1));
        let (ours_a, mut peer_a) = UnixStream::pair().unwrap();
        let (ours_b, mut peer_b) = UnixStream::pair().unwrap();
        io.adopt(a, ours_a.into()).unwrap();
        io.adopt(b, ours_b.into()).unwrap();
        io.receive(a);
        peer_a.write_all(&[7; 4096]).unwrap();
        enter_until(&mut io, &mut done, |done| {
            done.iter().any(|d| matches!(d, Done::ReceiveEnded { why: Ended::NoBuffers, .. }))
        });
        io.receive(b);
        peer_b.write_all(b"waits").unwrap();
        enter_until(&mut io, &mut done, |done| {
            done.iter().any(|d| matches!(d, Done::ReceiveEnded { key, why: Ended::NoBuffers } if *key == b))
        });
        assert!(io.counters().enobufs >= 2);
        let mut count_a = 0;
        for d in std::mem::take(&mut done) {
            if let Done::Received { key, lease } = d {
                assert_eq!(key, a);
                count_a += lease.octet_count();
                io.put_back(lease);
            }
        }
        assert!((512..=1024).contains(&count_a), "two buffers of 512: {count_a}");
        io.receive(b);
        assert_eq!(read_exactly(&mut io, &mut done, b, 5), b"waits");
        // The rest of A comes in as many rounds as it takes.
        while count_a < 4096 {
            io.receive(a);
            io.enter(Some(Duration::from_millis(100)), &mut done).unwrap();
            for d in std::mem::take(&mut done) {
                if let Done::Received { key, lease } = d {
                    assert_eq!(key, a);
                    assert!(io.octets(&lease).iter().all(|octet| *octet == 7));
                    count_a += lease.octet_count();
                    io.put_back(lease);
                }
            }
        }
        assert_eq!(count_a, 4096);
        close_and_wait(&mut io, &mut done, a);
        close_and_wait(&mut io, &mut done, b);
        assert_quiet(&io);
    });
}

#[test]
fn closing_during_a_send_brings_the_block_home_first() {
    on_every_rung(|mut io| {
        let mut done = VecDeque::new();
        let (ours, peer) = UnixStream::pair().unwrap();
        let k = key(2, 9);
        io.adopt(k, ours.into()).unwrap();
        io.receive(k);
        // Sends until one stays in flight because nobody reads.
        let mut sent = 0;
        loop {
            io.send(k, Block::from(vec![1; 200_000]), 0);
            io.enter(Some(Duration::from_millis(50)), &mut done).unwrap();
            match done.pop_front() {
                Some(Done::Sent { result, .. }) => sent += result.unwrap(),
                None => break,
                other => panic!("unexpected {other:?}"),
            }
        }
        assert!(sent > 0);
        let ended = close_and_wait(&mut io, &mut done, k).expect("a send was in flight");
        assert!(ended.is_err(), "cancelled: {ended:?}");
        assert!(done.is_empty(), "{done:?}");
        drop(peer);
        assert_quiet(&io);
    });
}

/// A block of its own octets and of bodies that lie in two shared memories, some of them more than once; flat beside it.
fn gathered(dice: &mut Dice, pieces: usize) -> (Block, Vec<u8>) {
    let shared: Vec<Shared> = [5000, 70_000].map(|octets| Shared::new(dice.octets(octets))).into();
    let (mut own, mut bodies, mut flat) = (Vec::new(), Vec::new(), Vec::new());
    for piece in 0..pieces {
        let head = dice.below(40); // sometimes none: two bodies in a row
        let head = dice.octets(head);
        own.extend_from_slice(&head);
        flat.extend_from_slice(&head);
        let memory = &shared[piece % 2];
        let from = dice.below(memory.len() - 1);
        let length = 1 + dice.below(memory.len() - from - 1);
        bodies.push(Body::new(own.len(), Shared::clone(memory), from, length));
        flat.extend_from_slice(&memory[from..from + length]);
    }
    (Block::gathered(own, bodies), flat)
}

#[test]
fn gathered_blocks_leave_octet_for_octet_however_short_the_sends() {
    on_every_rung(|mut io| {
        let mut dice = Dice(3);
        let mut done = VecDeque::new();
        let (ours, mut peer) = UnixStream::pair().unwrap();
        let k = key(1, 1);
        io.adopt(k, ours.into()).unwrap();
        let rounds: Vec<_> = [1, 2, 30, 300].map(|pieces| gathered(&mut dice, pieces)).into();
        let expected: Vec<u8> = rounds.iter().flat_map(|(_, flat)| flat.clone()).collect();
        let octets = expected.len();
        let reader = thread::spawn(move || {
            let (mut back, mut room) = (Vec::new(), vec![0; 30_000]);
            while back.len() < octets {
                let count = peer.read(&mut room).unwrap();
                assert!(count > 0);
                back.extend_from_slice(&room[..count]);
            }
            (back, peer)
        });
        for (mut block, flat) in rounds {
            assert_eq!(block.len(), flat.len());
            let mut sent = 0;
            while sent < flat.len() {
                io.send(k, block, sent);
                let (back, result) = wait_for(
                    &mut io,
                    &mut done,
                    |d| matches!(d, Done::Sent { .. }),
                    |d| {
                        let Done::Sent { key, block, result } = d else { unreachable!() };
                        assert_eq!(key, k);
                        (block, result)
                    },
                );
                sent += result.unwrap();
                block = back;
            }
            let (_, bodies) = block.into_parts();
            let mut memories: Vec<Shared> = bodies.into_iter().map(Body::into_memory).collect();
            memories.sort_by_key(|memory| memory.len());
            memories.dedup_by(|a, b| Shared::ptr_eq(a, b));
            assert!(memories.iter_mut().all(|memory| Shared::get_mut(memory).is_some()), "the engine kept nothing");
        }
        let (back, peer) = reader.join().unwrap();
        assert!(back == expected, "{octets} octets, other than they left");
        assert!(io.counters().short_sends > 0, "the socket holds less than was sent");
        assert!(close_and_wait(&mut io, &mut done, k).is_none());
        drop(peer);
        assert_quiet(&io);
    });
}

#[test]
fn a_reused_slot_hears_nothing_of_its_earlier_life() {
    on_every_rung(|mut io| {
        let mut done = VecDeque::new();
        for generation in 1..50 {
            let k = key(0, generation);
            let (ours, mut peer) = UnixStream::pair().unwrap();
            io.adopt(k, ours.into()).unwrap();
            io.receive(k);
            peer.write_all(&generation.to_be_bytes()).unwrap();
            if generation % 3 == 0 {
                // Closed with the octets on their way: they must not reach the next life.
                io.close(k);
            } else {
                assert_eq!(read_exactly(&mut io, &mut done, k, 4), generation.to_be_bytes());
                io.send(k, Block::from(vec![5; 10]), 4);
                if generation % 3 == 1 {
                    let sent = wait_for(&mut io, &mut done, |d| matches!(d, Done::Sent { .. }), |d| d);
                    assert!(matches!(sent, Done::Sent { result: Ok(6), .. }));
                }
                io.close(k);
            }
            wait_closed(&mut io, &mut done, k);
            assert!(done.is_empty(), "{done:?}");
        }
        assert_quiet(&io);
    });
}

#[test]
fn pausing_holds_octets_back_and_receiving_brings_them() {
    on_every_rung(|mut io| {
        let mut done = VecDeque::new();
        let (ours, mut peer) = tcp_pair();
        let k = key(0, 0);
        io.adopt(k, ours).unwrap();
        io.receive(k);
        peer.write_all(b"one").unwrap();
        assert_eq!(read_exactly(&mut io, &mut done, k, 3), b"one");
        io.pause(k);
        let is_paused = |d: &Done| matches!(d, Done::ReceiveEnded { why: Ended::Cancelled, .. });
        wait_for(&mut io, &mut done, is_paused, drop);
        peer.write_all(b"two").unwrap();
        io.enter(Some(Duration::from_millis(30)), &mut done).unwrap();
        assert!(done.is_empty(), "{done:?}");
        io.receive(k);
        assert_eq!(read_exactly(&mut io, &mut done, k, 3), b"two");
        // Taken back before it took effect: nothing is said, receiving goes on.
        io.pause(k);
        io.receive(k);
        peer.write_all(b"three").unwrap();
        assert_eq!(read_exactly(&mut io, &mut done, k, 5), b"three");
        assert!(done.is_empty(), "{done:?}");
        close_and_wait(&mut io, &mut done, k);
        assert_quiet(&io);
    });
}

#[test]
fn an_end_from_the_peer_is_told_with_its_kind() {
    on_every_rung(|mut io| {
        let mut done = VecDeque::new();
        let is_end = |d: &Done| matches!(d, Done::ReceiveEnded { .. });
        // Octets, then FIN.
        let (ours, mut peer) = tcp_pair();
        io.adopt(key(0, 0), ours).unwrap();
        io.receive(key(0, 0));
        peer.write_all(b"bye").unwrap();
        drop(peer);
        assert_eq!(read_exactly(&mut io, &mut done, key(0, 0), 3), b"bye");
        let end = wait_for(&mut io, &mut done, is_end, |d| d);
        assert!(matches!(end, Done::ReceiveEnded { why: Ended::Eof, .. }), "{end:?}");
        // Reset: the peer closes with our octets unread.
        let (ours, peer) = tcp_pair();
        let k = key(1, 0);
        io.adopt(k, ours).unwrap();
        io.receive(k);
        io.send(k, Block::from(vec![1; 10]), 0);
        let sent = wait_for(&mut io, &mut done, |d| matches!(d, Done::Sent { .. }), |d| d);
        assert!(matches!(sent, Done::Sent { result: Ok(10), .. }), "{sent:?}");
        peer.set_nonblocking(false).unwrap();
        let mut one = [0; 1];
        (&peer).read_exact(&mut one).unwrap(); // they did arrive
        drop(peer);
        let end = wait_for(&mut io, &mut done, is_end, |d| d);
        let Done::ReceiveEnded { why: Ended::Error(error), .. } = end else { panic!("{end:?}") };
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        io.send(k, Block::from(vec![1; 10]), 0);
        let sent = wait_for(&mut io, &mut done, |d| matches!(d, Done::Sent { .. }), |d| d);
        assert!(matches!(sent, Done::Sent { result: Err(_), .. }), "{sent:?}");
        close_and_wait(&mut io, &mut done, key(0, 0));
        close_and_wait(&mut io, &mut done, k);
        assert_quiet(&io);
    });
}

#[test]
fn finish_says_fin_and_reset_says_rst() {
    on_every_rung(|mut io| {
        let mut done = VecDeque::new();
        let (ours, mut peer) = tcp_pair();
        let k = key(0, 0);
        io.adopt(k, ours).unwrap();
        io.receive(k);
        io.finish(k);
        let mut rest = Vec::new();
        peer.read_to_end(&mut rest).unwrap();
        assert!(rest.is_empty());
        peer.write_all(b"still heard").unwrap();
        assert_eq!(read_exactly(&mut io, &mut done, k, 11), b"still heard");
        close_and_wait(&mut io, &mut done, k);

        let (ours, mut peer) = tcp_pair();
        let k = key(0, 1);
        io.adopt(k, ours).unwrap();
        io.receive(k);
        io.quick_ack(k);
        io.reset(k);
        wait_closed(&mut io, &mut done, k);
        let error = peer.read_to_end(&mut rest).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert_quiet(&io);
    });
}

#[test]
fn connecting_succeeds_fails_and_is_cancelled() {
    on_every_rung(|mut io| {
        let mut done = VecDeque::new();
        let is_connected = |d: &Done| matches!(d, Done::Connected { .. });
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let k = key(4, 1);
        io.connect(k, address).unwrap();
        let connected = wait_for(&mut io, &mut done, is_connected, |d| d);
        assert!(matches!(connected, Done::Connected { result: Ok(()), .. }), "{connected:?}");
        let (mut peer, _) = listener.accept().unwrap();
        io.receive(k);
        io.send(k, Block::from(b"ping".to_vec()), 0);
        wait_for(&mut io, &mut done, |d| matches!(d, Done::Sent { .. }), drop);
        let mut ping = [0; 4];
        peer.read_exact(&mut ping).unwrap();
        peer.write_all(b"pong").unwrap();
        assert_eq!(read_exactly(&mut io, &mut done, k, 4), b"pong");
        close_and_wait(&mut io, &mut done, k);
        drop(listener);
        let k = key(4, 2);
        io.connect(k, address).unwrap();
        let connected = wait_for(&mut io, &mut done, is_connected, |d| d);
        let Done::Connected { result: Err(error), .. } = connected else { panic!("{connected:?}") };
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        close_and_wait(&mut io, &mut done, k);
        // Whoever listens with a full queue answers nobody: the owner's deadline closes.
        let full = std::net::TcpListener::from(bind(loopback(), 0).unwrap());
        let address = full.local_addr().unwrap();
        let _first = TcpStream::connect(address).unwrap();
        let k = key(4, 3);
        io.connect(k, address).unwrap();
        io.enter(Some(Duration::from_millis(5)), &mut done).unwrap();
        assert!(done.is_empty(), "{done:?}");
        close_and_wait(&mut io, &mut done, k);
        assert!(done.is_empty(), "{done:?}");
        assert_quiet(&io);
    });
}

#[test]
fn accepting_stops_when_asked_and_the_door_is_shut() {
    on_every_rung(|mut io| {
        let mut done = VecDeque::new();
        let socket = bind(loopback(), 16).unwrap();
        let address = std::net::TcpListener::from(socket.try_clone().unwrap()).local_addr().unwrap();
        io.listen(0, socket);
        let is_accepted = |d: &Done| matches!(d, Done::Accepted { listener: 0, .. });
        for _ in 0..3 {
            let _peer = TcpStream::connect(address).unwrap();
            wait_for(&mut io, &mut done, is_accepted, drop);
        }
        io.unlisten(0);
        io.enter(Some(Duration::ZERO), &mut done).unwrap();
        io.enter(Some(Duration::ZERO), &mut done).unwrap();
        let error = TcpStream::connect(address).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        // And the number can be used again.
        io.listen(0, bind(address, 16).unwrap());
        let _peer = TcpStream::connect(address).unwrap();
        wait_for(&mut io, &mut done, is_accepted, drop);
        io.unlisten(0);
        assert_quiet(&io);
    });
}

#[test]
fn wakers_and_timeouts_end_the_wait() {
    on_every_rung(|mut io| {
        let mut done = VecDeque::new();
        let start = Instant::now();
        io.enter(Some(Duration::from_millis(30)), &mut done).unwrap();
        assert!(start.elapsed() >= Duration::from_millis(29), "{:?}", start.elapsed());
        assert!(done.is_empty());
        for round in 0..3 {
            let waker = io.waker();
            let thread = thread::spawn(move || {
                thread::sleep(Duration::from_millis(20));
                waker.wake();
                waker.wake();
            });
            let start = Instant::now();
            while !done.iter().any(|d| matches!(d, Done::Woken)) {
                io.enter(None, &mut done).unwrap();
            }
            assert!(start.elapsed() < Duration::from_secs(5), "round {round}");
            thread.join().unwrap();
            io.enter(Some(Duration::ZERO), &mut done).unwrap();
            done.clear();
        }
        io.enter(Some(Duration::from_millis(5)), &mut done).unwrap();
        assert!(done.is_empty(), "a wake is said once: {done:?}");
    });
}

#[test]
fn overflowing_queues_lose_nothing_and_mix_nothing_up() {
    let crowded =
        |options| IoOptions { ring_entries: 4, cq_entries: 8, recv_buf_count: 4, recv_buf_octets: 2048, ..options };
    on_every_rung_with(crowded, |io| {
        let mut echo = Echo::new(io);
        let mut peers = Vec::new();
        for seed in 1..=48_u64 {
            let (ours, peer) = tcp_pair();
            peer.set_nodelay(true).unwrap();
            peer.set_nonblocking(true).unwrap();
            echo.adopt(ours);
            peers.push((peer, Dice(seed * 7919), Vec::new(), Vec::new()));
        }
        // All write before anything is taken, so that completions crowd.
        for _ in 0..30 {
            for (peer, dice, sent, _) in &mut peers {
                let count = 1 + dice.below(3000);
                let octets = dice.octets(count);
                let taken = peer.write(&octets).unwrap_or(0);
                sent.extend_from_slice(&octets[..taken]);
            }
            echo.turn(Duration::ZERO);
        }
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut room = [0; 4096];
        while peers.iter().any(|(_, _, sent, back)| back.len() < sent.len()) {
            assert!(Instant::now() < deadline, "echo hangs: {:?}", echo.io.counters());
            echo.turn(Duration::from_millis(1));
            for (peer, _, sent, back) in &mut peers {
                if let Ok(count) = peer.read(&mut room) {
                    back.extend_from_slice(&room[..count]);
                    assert!(sent.starts_with(back), "octets of another peer, or out of order");
                }
            }
        }
        let count = peers.len();
        drop(peers);
        while echo.ended < count {
            assert!(Instant::now() < deadline, "{} of {count} ended", echo.ended);
            echo.turn(Duration::from_millis(10));
        }
        assert_quiet(&echo.io);
        let counters = echo.io.counters();
        eprintln!("{counters:?}");
        if counters.sq_full > 0 {
            // The rings: the crowd was real.
            assert!(counters.cq_overflow > 0, "{counters:?}");
        }
    });
}

#[test]
fn calls_for_a_key_that_is_closing_or_gone_do_nothing() {
    on_every_rung(|mut io| {
        let mut done = VecDeque::new();
        let (ours, mut peer) = tcp_pair();
        let k = key(1, 1);
        io.adopt(k, ours).unwrap();
        io.receive(k);
        io.enter(Some(Duration::ZERO), &mut done).unwrap();
        let call_all = |io: &mut slimline_node::io::Engine| {
            io.receive(k);
            io.pause(k);
            io.finish(k);
            io.quick_ack(k);
            io.close(k);
            io.reset(k);
            io.send(k, Block::from(vec![1; 8]), 3);
        };
        io.close(k);
        call_all(&mut io);
        let sent = wait_for(&mut io, &mut done, |d| matches!(d, Done::Sent { .. }), |d| d);
        assert!(matches!(&sent, Done::Sent { result: Err(_), block, .. } if block.len() == 8), "{sent:?}");
        wait_for(&mut io, &mut done, |d| matches!(d, Done::Closed { .. }), drop);
        call_all(&mut io);
        let sent = wait_for(&mut io, &mut done, |d| matches!(d, Done::Sent { .. }), |d| d);
        assert!(matches!(sent, Done::Sent { result: Err(_), .. }), "{sent:?}");
        // The next life of the slot is not touched by calls for the last one.
        let (ours, mut next_peer) = tcp_pair();
        io.adopt(key(1, 2), ours).unwrap();
        io.receive(key(1, 2));
        call_all(&mut io);
        next_peer.write_all(b"here").unwrap();
        assert_eq!(read_exactly(&mut io, &mut done, key(1, 2), 4), b"here");
        let mut rest = Vec::new();
        peer.read_to_end(&mut rest).unwrap();
        assert!(rest.is_empty());
        done.retain(|d| !matches!(d, Done::Sent { .. }));
        close_and_wait(&mut io, &mut done, key(1, 2));
        assert!(done.is_empty(), "{done:?}");
        assert_quiet(&io);
    });
}

#[test]
fn an_engine_that_goes_away_closes_everything_it_had() {
    on_every_rung(|mut io| {
        let mut done = VecDeque::new();
        let socket = bind(loopback(), 16).unwrap();
        let address = std::net::TcpListener::from(socket.try_clone().unwrap()).local_addr().unwrap();
        io.listen(0, socket);
        let mut peers = Vec::new();
        for slot in 0..20 {
            let (ours, peer) = UnixStream::pair().unwrap();
            io.adopt(key(slot, 1), ours.into()).unwrap();
            io.receive(key(slot, 1));
            io.send(key(slot, 1), Block::from(vec![1; 1_000_000]), 0); // more than the socket holds: stays in flight
            peers.push(peer);
        }
        io.enter(Some(Duration::from_millis(10)), &mut done).unwrap();
        (&peers[0]).write_all(b"unheard").unwrap();
        drop(done);
        drop(io);
        for mut peer in peers {
            let mut rest = Vec::new();
            let _ = peer.read_to_end(&mut rest); // ends, with or without an error
            assert!(!rest.is_empty());
        }
        assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    });
}
