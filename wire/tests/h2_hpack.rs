//! The examples of RFC 7541, and blocks that are wrong on purpose.

use slimline_wire::h2::FieldList;
use slimline_wire::h2::hpack::{Decoder, HpackError};

fn octets(hex: &str) -> Vec<u8> {
    let digits: Vec<char> = hex.chars().filter(|c| !c.is_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap()).collect()
}

/// Decodes one block and writes its fields as `name: value` lines.
fn decoded(decoder: &mut Decoder, block: &[u8]) -> Result<String, HpackError> {
    let mut list = FieldList::new(16_384);
    decoder.decode(block, &mut list)?;
    let text = |octets: &[u8]| String::from_utf8(octets.to_vec()).unwrap();
    Ok(list.fields().iter().map(|(name, value)| format!("{}: {}\n", text(name), text(value))).collect())
}

#[track_caller]
fn check(decoder: &mut Decoder, hex: &str, fields: &[&str]) {
    let expected: String = fields.iter().map(|field| format!("{field}\n")).collect();
    assert_eq!(decoded(decoder, &octets(hex)).unwrap(), expected);
}

/// Source: RFC 7541 §C.2.
#[test]
fn c2_representations() {
    let literal = "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572";
    check(&mut Decoder::new(), literal, &["custom-key: custom-header"]);
    check(&mut Decoder::new(), "040c 2f73 616d 706c 652f 7061 7468", &[":path: /sample/path"]);
    check(&mut Decoder::new(), "1008 7061 7373 776f 7264 0673 6563 7265 74", &["password: secret"]);
    check(&mut Decoder::new(), "82", &[":method: GET"]);
}

const REQUESTS: [&[&str]; 3] = [
    &[":method: GET", ":scheme: http", ":path: /", ":authority: www.example.com"],
    &[":method: GET", ":scheme: http", ":path: /", ":authority: www.example.com", "cache-control: no-cache"],
    &[
        ":method: GET",
        ":scheme: https",
        ":path: /index.html",
        ":authority: www.example.com",
        "custom-key: custom-value",
    ],
];

/// Source: RFC 7541 §C.3, §C.4: three requests of one connection, without and with Huffman coding.
#[test]
fn c3_c4_requests() {
    for blocks in [
        [
            "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
            "8286 84be 5808 6e6f 2d63 6163 6865",
            "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
        ],
        [
            "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
            "8286 84be 5886 a8eb 1064 9cbf",
            "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
        ],
    ] {
        let mut decoder = Decoder::new();
        for (block, fields) in blocks.into_iter().zip(REQUESTS) {
            check(&mut decoder, block, fields);
        }
    }
}

/// Source: RFC 7541 §C.5, §C.6: three responses, with a table of 256 octets that has to evict.
#[test]
fn c5_c6_responses() {
    let (date_21, date_22) = ("date: Mon, 21 Oct 2013 20:13:21 GMT", "date: Mon, 21 Oct 2013 20:13:22 GMT");
    let location = "location: https://www.example.com";
    let cookie = "set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1";
    let responses: [&[&str]; 3] = [
        &[":status: 302", "cache-control: private", date_21, location],
        &[":status: 307", "cache-control: private", date_21, location],
        &[":status: 200", "cache-control: private", date_22, location, "content-encoding: gzip", cookie],
    ];
    for blocks in [
        [
            "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133
             2032 303a 3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70
             6c65 2e63 6f6d",
            "4803 3330 37c1 c0bf",
            "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d
             54c0 5a04 677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049
             5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e
             3d31",
        ],
        [
            "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6
             2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
            "4883 640e ffc1 c0bf",
            "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab
             77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f
             9587 3160 65c0 03ed 4ee5 b106 3d50 07",
        ],
    ] {
        let mut decoder = Decoder::new();
        for (at, (block, fields)) in blocks.into_iter().zip(responses).enumerate() {
            let size_update = if at == 0 { "3fe101" } else { "" }; // 256
            check(&mut decoder, &format!("{size_update}{block}"), fields);
        }
    }
}

/// Each row: a first block that is wrong, and how.
#[test]
#[rustfmt::skip]
fn what_is_wrong_is_refused() {
    use HpackError::{Huffman, Index, IntegerTooLarge, SizeUpdate, Truncated};
    for (hex, error) in [
        ("80", Index),                   // index 0 (§6.1)
        ("be", Index),                   // 62, and the dynamic table is empty (§2.3.3)
        ("ffffffffff07", Index),
        ("ffffffffff7f", IntegerTooLarge),
        ("7f", Truncated),
        ("00", Truncated), ("0001", Truncated), ("000161", Truncated), ("00016105 61", Truncated),
        ("8220", SizeUpdate),            // after a field (§4.2)
        ("202020 82", SizeUpdate),       // a third one
        ("3fe21f 82", SizeUpdate),       // 4097, and we allow 4096 (§6.3)
        ("0084 ffffffff 00", Huffman),   // EOS (§5.2)
        ("0081 ff 00", Huffman),         // padding of eight bits
        ("0082 1fff 00", Huffman),       // padding of eleven
        ("0081 18 00", Huffman),         // padding that is not ones
    ] {
        assert_eq!(decoded(&mut Decoder::new(), &octets(hex)), Err(error), "{hex}");
    }
    check(&mut Decoder::new(), "203fe11f 82", &[":method: GET"]); // two updates: the smallest, then the last
}

/// A list over its limit is cut and said to be; the table goes on, so the next block decodes.
#[test]
fn a_list_too_long_costs_no_state() {
    let (mut decoder, mut list) = (Decoder::new(), FieldList::new(100));
    let mut block = octets("4001 6103 626262"); // a: bbb, remembered
    block.extend([0xbe; 10]);
    block.extend(octets("4001 6301 64")); // c: d, remembered
    decoder.decode(&block, &mut list).unwrap();
    assert!(list.is_too_long());
    assert_eq!(list.fields().len(), 2, "2 × (4 + 32) fit into 100");
    assert_eq!(decoded(&mut decoder, &octets("be bf")).unwrap(), "c: d\na: bbb\n");
}

/// One octet per repetition of a 4 KiB field: after eight times the limit it is no accident.
#[test]
fn a_bomb_ends_decoding() {
    let (mut decoder, mut list) = (Decoder::new(), FieldList::new(16_384));
    let mut block = vec![0x40, 1, b'a', 0x7f, 0x81, 0x1e]; // value of 4000 octets
    block.extend([b'x'; 4000]);
    block.extend([0xbe; 16_000]);
    assert_eq!(decoder.decode(&block, &mut list), Err(HpackError::Bomb));
}
