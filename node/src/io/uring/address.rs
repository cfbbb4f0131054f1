//! A socket address in the kernel's layout.

use std::net::SocketAddr;

use libc::{sockaddr, sockaddr_in, sockaddr_in6, socklen_t};

/// An address that can stay in place while the kernel reads it.
pub(super) enum Address {
    V4(sockaddr_in),
    V6(sockaddr_in6),
}

impl Address {
    /// Where it lies and how many octets it has; valid while it is neither moved nor dropped.
    pub(super) fn as_kernel(&self) -> (*const sockaddr, socklen_t) {
        match self {
            Self::V4(address) => ((&raw const *address).cast(), V4_OCTETS),
            Self::V6(address) => ((&raw const *address).cast(), V6_OCTETS),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        match address {
            SocketAddr::V4(address) => Self::V4(sockaddr_in {
                sin_family: INET,
                sin_port: address.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.ip().octets()) },
                sin_zero: [0; 8],
            }),
            SocketAddr::V6(address) => Self::V6(sockaddr_in6 {
                sin6_family: INET6,
                sin6_port: address.port().to_be(),
                sin6_flowinfo: address.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: address.ip().octets() },
                sin6_scope_id: address.scope_id(),
            }),
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "small constants, checked below")]
const INET: libc::sa_family_t = libc::AF_INET as libc::sa_family_t;
#[expect(clippy::cast_possible_truncation, reason = "small constants, checked below")]
const INET6: libc::sa_family_t = libc::AF_INET6 as libc::sa_family_t;
const _: () = assert!(libc::AF_INET < 256 && libc::AF_INET6 < 256);
const V4_OCTETS: socklen_t = 16;
const V6_OCTETS: socklen_t = 28;
const _: () = assert!(size_of::<sockaddr_in>() == 16 && size_of::<sockaddr_in6>() == 28);
