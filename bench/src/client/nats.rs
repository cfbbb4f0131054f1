//! The smallest NATS client that carries the same payloads: CONNECT, SUB, PUB, MSG, PING.
//!
//! Source: the NATS client protocol as its documentation states it (text lines, payload by length).

use super::{Happening, Publish};
use crate::payload::Stamp;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Nats {
    held: Vec<u8>,
    ready: bool,
    /// Subscriptions whose PONG is still out.
    awaiting: u32,
}

/// Longest control line we expect.
const LINE_OCTETS_MAX: usize = 64 * 1024;

impl Nats {
    /// Says who we are; INFO and the first PONG make us ready.
    pub(crate) fn start(out: &mut Vec<u8>) {
        out.extend_from_slice(b"CONNECT {\"verbose\":false,\"pedantic\":false,\"tls_required\":false,\"name\":\"slimload\",\"lang\":\"rust\",\"version\":\"0.1.0\",\"protocol\":1}\r\nPING\r\n");
    }

    /// Asks for a subject; a PING behind it is answered once the server has it.
    pub(crate) fn subscribe(&mut self, subject: &str, id: u32, out: &mut Vec<u8>) {
        self.awaiting += 1;
        out.extend_from_slice(format!("SUB {subject} {id}\r\nPING\r\n").as_bytes());
    }

    /// Writes one message.
    pub(crate) fn publish(&mut self, subject: &[u8], octets: u32, stamp: &Stamp, out: &mut Vec<u8>) -> Publish {
        let before = out.len();
        out.extend_from_slice(b"PUB ");
        out.extend_from_slice(subject);
        let mut digits = [0u8; 10];
        let mut at = digits.len();
        let mut rest = octets;
        loop {
            at -= 1;
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        out.push(b' ');
        out.extend_from_slice(&digits[at..]);
        out.extend_from_slice(b"\r\n");
        stamp.write(octets as usize, out);
        out.extend_from_slice(b"\r\n");
        Publish::Written(out.len() - before)
    }

    /// Reads what arrived.
    pub(crate) fn receive(
        &mut self,
        octets: &[u8],
        out: &mut Vec<u8>,
        tell: &mut dyn FnMut(Happening<'_>),
    ) -> Result<(), String> {
        if self.held.is_empty() {
            let taken = self.take(octets, out, tell)?;
            self.held.extend_from_slice(&octets[taken..]);
        } else {
            let mut held = std::mem::take(&mut self.held);
            held.extend_from_slice(octets);
            let taken = self.take(&held, out, tell)?;
            held.drain(..taken);
            self.held = held;
        }
        Ok(())
    }

    fn take(&mut self, input: &[u8], out: &mut Vec<u8>, tell: &mut dyn FnMut(Happening<'_>)) -> Result<usize, String> {
        let mut at = 0;
        while let Some(end) = input[at..].iter().take(LINE_OCTETS_MAX).position(|&octet| octet == b'\n') {
            let line = input[at..at + end].trim_ascii_end();
            let next = at + end + 1;
            if line.starts_with(b"MSG ") {
                let octets = line
                    .rsplit(|&octet| octet == b' ')
                    .next()
                    .and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<usize>().ok())
                    .ok_or_else(|| format!("a MSG line without a size: {}", String::from_utf8_lossy(line)))?;
                let Some(payload) = input.get(next..next + octets + 2) else { return Ok(at) };
                tell(Happening::Delivery { payload: &payload[..octets] });
                at = next + octets + 2;
                continue;
            }
            match line {
                b"PING" => out.extend_from_slice(b"PONG\r\n"),
                b"PONG" if !self.ready => {
                    self.ready = true;
                    tell(Happening::Ready);
                }
                b"PONG" if self.awaiting > 0 => {
                    self.awaiting -= 1;
                    tell(Happening::Subscribed);
                }
                _ if line.starts_with(b"-ERR") => return Err(String::from_utf8_lossy(line).into_owned()),
                _ if line.starts_with(b"INFO") || line.starts_with(b"+OK") || line == b"PONG" => {}
                _ => return Err(format!("unexpected line: {}", String::from_utf8_lossy(&line[..line.len().min(60)]))),
            }
            at = next;
        }
        Ok(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::Kind;

    #[test]
    fn a_dialogue_survives_any_cut() {
        let mut wire = b"INFO {\"max_payload\":1048576}\r\nPONG\r\nPONG\r\nPING\r\n".to_vec();
        let stamp = Stamp { run: 1, publisher: 0, name: 0, kind: Kind::Data, sequence: 3, intended_ns: 5 };
        let mut published = Vec::new();
        assert!(matches!(Nats::default().publish(b"a.b", 64, &stamp, &mut published), Publish::Written(_)));
        assert!(published.starts_with(b"PUB a.b 64\r\n") && published.ends_with(b"\r\n"));
        wire.extend_from_slice(b"MSG a.b 1 64\r\n");
        wire.extend_from_slice(&published[b"PUB a.b 64\r\n".len()..]);
        for cut in 0..wire.len() {
            let (mut nats, mut out, mut told) = (Nats::default(), Vec::new(), Vec::new());
            nats.subscribe("a.b", 1, &mut out);
            out.clear();
            for piece in [&wire[..cut], &wire[cut..]] {
                nats.receive(piece, &mut out, &mut |happening| {
                    told.push(match happening {
                        Happening::Ready => 'r',
                        Happening::Subscribed => 's',
                        Happening::Delivery { payload } if Stamp::read(payload, 1, true) == Ok(stamp) => 'd',
                        _ => '!',
                    });
                })
                .unwrap();
            }
            assert_eq!(
                (told.iter().collect::<String>().as_str(), out.as_slice()),
                ("rsd", &b"PONG\r\n"[..]),
                "cut at {cut}"
            );
        }
        let error = Nats::default().receive(b"HTTP/1.1 400 Bad Request\r\n", &mut Vec::new(), &mut |_| ());
        assert!(error.unwrap_err().contains("HTTP"));
    }
}
