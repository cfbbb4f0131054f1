//! Whether a header section is a well-formed HTTP message. Source: RFC 9113 §8.

use super::FieldList;

/// Reason of the stream error for a header list over [`Limits::header_list_octets_max`]; a server may answer 431
/// before it resets.
///
/// [`Limits::header_list_octets_max`]: super::Limits::header_list_octets_max
pub const HEADER_LIST_TOO_LONG: &str = "header_list_octets_max: header list too long";

/// Why a message is malformed; a stream error of PROTOCOL_ERROR (RFC 9113 §8.1.1).
pub(super) type Malformed = &'static str;

/// What a first header section says about the rest of its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Opening {
    /// Octets of DATA announced by content-length.
    pub(super) content_length: Option<u64>,
    /// A response: its status. Zero in a request.
    pub(super) status: u16,
}

/// Checks a request. Source: RFC 9113 §8.2, §8.3.1, §8.5.
pub(super) fn request(list: &FieldList) -> Result<Opening, Malformed> {
    let (mut method, mut scheme, mut path, mut authority) = (None, None, None, None);
    let content_length = walk(list, |name, value| {
        let seen = match name {
            b":method" => &mut method,
            b":scheme" => &mut scheme,
            b":path" => &mut path,
            b":authority" => &mut authority,
            _ => return Err("unknown pseudo-header in a request"),
        };
        if seen.replace(value).is_some() { Err("pseudo-header repeated") } else { Ok(()) }
    })?;
    let method = method.ok_or("request without :method")?;
    if !is_token(method) {
        return Err(":method is not a token");
    }
    if authority.is_some_and(|authority| !is_authority(authority)) {
        return Err(":authority with user information or octets a URI cannot have");
    }
    let host = list.fields().get("host");
    if let (Some(authority), Some(host)) = (authority, host)
        && !is_same_host(authority, host, scheme)
    {
        return Err("host differs from :authority");
    }
    if method == b"CONNECT" {
        return match (scheme, path, authority) {
            (None, None, Some(_)) => Ok(Opening { content_length, status: 0 }),
            _ => Err("CONNECT needs :authority and neither :scheme nor :path"),
        };
    }
    let scheme = scheme.ok_or("request without :scheme")?;
    if !scheme.first().is_some_and(u8::is_ascii_alphabetic)
        || !scheme.iter().all(|c| c.is_ascii_alphanumeric() || b"+-.".contains(c))
    {
        return Err(":scheme is not a URI scheme");
    }
    let path = path.ok_or("request without :path")?;
    let is_rooted = path.first() == Some(&b'/') || (path == b"*" && method == b"OPTIONS");
    if !is_rooted && matches!(scheme, b"http" | b"https") || path.is_empty() {
        return Err(":path is empty or does not start with a slash");
    }
    if !path.iter().all(|c| (0x21..0x7f).contains(c) || *c >= 0x80) {
        return Err(":path with a space or control octet");
    }
    Ok(Opening { content_length, status: 0 })
}

/// Checks a response, final or interim. Source: RFC 9113 §8.2, §8.3.2, §8.6.
pub(super) fn response(list: &FieldList) -> Result<Opening, Malformed> {
    let mut status = None;
    let content_length = walk(list, |name, value| match name {
        b":status" if status.replace(value).is_some() => Err("pseudo-header repeated"),
        b":status" => Ok(()),
        _ => Err("unknown pseudo-header in a response"),
    })?;
    let &[a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9'] = status.ok_or("response without :status")? else {
        return Err(":status is not a three-digit number");
    };
    let status = u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0');
    if status == 101 {
        return Err("101 does not exist in HTTP/2");
    }
    Ok(Opening { content_length, status })
}

/// Checks a trailer section: no pseudo-headers. Source: RFC 9113 §8.1.
pub(super) fn trailers(list: &FieldList) -> Result<(), Malformed> {
    walk(list, |_, _| Err("pseudo-header in trailers")).map(|_| ())
}

/// Checks what holds for every section and hands pseudo-headers to `pseudo`; returns content-length.
fn walk<'r>(
    list: &'r FieldList,
    mut pseudo: impl FnMut(&'r [u8], &'r [u8]) -> Result<(), Malformed>,
) -> Result<Option<u64>, Malformed> {
    let mut content_length = None;
    let mut pseudo_over = false;
    for (name, value) in list.fields().iter() {
        check_value(value)?;
        if name.first() == Some(&b':') {
            if pseudo_over {
                return Err("pseudo-header after a regular field");
            }
            pseudo(name, value)?;
            continue;
        }
        pseudo_over = true;
        check_name(name)?;
        match name {
            b"connection" | b"proxy-connection" | b"keep-alive" | b"transfer-encoding" | b"upgrade" => {
                return Err("connection-specific field");
            }
            b"te" if !value.eq_ignore_ascii_case(b"trailers") => return Err("te other than trailers"),
            b"content-length" => {
                let length = decimal(value).ok_or("content-length is not a number")?;
                if content_length.replace(length).is_some_and(|earlier| earlier != length) {
                    return Err("content-length repeated with another value");
                }
            }
            _ => {}
        }
    }
    Ok(content_length)
}

/// Source: RFC 9113 §8.2.1: visible ASCII without upper-case letters and, beyond a pseudo-header's first octet, colons.
fn check_name(name: &[u8]) -> Result<(), Malformed> {
    let is_fine = |c: &u8| matches!(c, 0x21..=0x7e) && !c.is_ascii_uppercase() && *c != b':';
    if name.is_empty() {
        Err("empty field name")
    } else if name.iter().any(u8::is_ascii_uppercase) {
        Err("field name with an upper-case letter")
    } else if name.iter().all(is_fine) {
        Ok(())
    } else {
        Err("field name with an octet it cannot have")
    }
}

/// Source: RFC 9113 §8.2.1: no NUL, LF or CR, and no blank at either end.
fn check_value(value: &[u8]) -> Result<(), Malformed> {
    let is_blank = |c: Option<&u8>| matches!(c, Some(b' ' | b'\t'));
    if value.iter().any(|c| matches!(c, 0 | b'\n' | b'\r')) {
        Err("field value with NUL, CR or LF")
    } else if is_blank(value.first()) || is_blank(value.last()) {
        Err("field value with a blank at its end")
    } else {
        Ok(())
    }
}

/// Source: RFC 9110 §5.6.2.
fn is_token(octets: &[u8]) -> bool {
    !octets.is_empty() && octets.iter().all(|c| c.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(c))
}

/// Host and port, without user information. Source: RFC 9113 §8.3.1.
fn is_authority(octets: &[u8]) -> bool {
    octets.iter().all(|c| matches!(c, 0x21..=0x7e) && !b"@/?#\\".contains(c))
}

/// Whether both name one entity: letters of any case, the scheme's own port said or left out. Source: RFC 9113 §8.3.1.
fn is_same_host(authority: &[u8], host: &[u8], scheme: Option<&[u8]>) -> bool {
    let port: &[u8] = match scheme {
        Some(b"http") => b":80",
        Some(b"https") => b":443",
        _ => b"",
    };
    let bare = |octets| -> &[u8] { <[u8]>::strip_suffix(octets, port).unwrap_or(octets) };
    bare(authority).eq_ignore_ascii_case(bare(host))
}

/// Source: RFC 9110 §8.6.
fn decimal(octets: &[u8]) -> Option<u64> {
    if octets.is_empty() {
        return None;
    }
    octets.iter().try_fold(0u64, |value, c| {
        let digit = c.is_ascii_digit().then(|| u64::from(c - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> FieldList {
        let mut list = FieldList::new(16_384);
        for field in text.split('|').filter(|field| !field.is_empty()) {
            let (name, value) = field.split_once('=').unwrap();
            list.push(name.as_bytes(), value.as_bytes());
        }
        list
    }

    const GET: &str = ":method=GET|:scheme=http|:path=/|:authority=a:1";

    /// Each row: what is added to a good GET, and whether it stays good.
    #[test]
    #[rustfmt::skip]
    fn regular_fields() {
        for (fields, is_good) in [
            ("", true), ("x=y", true), ("te=trailers", true), ("content-length=5|content-length=5", true), ("x=", true),
            ("X=y", false), ("x y=z", false), ("x:y=z", false), ("=z", false), ("x\u{7f}=z", false), ("é=z", false),
            ("x= y", false), ("x=y\t", false), ("x=a\nb", false), ("x=a\0b", false), ("x=a\rb", false),
            ("connection=close", false), ("proxy-connection=x", false), ("keep-alive=5", false),
            ("transfer-encoding=chunked", false), ("upgrade=h2c", false), ("te=gzip", false), ("te=trailers, gzip", false),
            ("content-length=", false), ("content-length=-1", false), ("content-length=5|content-length=6", false),
            ("content-length=99999999999999999999", false), ("x=y|:path=/", false), (":path=/", false), (":status=200", false),
            (":protocol=websocket", false), ("host=A:1", true), ("host=b:1", false), ("host=a", false),
        ] {
            assert_eq!(request(&list(&format!("{GET}|{fields}"))).is_ok(), is_good, "{fields}");
        }
    }

    #[test]
    #[rustfmt::skip]
    fn request_lines() {
        for (fields, is_good) in [
            (":method=GET|:scheme=http|:path=/", true), (":method=OPTIONS|:scheme=https|:path=*", true),
            (":method=CONNECT|:authority=a:1", true), (":method=GET|:scheme=coap|:path=x", true),
            (":scheme=http|:path=/", false), (":method=GET|:path=/", false), (":method=GET|:scheme=http", false),
            (":method=GET|:scheme=http|:path=", false), (":method=GET|:scheme=http|:path=x", false),
            (":method=GET|:scheme=http|:path=*", false), (":method=GET|:scheme=http|:path=/a b", false),
            (":method=G T|:scheme=http|:path=/", false), (":method=|:scheme=http|:path=/", false),
            (":method=GET|:scheme=1http|:path=/", false), (":method=GET|:scheme=http|:path=/|:authority=u@a", false),
            (":method=GET|:scheme=http|:path=/|:authority=a|host=a:80", true), (":method=GET|:scheme=http|:path=/|host=a", true),
            (":method=CONNECT|:authority=a:1|:path=/", false), (":method=CONNECT", false),
        ] {
            assert_eq!(request(&list(fields)).is_ok(), is_good, "{fields}");
        }
    }

    #[test]
    fn responses_and_trailers() {
        assert_eq!(
            response(&list(":status=200|content-length=7")).map(|o| (o.status, o.content_length)),
            Ok((200, Some(7)))
        );
        for bad in
            ["", ":status=99", ":status=2000", ":status=abc", ":status=101", ":status=200|:status=200", ":path=/"]
        {
            assert!(response(&list(bad)).is_err(), "{bad}");
        }
        assert!(trailers(&list("grpc-status=0")).is_ok());
        assert!(trailers(&list("grpc-status=0|:status=200")).is_err());
        assert!(trailers(&list(":status=200")).is_err());
    }
}
