//! The socket under the connection: no Nagle, and acknowledgements at once.
//!
//! A reliable message is a small write each way; with Nagle at one end and delayed acknowledgements at the other each of
//! them waits 40 ms. TCP_QUICKACK does not stick, so it is set again after every read (slim-wire §10.1).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::TcpKeepalive;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::ConnectError;

/// Where an endpoint text leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Tcp { authority: String, secure: bool, web: bool },
    Unix(String),
}

impl Target {
    pub(super) fn read(endpoint: &str) -> Result<Self, ConnectError> {
        if let Some(path) = endpoint.strip_prefix("unix:") {
            return Ok(Self::Unix(path.strip_prefix("//").unwrap_or(path).to_owned()));
        }
        let (scheme, rest) = endpoint.split_once("://").unwrap_or(("http", endpoint));
        let (secure, web) = match scheme {
            "http" => (false, false),
            "https" => (true, false),
            "ws" => (false, true),
            "wss" => (true, true),
            _ => return Err(ConnectError::Endpoint(endpoint.to_owned())),
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let host_and_port = authority.rsplit_once(':');
        let port = host_and_port.and_then(|(host, port)| port.parse::<u16>().ok().filter(|_| !host.is_empty()));
        if port.is_none() || !(web || path.is_empty()) {
            return Err(ConnectError::Endpoint(endpoint.to_owned()));
        }
        Ok(Self::Tcp { authority: authority.to_owned(), secure, web })
    }

    pub(super) fn scheme(&self) -> &'static str {
        if self.is_secure() { "https" } else { "http" }
    }

    pub(super) fn is_secure(&self) -> bool {
        matches!(self, Self::Tcp { secure: true, .. })
    }

    pub(super) fn is_web(&self) -> bool {
        matches!(self, Self::Tcp { web: true, .. })
    }

    pub(super) fn authority(&self) -> &str {
        match self {
            Self::Tcp { authority, .. } => authority,
            Self::Unix(_) => "localhost",
        }
    }

    /// `keepalive`: how long the connection may be idle before the kernel probes it.
    pub(super) async fn connect(&self, keepalive: Option<Duration>) -> io::Result<Socket> {
        match self {
            Self::Tcp { authority, .. } => {
                let stream = TcpStream::connect(authority.as_str()).await?;
                stream.set_nodelay(true)?;
                if let Some(idle) = keepalive {
                    socket2::SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(idle))?;
                }
                Ok(Socket::Tcp(stream))
            }
            Self::Unix(path) => Ok(Socket::Unix(UnixStream::connect(path).await?)),
        }
    }
}

/// A connected socket.
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => {
                let before = buf.filled().len();
                let poll = Pin::new(&mut *stream).poll_read(cx, buf);
                if buf.filled().len() > before {
                    // Slower without it, not wrong: a kernel that refuses is let be.
                    let _ = socket2::SockRef::from(&*stream).set_tcp_quickack(true);
                }
                poll
            }
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, octets),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, octets),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn neither_end_waits_for_the_other() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target::read(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let mut socket = target.connect(Some(Duration::from_secs(7))).await.unwrap();
        let (mut peer, _) = listener.accept().await.unwrap();
        for _ in 0..3 {
            if let Socket::Tcp(stream) = &socket {
                // The kernel takes quick acknowledgements back by itself: as if it had.
                socket2::SockRef::from(stream).set_tcp_quickack(false).unwrap();
            }
            peer.write_all(b"ping").await.unwrap();
            socket.read_exact(&mut [0; 4]).await.unwrap();
            let Socket::Tcp(stream) = &socket else { panic!("TCP was asked for") };
            let options = socket2::SockRef::from(stream);
            assert!(options.tcp_nodelay().unwrap() && options.tcp_quickack().unwrap());
            assert!(options.keepalive().unwrap() && options.tcp_keepalive_time().unwrap() == Duration::from_secs(7));
        }
    }

    #[test]
    fn endpoints() {
        let tcp = |text: &str, secure, web| Ok(Target::Tcp { authority: text.to_owned(), secure, web });
        assert_eq!(Target::read("http://127.0.0.1:46357"), tcp("127.0.0.1:46357", false, false));
        assert_eq!(Target::read("localhost:1/"), tcp("localhost:1", false, false));
        assert_eq!(Target::read("https://host:443"), tcp("host:443", true, false));
        assert_eq!(Target::read("http://[::1]:80"), tcp("[::1]:80", false, false));
        assert_eq!(Target::read("ws://host:80/path"), tcp("host:80", false, true));
        assert_eq!(Target::read("wss://host:443"), tcp("host:443", true, true));
        assert_eq!(Target::read("unix:///tmp/node"), Ok(Target::Unix("/tmp/node".into())));
        for bad in ["", "http://", "localhost", ":80", "ftp://host:1", "http://host:99999", "http://host:1/path"] {
            assert!(Target::read(bad).is_err(), "{bad}");
        }
    }
}
