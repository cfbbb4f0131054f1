//! How a node ends a stream: the status that gRPC puts behind it.

use std::fmt;

use http::HeaderMap;

/// What is kept of a node's words.
const MESSAGE_CHARS_MAX: usize = 512;
/// The code that ends it for good: whoever gets it does not come again.
const PERMISSION_DENIED: u32 = 7;

/// The status a node ended our stream with; never 0, which is a plain end.
///
/// Shape:  a number and the node's own words, at most 512 characters, control characters replaced.
/// Source: gRPC over HTTP/2, `grpc-status` and `grpc-message`; slim-config §6 on what is final.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcStatus {
    /// The code, 1 to 16 as gRPC defines them.
    pub code: u32,
    /// What the node said with it.
    pub message: String,
}

impl GrpcStatus {
    /// Reads a response's headers or its trailers; `None` for no status, or for 0.
    pub(super) fn read(headers: &HeaderMap) -> Option<Self> {
        let code = headers.get("grpc-status")?.to_str().ok().and_then(|code| code.parse().ok()).unwrap_or(2);
        let message = headers.get("grpc-message").map_or_else(String::new, |text| decoded(text.as_bytes()));
        (code != 0).then_some(Self { code, message })
    }

    /// The code's name in gRPC, such as `UNAUTHENTICATED`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        const NAMES: [&str; 17] = [
            "OK",
            "CANCELLED",
            "UNKNOWN",
            "INVALID_ARGUMENT",
            "DEADLINE_EXCEEDED",
            "NOT_FOUND",
            "ALREADY_EXISTS",
            "PERMISSION_DENIED",
            "RESOURCE_EXHAUSTED",
            "FAILED_PRECONDITION",
            "ABORTED",
            "OUT_OF_RANGE",
            "UNIMPLEMENTED",
            "INTERNAL",
            "UNAVAILABLE",
            "DATA_LOSS",
            "UNAUTHENTICATED",
        ];
        usize::try_from(self.code).ok().and_then(|code| NAMES.get(code)).copied().unwrap_or("of no known code")
    }

    /// Whether coming again is pointless: the node will not have us.
    #[must_use]
    pub fn is_final(&self) -> bool {
        self.code == PERMISSION_DENIED
    }

    fn advice(&self) -> &'static str {
        match self.code {
            7 => "; the node does not allow us in: ask its operator",
            8 => "; a limit of the node is reached: fewer or smaller messages, or another node",
            12 => "; the address is not that of a SLIM node",
            14 => "; the node is going or overloaded: try again later",
            16 => "; credentials for the node are missing, wrong or have ended: see `headers` and `auth`",
            _ => "",
        }
    }
}

impl fmt::Display for GrpcStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name(), self.code)?;
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        f.write_str(self.advice())
    }
}

/// Undoes gRPC's percent-encoding; what cannot be shown is replaced.
fn decoded(text: &[u8]) -> String {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, behind @ ..] = rest {
        let hex = behind.first_chunk::<2>().and_then(|two| std::str::from_utf8(two).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()).filter(|_| *first == b'%') {
            Some(octet) => {
                octets.push(octet);
                rest = &behind[2..];
            }
            None => {
                octets.push(*first);
                rest = behind;
            }
        }
    }
    let text = String::from_utf8_lossy(&octets);
    text.chars().take(MESSAGE_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(status: &str, message: &'static str) -> Option<GrpcStatus> {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-status", status.parse().unwrap());
        headers.insert("grpc-message", http::HeaderValue::from_static(message));
        GrpcStatus::read(&headers)
    }

    #[test]
    fn statuses_are_read_and_told() {
        assert_eq!(GrpcStatus::read(&HeaderMap::new()), None);
        assert_eq!(read("0", "fine"), None);
        let refused = read("16", "token%20ended%0a%C3%BC 100% %zz %").unwrap();
        assert_eq!(refused.message, "token ended ü 100% %zz %");
        assert_eq!(refused.to_string().split(';').next(), Some("UNAUTHENTICATED (16): token ended ü 100% %zz %"));
        assert!(read("7", "").unwrap().is_final() && !refused.is_final());
        assert_eq!(read("not a number", "").unwrap().name(), "UNKNOWN");
        assert_eq!(read("4294967295", "").unwrap().name(), "of no known code");
    }
}
