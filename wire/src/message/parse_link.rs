//! Links and acks: the messages without a SLIM header.

use super::check::{Seen, unknown};
use super::fields::{self, length, varint};
use super::view::{Ack, LinkNegotiation};
use crate::error::WireError;
use crate::name::ConnType;
use crate::proto::Walk;

pub(super) fn link(octets: &[u8]) -> Result<LinkNegotiation<'_>, WireError> {
    const WITHIN: &str = "Link";
    let mut negotiation = None;
    let mut walk = Walk::new(octets, WITHIN);
    while !walk.is_done() {
        let key = walk.key()?;
        if key == length(fields::link::NEGOTIATION) {
            if negotiation.is_some() {
                return Err(WireError::SecondChoice { within: WITHIN, field: fields::link::NEGOTIATION });
            }
            negotiation = Some(link_negotiation(walk.octets()?)?);
        } else {
            walk = unknown(walk, key, fields::link::NEGOTIATION, WITHIN, 1)?;
        }
    }
    negotiation.ok_or(WireError::NoNegotiation)
}

fn link_negotiation(octets: &[u8]) -> Result<LinkNegotiation<'_>, WireError> {
    use fields::link as number;
    const WITHIN: &str = "LinkNegotiationPayload";
    let mut link = LinkNegotiation {
        link_id: "",
        slim_version: "",
        is_reply: false,
        ecdh_public_key: &[],
        connection_type: ConnType::Remote,
        node_id: "",
        deployment_name: "",
        kem_payload: None,
    };
    let mut seen = Seen::new(WITHIN);
    let mut walk = Walk::new(octets, WITHIN);
    while !walk.is_done() {
        let key = walk.key()?;
        let field = key >> 3;
        let is_varint = matches!(field, number::IS_REPLY | number::CONNECTION_TYPE);
        if field > number::LAST || key != if is_varint { varint(field) } else { length(field) } {
            walk = unknown(walk, key, number::LAST, WITHIN, 2)?;
            continue;
        }
        seen.once(field)?;
        match field {
            number::LINK_ID => link.link_id = walk.string(field)?,
            number::SLIM_VERSION => link.slim_version = walk.string(field)?,
            number::IS_REPLY => link.is_reply = walk.varint()? != 0,
            number::ECDH_PUBLIC_KEY => link.ecdh_public_key = walk.octets()?,
            number::CONNECTION_TYPE => link.connection_type = ConnType::from_wire(walk.varint_u32()?),
            number::NODE_ID => link.node_id = walk.string(field)?,
            number::DEPLOYMENT_NAME => link.deployment_name = walk.string(field)?,
            _ => link.kem_payload = Some(walk.octets()?),
        }
    }
    Ok(link)
}

pub(super) fn ack(octets: &[u8]) -> Result<Ack<'_>, WireError> {
    const WITHIN: &str = "SubscriptionAck";
    let mut ack = Ack { subscription_id: 0, success: false, error: "" };
    let mut seen = Seen::new(WITHIN);
    let mut walk = Walk::new(octets, WITHIN);
    while !walk.is_done() {
        let key = walk.key()?;
        match key {
            ACK_ID => {
                seen.once(fields::ack::SUBSCRIPTION_ID)?;
                ack.subscription_id = walk.varint()?;
            }
            ACK_SUCCESS => {
                seen.once(fields::ack::SUCCESS)?;
                ack.success = walk.varint()? != 0;
            }
            ACK_ERROR => {
                seen.once(fields::ack::ERROR)?;
                ack.error = walk.string(fields::ack::ERROR)?;
            }
            _ => walk = unknown(walk, key, fields::ack::ERROR, WITHIN, 1)?,
        }
    }
    Ok(ack)
}

const ACK_ID: u32 = varint(fields::ack::SUBSCRIPTION_ID);
const ACK_SUCCESS: u32 = varint(fields::ack::SUCCESS);
const ACK_ERROR: u32 = length(fields::ack::ERROR);
