//! §8 Expressing HTTP Semantics in HTTP/2: what makes a request malformed.

use slimline_wire::h2::{Kind, flag};
use slimline_wire::testing::dialogue::{Field, block};

use crate::{PROTOCOL, open};

/// §8.1: malformed requests cost their stream, PROTOCOL_ERROR, and nothing else.
#[track_caller]
fn check(fields: &[Field<'_>]) {
    let mut dialogue = open();
    dialogue.say(Kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, &block(fields));
    dialogue.expect_reset(1, PROTOCOL);
    dialogue.expect_alive();
}

const GET: [Field<'_>; 4] = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "localhost")];

#[track_caller]
fn check_get_and(more: &[Field<'_>]) {
    check(&[&GET, more].concat());
}

/// §8.2: names in lower case, no octet a name or value cannot have.
#[test]
fn names_and_values_are_valid() {
    check_get_and(&[("X-Upper", "a")]);
    check_get_and(&[("x test", "a")]);
    check_get_and(&[("x:y", "a")]);
    check_get_and(&[("", "a")]);
    check_get_and(&[("x-null", "a\0b")]);
    check_get_and(&[("x-line", "a\r\nb: c")]);
    check_get_and(&[("x-blank", " a")]);
    check_get_and(&[("x-blank", "a ")]);
}

/// §8.2.2: connection-specific fields do not exist; `te` says trailers or nothing.
#[test]
fn connection_specific_fields_are_malformed() {
    for name in ["connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade"] {
        check_get_and(&[(name, "keep-alive")]);
    }
    check_get_and(&[("te", "trailers, deflate")]);
    let mut dialogue = open();
    dialogue.say_request(1, flag::END_STREAM, &[("te", "trailers")]);
    dialogue.expect_answer(1);
}

/// §8.3: pseudo-headers known, of a request, once, before the others.
#[test]
fn pseudo_headers_are_in_order() {
    check_get_and(&[(":test", "a")]);
    check_get_and(&[(":status", "200")]);
    check_get_and(&[(":path", "/")]);
    check(&[GET[0], GET[1], ("x", "y"), GET[2], GET[3]]);
}

/// §8.3.1: method, scheme and path, each exactly once; the path is not empty.
#[test]
fn a_request_has_method_scheme_and_path() {
    check(&[GET[1], GET[2], GET[3]]);
    check(&[GET[0], GET[2], GET[3]]);
    check(&[GET[0], GET[1], GET[3]]);
    check(&[GET[0], GET[1], (":path", ""), GET[3]]);
    check(&[(":method", "GET"), GET[0], GET[1], GET[2]]);
    check(&[(":scheme", "http"), GET[0], GET[1], GET[2]]);
}

/// §8.3.1: a host field that names another entity than :authority makes a request malformed.
#[test]
fn host_is_the_authority() {
    check_get_and(&[("host", "elsewhere")]);
    let mut dialogue = open();
    dialogue.say_request(1, flag::END_STREAM, &[("host", "localhost")]);
    dialogue.expect_answer(1);
}

/// §8.5: CONNECT has neither scheme nor path.
#[test]
fn connect_has_an_authority_only() {
    check(&[(":method", "CONNECT"), (":scheme", "http"), (":path", "/"), (":authority", "a:1")]);
    check(&[(":method", "CONNECT")]);
}

/// §8.1.1: content-length is the number of DATA octets.
#[test]
fn content_length_is_met() {
    let mut dialogue = open();
    dialogue.say_request(1, 0, &[("content-length", "1")]);
    dialogue.say(Kind::DATA, flag::END_STREAM, 1, b"test");
    dialogue.expect_reset(1, PROTOCOL);

    dialogue.say_request(3, 0, &[("content-length", "10")]);
    dialogue.say(Kind::DATA, 0, 3, b"test");
    dialogue.say(Kind::DATA, flag::END_STREAM, 3, b"test");
    dialogue.expect_reset(3, PROTOCOL);

    dialogue.say_request(5, flag::END_STREAM, &[("content-length", "1")]);
    dialogue.expect_reset(5, PROTOCOL);

    dialogue.say_request(7, 0, &[("content-length", "5")]);
    dialogue.say(Kind::DATA, 0, 7, b"four");
    dialogue.say(Kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 7, &block(&[("a", "b")]));
    dialogue.expect_reset(7, PROTOCOL);

    dialogue.say_request(9, 0, &[("content-length", "8")]);
    dialogue.say(Kind::DATA, flag::PADDED, 9, &[1, b'f', b'o', b'u', b'r', 0]);
    dialogue.say(Kind::DATA, flag::END_STREAM, 9, b"more");
    dialogue.expect_answer(9);
}

/// §8.1: a second HEADERS is the trailers, which end the stream and have no pseudo-headers.
#[test]
fn trailers_end_the_request() {
    let mut dialogue = open();
    dialogue.say_request(1, 0, &[]);
    dialogue.say(Kind::HEADERS, flag::END_HEADERS, 1, &block(&[("x-trailer", "ok")]));
    dialogue.expect_reset(1, PROTOCOL);

    dialogue.say_request(3, 0, &[]);
    dialogue.say(Kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 3, &block(&[(":method", "GET")]));
    dialogue.expect_reset(3, PROTOCOL);

    dialogue.say_request(5, 0, &[]);
    dialogue.say(Kind::DATA, 0, 5, b"x");
    dialogue.say(Kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 5, &block(&[("x-trailer", "ok")]));
    dialogue.expect_answer(5);
}
