//! What is signed and authenticated end to end: the header, and the payload of control messages.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message as _;
use slimline_wire::pb;

use crate::error::{IdentityError, IntegrityError};
use crate::identity::{self, Binding, Claims, Provider, UnixSeconds, Verifier, key};
use crate::name::{Name, app_id};

/// Metadata key that carries the payload signature.
pub const PAYLOAD_SIGNATURE_KEY: &str = "slim-payload-sig";
/// Metadata key in which the reference tells its application the verified sender; never believed from the wire.
pub const PEER_SUBJECT_KEY: &str = "slim-peer-subject";
/// Metadata that nodes may change on the way, so it is not signed.
const UNSIGNED_KEYS: [&str; 5] = ["traceparent", "tracestate", "baggage", PAYLOAD_SIGNATURE_KEY, PEER_SUBJECT_KEY];

/// A sender that proved who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The source name of the message.
    pub source: Name,
    /// What its token claims.
    pub claims: Claims,
}

/// Whether messages of this kind are signed (session message types 5 to 20).
#[must_use]
pub fn is_control(kind: pb::SessionMessageType) -> bool {
    (5..=20).contains(&(kind as i32))
}

/// The octets that MLS authenticates and the header signature covers.
///
/// Shape:  protobuf `HeaderIntegrityAad`; fanout, ttl, metadata and payload are not in it.
/// Errors: a message without header, session or names.
/// Source: slim-session §1.6; vector in Annex A.
pub fn aad(publish: &pb::Publish) -> Result<Vec<u8>, IntegrityError> {
    let header = publish.header.as_ref().ok_or(IntegrityError::Missing("header"))?;
    let session = publish.session.as_ref().ok_or(IntegrityError::Missing("session header"))?;
    let payload_type = match publish.msg.as_ref().and_then(|content| content.content_type.as_ref()) {
        Some(pb::content::ContentType::AppPayload(payload)) => payload.payload_type.clone(),
        _ => String::new(),
    };
    let aad = pb::HeaderIntegrityAad {
        version: 1,
        source: Some(header.source.clone().ok_or(IntegrityError::Missing("source"))?),
        destination: Some(header.destination.clone().ok_or(IntegrityError::Missing("destination"))?),
        identity: header.identity.clone(),
        session_type: session.session_type,
        session_message_type: session.session_message_type,
        session_id: session.session_id,
        message_id: session.message_id,
        payload_type,
    };
    Ok(aad.encode_to_vec())
}

/// The octets the payload signature covers.
///
/// Shape:  `slim-payload-v1`, then u64-length-prefixed (big-endian): AAD, Content, and each signed metadata key and value.
/// Source: slim-session §1.7; vector in Annex A.
#[must_use]
pub fn payload_input(aad: &[u8], message: &pb::Message) -> Vec<u8> {
    let content = match &message.message_type {
        Some(pb::message::MessageType::Publish(publish)) => {
            publish.msg.as_ref().map(prost::Message::encode_to_vec).unwrap_or_default()
        }
        _ => Vec::new(),
    };
    let mut input = b"slim-payload-v1".to_vec();
    let mut item = |octets: &[u8]| {
        input.extend_from_slice(&(octets.len() as u64).to_be_bytes());
        input.extend_from_slice(octets);
    };
    item(aad);
    item(&content);
    for (key, value) in message.metadata.iter().filter(|(key, _)| !UNSIGNED_KEYS.contains(&key.as_str())) {
        item(key.as_bytes());
        item(value.as_bytes());
    }
    input
}

/// Signs a control message: header signature, then payload signature; everything else must be final.
///
/// Errors: an identity without a key.
pub fn sign(message: &mut pb::Message, provider: &dyn Provider) -> Result<(), IntegrityError> {
    let key = provider.signing_key().ok_or(IdentityError::NoKey)?;
    let Some(pb::message::MessageType::Publish(publish)) = &mut message.message_type else {
        return Err(IntegrityError::Missing("publish"));
    };
    let aad = aad(publish)?;
    let header = publish.header.as_mut().ok_or(IntegrityError::Missing("header"))?;
    header.e2e_header_sig = Some(key.sign(&aad)?);
    let signature = key.sign(&payload_input(&aad, message))?;
    message.metadata.insert(PAYLOAD_SIGNATURE_KEY.to_owned(), STANDARD.encode(signature));
    Ok(())
}

/// Checks token, both signatures, and that the source name belongs to the identity.
///
/// The payload signature and the name binding may fail in [`Binding::Warn`] (with a warning) and are not looked at in
/// [`Binding::Off`]; a payload signature that is present must verify in either case but the last.
pub fn verify(
    message: &pb::Message,
    verifier: &dyn Verifier,
    binding: Binding,
    now: UnixSeconds,
) -> Result<Verified, IntegrityError> {
    let Some(pb::message::MessageType::Publish(publish)) = &message.message_type else {
        return Err(IntegrityError::Missing("publish"));
    };
    let header = publish.header.as_ref().ok_or(IntegrityError::Missing("header"))?;
    let source = Name::from_wire(header.source.as_ref().ok_or(IntegrityError::Missing("source"))?)?;
    identity::check_length(&header.identity)?;
    let claims = verifier.verify(&header.identity, now)?;
    let public_key = claims.public_key.as_deref().ok_or(IdentityError::NoKey)?;
    let signature = header.e2e_header_sig.as_deref().ok_or(IntegrityError::Missing("header signature"))?;
    let aad = aad(publish)?;
    if !key::verify(public_key, &aad, signature) {
        return Err(IntegrityError::HeaderSignature);
    }
    let mismatch = |error: IntegrityError| match binding {
        Binding::Enforce => Err(error),
        Binding::Warn => {
            tracing::warn!(%error, source = ?source, "let through: identity binding is warn");
            Ok(())
        }
        Binding::Off => Ok(()),
    };
    match message.metadata.get(PAYLOAD_SIGNATURE_KEY) {
        Some(text) => {
            let signature = STANDARD.decode(text).map_err(|_| IntegrityError::PayloadSignature)?;
            if binding != Binding::Off && !key::verify(public_key, &payload_input(&aad, message), &signature) {
                return Err(IntegrityError::PayloadSignature);
            }
        }
        None => mismatch(IntegrityError::Missing("payload signature"))?,
    }
    if source.id() != app_id(&claims.subject) {
        mismatch(IntegrityError::NameAndIdentity(claims.subject.clone()))?;
    }
    Ok(Verified { source, claims })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::SharedSecret;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";
    const TOKEN: &str = "acme/ns/alice_AbCdEfGh:1700000000:AAECAwQFBgcICQoL:eyJwdWJrZXkiOiJCQUFCQWdNRUJRWUhDQWtLQ3d3TkRnOFFFUklURkJVV0Z4Z1pHaHNjSFI0ZklDRWlJeVFsSmljb0tTb3JMQzB1THpBeE1qTTBOVFkzT0RrNk96dzlQajg9In0:C8ukVWMxEZjhhGZDVm0sLM-9efoXc89GII3U5r14OGA";

    fn sha256(octets: &[u8]) -> Vec<u8> {
        aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, octets).as_ref().to_vec()
    }

    fn hex(octets: &[u8]) -> String {
        octets.iter().map(|octet| format!("{octet:02x}")).collect()
    }

    fn discovery(identity: &str, subject: &str) -> pb::Message {
        use pb::command_payload::CommandPayloadType::DiscoveryRequest;
        let alice = "acme/ns/alice".parse::<Name>().unwrap().with_id(app_id(subject));
        let bob: Name = "acme/ns/bob".parse().unwrap();
        let publish = pb::Publish {
            header: Some(pb::SlimHeader {
                source: Some(alice.to_wire()),
                destination: Some(bob.to_wire()),
                identity: identity.to_owned(),
                fanout: 1,
                version: "0.1.0".into(),
                ttl: 8,
                ..Default::default()
            }),
            session: Some(pb::SessionHeader {
                session_type: pb::SessionType::PointToPoint.into(),
                session_message_type: pb::SessionMessageType::DiscoveryRequest.into(),
                session_id: 1234,
                message_id: 5678,
            }),
            msg: Some(pb::Content {
                content_type: Some(pb::content::ContentType::CommandPayload(pb::CommandPayload {
                    command_payload_type: Some(DiscoveryRequest(pb::DiscoveryRequestPayload {})),
                })),
            }),
        };
        pb::Message {
            metadata: [("k1", "v1"), ("traceparent", "x")].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            message_type: Some(pb::message::MessageType::Publish(publish)),
        }
    }

    fn publish(message: &mut pb::Message) -> &mut pb::Publish {
        let Some(pb::message::MessageType::Publish(publish)) = &mut message.message_type else { unreachable!() };
        publish
    }

    #[test]
    fn the_golden_discovery_request() {
        let mut message = discovery(TOKEN, "acme/ns/alice_AbCdEfGh");
        let aad = aad(publish(&mut message)).unwrap();
        assert_eq!(aad.len(), 401);
        assert_eq!(hex(&sha256(&aad)), "fa6c68691cece843f50f5b6b90ff7dc32d848e7f5f104db0139783ab70b88c97");
        let input = payload_input(&aad, &message);
        assert_eq!(input.len(), 456);
        assert_eq!(hex(&sha256(&input)), "dc966ee6a60014279f24c838771d92589af9241bc5da4a8c48d4c4e57c9f0591");
    }

    /// The golden signature of the golden AAD, by the key whose 32 octets are 07.
    #[test]
    fn the_golden_signature_verifies() {
        let golden = "3045022100a2b1ad2c1e27899af2d8c89e3c77ca9b3c7b5e5a4a7e4ff36d6a3cadf44e204402201a06792f804c52bfabce9c27e274aa85818747073ef83afdec4e48d2292af724";
        let golden: Vec<u8> =
            (0..golden.len()).step_by(2).map(|i| u8::from_str_radix(&golden[i..i + 2], 16).unwrap()).collect();
        let private =
            aws_lc_rs::agreement::PrivateKey::from_private_key(&aws_lc_rs::agreement::ECDH_P256, &[7; 32]).unwrap();
        let public = private.compute_public_key().unwrap();
        let aad = aad(publish(&mut discovery(TOKEN, "acme/ns/alice_AbCdEfGh"))).unwrap();
        assert!(key::verify(public.as_ref(), &aad, &golden));
    }

    #[test]
    fn what_was_signed_verifies_and_any_change_is_seen() {
        let alice = SharedSecret::new("acme/ns/alice", SECRET).unwrap();
        let signed = || {
            let mut message = discovery(&alice.token(100).unwrap(), alice.subject());
            sign(&mut message, &alice).unwrap();
            message
        };
        let check = |message: &pb::Message, binding| verify(message, &alice, binding, 100);
        assert_eq!(check(&signed(), Binding::Enforce).unwrap().claims.subject, alice.subject());

        let mut message = signed();
        message.metadata.insert("traceparent".into(), "another span".into());
        assert!(check(&message, Binding::Enforce).is_ok(), "nodes may change tracing metadata");
        message.metadata.insert("k1".into(), "v2".into());
        assert_eq!(check(&message, Binding::Warn), Err(IntegrityError::PayloadSignature));

        let mut message = signed();
        publish(&mut message).session.as_mut().unwrap().message_id += 1;
        assert_eq!(check(&message, Binding::Off), Err(IntegrityError::HeaderSignature));

        let mut message = signed();
        message.metadata.remove(PAYLOAD_SIGNATURE_KEY);
        assert_eq!(check(&message, Binding::Enforce), Err(IntegrityError::Missing("payload signature")));
        assert!(check(&message, Binding::Warn).is_ok());

        let mut message = discovery(&alice.token(100).unwrap(), "somebody else");
        sign(&mut message, &alice).unwrap();
        assert!(matches!(check(&message, Binding::Enforce), Err(IntegrityError::NameAndIdentity(_))));
        assert!(check(&message, Binding::Warn).is_ok());
    }
}
