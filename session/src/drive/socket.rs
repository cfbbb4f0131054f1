//! The socket under the connection: no Nagle, and acknowledgements at once.
//!
//! A reliable message is a small write each way; with Nagle at one end and delayed acknowledgements at the other each of
//! them waits 40 ms. TCP_QUICKACK does not stick, so it is set again after every read (slim-wire §10.1).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::ConnectError;

/// Where an endpoint text leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Tcp(String),
    Tls(String),
    Unix(String),
}

impl Target {
    pub(super) fn read(endpoint: &str) -> Result<Self, ConnectError> {
        if let Some(path) = endpoint.strip_prefix("unix://") {
            return Ok(Self::Unix(path.to_owned()));
        }
        let (secure, rest) = match endpoint.strip_prefix("https://") {
            Some(rest) => (true, rest),
            None => (false, endpoint.strip_prefix("http://").unwrap_or(endpoint)),
        };
        let authority = rest.trim_end_matches('/');
        let port =
            authority.rsplit_once(':').and_then(|(host, port)| port.parse::<u16>().ok().filter(|_| !host.is_empty()));
        if authority.contains('/') || port.is_none() {
            return Err(ConnectError::Endpoint(endpoint.to_owned()));
        }
        Ok(if secure { Self::Tls(authority.to_owned()) } else { Self::Tcp(authority.to_owned()) })
    }

    pub(super) fn scheme(&self) -> &'static str {
        if matches!(self, Self::Tls(_)) { "https" } else { "http" }
    }

    pub(super) fn authority(&self) -> &str {
        match self {
            Self::Tcp(authority) | Self::Tls(authority) => authority,
            Self::Unix(_) => "localhost",
        }
    }

    pub(super) async fn connect(&self) -> io::Result<Socket> {
        match self {
            Self::Tcp(authority) | Self::Tls(authority) => {
                let stream = TcpStream::connect(authority.as_str()).await?;
                stream.set_nodelay(true)?;
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
    use super::*;

    #[test]
    fn endpoints() {
        let tcp = |text: &str| Target::Tcp(text.to_owned());
        assert_eq!(Target::read("http://127.0.0.1:46357"), Ok(tcp("127.0.0.1:46357")));
        assert_eq!(Target::read("localhost:1/"), Ok(tcp("localhost:1")));
        assert_eq!(Target::read("https://host:443"), Ok(Target::Tls("host:443".into())));
        assert_eq!(Target::read("http://[::1]:80"), Ok(tcp("[::1]:80")));
        assert_eq!(Target::read("unix:///tmp/node"), Ok(Target::Unix("/tmp/node".into())));
        for bad in ["", "http://", "localhost", ":80", "ws://host:1", "http://host:99999", "http://host:1/path"] {
            assert!(Target::read(bad).is_err(), "{bad}");
        }
    }
}
