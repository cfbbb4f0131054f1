//! How long the parts of a message may be.

use super::view::{Header, LinkNegotiation, MessageView};
use super::{HEADER_OCTETS_MAX, IDENTITY_OCTETS_MAX, LINK_STRING_OCTETS_MAX, NAME_COMPONENT_OCTETS_MAX};
use crate::error::WireError;

/// The longest parts a reader takes.
///
/// Units:  octets.
/// Source: SLIM bounds none of them; ours are what no application reaches (slim-wire §8), and an operator's to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The SLIM header, everything in it counted.
    pub header_octets_max: usize,
    /// The identity token.
    pub identity_octets_max: usize,
    /// One component of a name, as text.
    pub name_component_octets_max: usize,
    /// Each string of a link negotiation.
    pub link_text_octets_max: usize,
}

impl Bounds {
    /// What is taken unless somebody says otherwise.
    pub const DEFAULT: Self = Self {
        header_octets_max: HEADER_OCTETS_MAX,
        identity_octets_max: IDENTITY_OCTETS_MAX,
        name_component_octets_max: NAME_COMPONENT_OCTETS_MAX,
        link_text_octets_max: LINK_STRING_OCTETS_MAX,
    };

    /// Everything: for a message that was taken before.
    pub const NONE: Self = Self {
        header_octets_max: usize::MAX,
        identity_octets_max: usize::MAX,
        name_component_octets_max: usize::MAX,
        link_text_octets_max: usize::MAX,
    };

    /// Whether every part of a message is within its bound.
    #[inline]
    pub(super) fn check(&self, view: &MessageView<'_>) -> Result<(), WireError> {
        match view {
            MessageView::Publish(publish) => self.header(&publish.header),
            MessageView::Subscribe(request) | MessageView::Unsubscribe(request) => self.header(&request.header),
            MessageView::Link(link) => self.link(link),
            MessageView::SubscriptionAck(_) => Ok(()),
        }
    }

    #[inline]
    fn header(&self, header: &Header<'_>) -> Result<(), WireError> {
        if header.octets() <= self.identity_octets_max.min(self.name_component_octets_max).min(self.header_octets_max) {
            return Ok(()); // no part is longer than the whole
        }
        let too_long = |length: usize, limit: usize| (length > limit).then_some((length, limit));
        if let Some((length, limit)) = too_long(header.octets(), self.header_octets_max) {
            return Err(WireError::HeaderTooLong { length, limit });
        }
        if let Some((length, limit)) = too_long(header.identity.len(), self.identity_octets_max) {
            return Err(WireError::IdentityTooLong { length, limit });
        }
        for component in [header.source.text, header.destination.text].into_iter().flatten().flatten() {
            if let Some((length, limit)) = too_long(component.len(), self.name_component_octets_max) {
                return Err(WireError::NameComponentTooLong { length, limit });
            }
        }
        Ok(())
    }

    fn link(&self, link: &LinkNegotiation<'_>) -> Result<(), WireError> {
        use super::fields::link as number;
        let limit = self.link_text_octets_max;
        let texts = [
            (number::LINK_ID, link.link_id),
            (number::SLIM_VERSION, link.slim_version),
            (number::NODE_ID, link.node_id),
            (number::DEPLOYMENT_NAME, link.deployment_name),
        ];
        match texts.iter().find(|(_, text)| text.len() > limit) {
            Some(&(field, text)) => Err(WireError::LinkStringTooLong { field, length: text.len(), limit }),
            None => Ok(()),
        }
    }
}

impl Default for Bounds {
    fn default() -> Self {
        Self::DEFAULT
    }
}
