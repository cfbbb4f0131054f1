//! The encrypted group of one session: who is in it, what is sealed for it, what it changes to.

use std::collections::BTreeMap;
use std::sync::Arc;

use openmls::prelude::{
    BasicCredential, Capabilities, Ciphersuite, Credential, CredentialType, CredentialWithKey, GroupId, KeyPackage,
    LeafNodeIndex, LeafNodeParameters, MIXED_PLAINTEXT_WIRE_FORMAT_POLICY, MlsGroup, MlsGroupCreateConfig,
    MlsGroupJoinConfig, MlsMessageBodyIn, MlsMessageIn, MlsMessageOut, OpenMlsProvider as _, ProcessedMessageContent,
    ProtocolVersion, SenderRatchetConfiguration, StagedCommit, StagedWelcome,
};
use slimline_wire::name::NameId;
use tls_codec::{DeserializeBytes as _, Serialize as _};

use super::provider::{Crypto, LeafSigner};
use super::storage::Provider as Store;
use crate::error::{IdentityError, MlsError};
use crate::identity::{self, Claims, Provider, SigningKey, UnixSeconds, Verifier};
use crate::name::app_id;
use crate::random;

/// Skipped keys a receiver keeps: the reference's figure.
const SKIPPED_MAX: u32 = 1024;
/// Generations a receiver goes forward at once. Going costs it some microseconds each, and no memory beyond the keys above.
const FORWARD_MAX: u32 = 16 * 1024;
/// Epochs whose messages can still be read.
const PAST_EPOCHS: u8 = 3;
/// Our own leaf is renewed this long before its token ends, or when a quarter of the token's life is left.
pub const RENEW_BEFORE_S: u64 = 600;
/// A member that has not renewed its leaf by then, or when an eighth of its token's life is left, does not know how.
pub const REINVITE_BEFORE_S: u64 = 300;

/// One session's MLS state.
///
/// A member's token is checked with its time when it is admitted, and never for its time again: the key stays the same,
/// and a session need not die with the token it began with.
/// Source: settings of slim-session §2.5; RFC 9420.
pub struct Group {
    pub(super) store: Store,
    pub(super) provider: Arc<dyn Provider>,
    pub(super) verifier: Arc<dyn Verifier>,
    pub(super) group: Option<MlsGroup>,
    /// By credential: everybody who is in the group, or was in an epoch that can still be read.
    pub(super) admitted: BTreeMap<Vec<u8>, Admitted>,
}

/// What is known of somebody who was let in.
#[derive(Clone)]
pub(super) struct Admitted {
    pub(super) subject: Arc<str>,
    /// From when to when its token is good.
    pub(super) issued: UnixSeconds,
    pub(super) expires: UnixSeconds,
    /// The last epoch that it was seen in.
    pub(super) epoch: u64,
}

impl Admitted {
    /// When that much of its token's time is left: seconds, or a part of its life where that is short.
    fn left_at(&self, seconds: u64, part: u64) -> UnixSeconds {
        self.expires.saturating_sub(seconds.min(self.expires.saturating_sub(self.issued) / part))
    }
}

/// A change the moderator made and applied already.
#[derive(Debug, PartialEq, Eq)]
pub struct Committed {
    /// For the members that were there before.
    pub commit: Vec<u8>,
    /// For whoever was added.
    pub welcome: Option<Vec<u8>>,
}

/// An application message that was opened.
#[derive(Debug, PartialEq, Eq)]
pub struct Opened {
    /// What was sealed.
    pub plaintext: Vec<u8>,
    /// What was authenticated beside it.
    pub aad: Vec<u8>,
    /// Who sealed it.
    pub subject: Arc<str>,
}

impl Group {
    /// No group yet: call [`Group::create`] or send a [`Group::key_package`] and [`Group::join`].
    ///
    /// Errors: an identity without a key.
    pub fn new(provider: Arc<dyn Provider>, verifier: Arc<dyn Verifier>) -> Result<Self, MlsError> {
        provider.signing_key().ok_or(IdentityError::NoKey)?;
        Ok(Self { store: Store::default(), provider, verifier, group: None, admitted: BTreeMap::new() })
    }

    fn key(&self) -> Result<&SigningKey, MlsError> {
        Ok(self.provider.signing_key().ok_or(IdentityError::NoKey)?)
    }

    fn suite(&self) -> Result<Ciphersuite, MlsError> {
        Ok(Crypto::suite_of(self.key()?.kind()))
    }

    fn capabilities(&self) -> Result<Capabilities, MlsError> {
        let suite = self.suite()?;
        Ok(Capabilities::new(
            Some(&[ProtocolVersion::Mls10]),
            Some(&[suite]),
            Some(&[]),
            Some(&[]),
            Some(&[CredentialType::Basic]),
        ))
    }

    /// A credential around a fresh token, and what it claims.
    fn credential(&self, now: UnixSeconds) -> Result<(CredentialWithKey, Claims), MlsError> {
        let token = self.provider.token(now)?;
        // Our own token may come from a clock that differs from `now` by nothing: read back for its end.
        let claims = self.verifier.verify(&token, now)?;
        let credential = CredentialWithKey {
            credential: BasicCredential::new(token.into_bytes()).into(),
            signature_key: self.key()?.public_key().into(),
        };
        Ok((credential, claims))
    }

    fn admit(&mut self, credential: &[u8], claims: &Claims) {
        let (issued, expires) = (claims.issued, claims.expires);
        let epoch = self.group.as_ref().map_or(0, |group| group.epoch().as_u64());
        let known = Admitted { subject: claims.subject.as_str().into(), issued, expires, epoch };
        self.admitted.insert(credential.to_vec(), known);
    }

    /// A new epoch began: those are forgotten who were in none that can still be read.
    fn forget_old(&mut self) {
        let Some(group) = &self.group else { return };
        let epoch = group.epoch().as_u64();
        for member in group.members() {
            if let Some(known) = self.admitted.get_mut(member.credential.serialized_content()) {
                known.epoch = epoch;
            }
        }
        self.admitted.retain(|_, known| known.epoch.saturating_add(PAST_EPOCHS.into()) >= epoch);
    }

    /// Checks that a credential is a token we believe, for the key its leaf has. `now` is given when it is being admitted.
    fn check(
        &self,
        credential: &Credential,
        key: &[u8],
        now: Option<UnixSeconds>,
    ) -> Result<(Vec<u8>, Claims), MlsError> {
        let token = token_of(credential)?;
        let text = std::str::from_utf8(&token).map_err(|_| IdentityError::Malformed("not UTF-8"))?;
        identity::check_length(text)?;
        let claims = match now {
            Some(now) => self.verifier.verify(text, now)?,
            None => self.verifier.verify_lapsed(text)?,
        };
        if claims.public_key.as_deref() != Some(key) {
            return Err(MlsError::KeyMismatch);
        }
        Ok((token, claims))
    }

    fn join_config() -> MlsGroupJoinConfig {
        MlsGroupJoinConfig::builder()
            .wire_format_policy(MIXED_PLAINTEXT_WIRE_FORMAT_POLICY)
            .use_ratchet_tree_extension(true)
            .max_past_epochs(PAST_EPOCHS.into())
            .sender_ratchet_configuration(SenderRatchetConfiguration::new(SKIPPED_MAX, FORWARD_MAX))
            .build()
    }

    /// Founds a group with ourselves as its only member.
    pub fn create(&mut self, now: UnixSeconds) -> Result<(), MlsError> {
        let config = MlsGroupCreateConfig::builder()
            .wire_format_policy(MIXED_PLAINTEXT_WIRE_FORMAT_POLICY)
            .use_ratchet_tree_extension(true)
            .max_past_epochs(PAST_EPOCHS.into())
            .sender_ratchet_configuration(SenderRatchetConfiguration::new(SKIPPED_MAX, FORWARD_MAX))
            .ciphersuite(self.suite()?)
            .capabilities(self.capabilities()?)
            .build();
        let (credential, claims) = self.credential(now)?;
        self.admit(credential.credential.serialized_content(), &claims);
        let id = GroupId::from_slice(&random::octets::<32>()?);
        let signer = LeafSigner(self.provider.signing_key().ok_or(IdentityError::NoKey)?);
        let group = MlsGroup::new_with_group_id(&self.store, &signer, &config, id, credential);
        self.group = Some(group.map_err(library("create the group"))?);
        Ok(())
    }

    /// A key package for whoever is to add us. Only the last one opens a welcome.
    pub fn key_package(&mut self, now: UnixSeconds) -> Result<Vec<u8>, MlsError> {
        let (credential, _) = self.credential(now)?;
        self.store.forget_key_packages();
        let bundle = KeyPackage::builder()
            .leaf_node_capabilities(self.capabilities()?)
            .build(self.suite()?, &self.store, &LeafSigner(self.key()?), credential)
            .map_err(library("make a key package"))?;
        octets(&MlsMessageOut::from(bundle.into_key_package()))
    }

    /// Reads and checks a key package: returns it with its owner's claims.
    fn read_key_package(&self, package: &[u8], now: UnixSeconds) -> Result<(KeyPackage, Claims), MlsError> {
        let MlsMessageBodyIn::KeyPackage(package) = read(package)? else { return Err(MlsError::Kind("a key package")) };
        let package =
            package.validate(self.store.crypto(), ProtocolVersion::Mls10).map_err(library("validate a key package"))?;
        if package.ciphersuite() != self.suite()? {
            return Err(MlsError::Kind("a key package of our cipher suite"));
        }
        let leaf = package.leaf_node();
        let (_, claims) = self.check(leaf.credential(), leaf.signature_key().as_slice(), Some(now))?;
        Ok((package, claims))
    }

    /// Whose key package this is, if it would be admitted.
    pub fn owner_of(&self, package: &[u8], now: UnixSeconds) -> Result<String, MlsError> {
        Ok(self.read_key_package(package, now)?.1.subject)
    }

    /// Adds the owner of a key package. The change is ours at once.
    pub fn add(&mut self, package: &[u8], now: UnixSeconds) -> Result<Committed, MlsError> {
        let (package, claims) = self.read_key_package(package, now)?;
        self.admit(package.leaf_node().credential().serialized_content(), &claims);
        self.commit(None, Some(package), None)
    }

    /// Removes the member of that subject.
    pub fn remove(&mut self, subject: &str) -> Result<Committed, MlsError> {
        let leaf = self.leaf_of(subject)?;
        self.commit(Some(leaf), None, None)
    }

    /// Removes a member and adds it again by a new key package, in one commit. The subject must stay the same.
    pub fn rejoin(&mut self, package: &[u8], now: UnixSeconds) -> Result<Committed, MlsError> {
        let (package, claims) = self.read_key_package(package, now)?;
        let leaf = self.leaf_of(&claims.subject)?;
        self.admit(package.leaf_node().credential().serialized_content(), &claims);
        self.commit(Some(leaf), Some(package), None)
    }

    /// Puts a fresh token into our own leaf.
    pub fn refresh(&mut self, now: UnixSeconds) -> Result<Committed, MlsError> {
        let (credential, claims) = self.credential(now)?;
        self.admit(credential.credential.serialized_content(), &claims);
        let leaf = LeafNodeParameters::builder().with_credential_with_key(credential).build();
        self.commit(None, None, Some(leaf))
    }

    fn commit(
        &mut self,
        remove: Option<LeafNodeIndex>,
        add: Option<KeyPackage>,
        own_leaf: Option<LeafNodeParameters>,
    ) -> Result<Committed, MlsError> {
        let signer = LeafSigner(self.provider.signing_key().ok_or(IdentityError::NoKey)?);
        let group = self.group.as_mut().ok_or(MlsError::NoGroup)?;
        let adds = add.is_some();
        let mut builder = group.commit_builder().propose_removals(remove).propose_adds(add);
        if let Some(leaf) = own_leaf {
            builder = builder.leaf_node_parameters(leaf).force_self_update(true);
        }
        let bundle = builder
            .load_psks(self.store.storage())
            .map_err(library("load keys"))?
            .build(self.store.rand(), self.store.crypto(), &signer, |_| true)
            .map_err(library("build a commit"))?
            .stage_commit(&self.store)
            .map_err(library("stage a commit"))?;
        let (commit, welcome, _) = bundle.into_messages();
        let committed = Committed {
            commit: octets(&commit)?,
            welcome: welcome.filter(|_| adds).map(|welcome| octets(&welcome)).transpose()?,
        };
        group.merge_pending_commit(&self.store).map_err(library("apply our commit"))?;
        self.forget_old();
        Ok(committed)
    }

    /// Joins (or joins again) by a welcome; every member's credential is checked first.
    pub fn join(&mut self, welcome: &[u8]) -> Result<(), MlsError> {
        let MlsMessageBodyIn::Welcome(welcome) = read(welcome)? else { return Err(MlsError::Kind("a welcome")) };
        let staged = StagedWelcome::build_from_welcome(&self.store, &Self::join_config(), welcome)
            .map_err(library("open the welcome"))?
            .replace_old_group()
            .skip_lifetime_validation()
            .build()
            .map_err(library("check the welcome"))?;
        let mut admitted = Vec::new();
        for member in staged.members() {
            admitted.push(self.check(&member.credential, &member.signature_key, None)?);
        }
        if let Some(mut before) = self.group.take() {
            before.delete(self.store.storage()).map_err(library("forget the group as it was"))?;
        }
        self.group = Some(staged.into_group(&self.store).map_err(library("join the group"))?);
        self.admitted.clear(); // earlier epochs cannot be read any more
        for (token, claims) in admitted {
            self.admit(&token, &claims);
        }
        Ok(())
    }

    /// Applies somebody else's commit. Returns false if it removed us.
    pub fn apply(&mut self, commit: &[u8], now: UnixSeconds) -> Result<bool, MlsError> {
        let message = read(commit)?;
        let group = self.group.as_mut().ok_or(MlsError::NoGroup)?;
        let protocol = match message {
            MlsMessageBodyIn::PublicMessage(message) => message.into(),
            MlsMessageBodyIn::PrivateMessage(message) => openmls::prelude::ProtocolMessage::from(message),
            _ => return Err(MlsError::Kind("a commit")),
        };
        let processed = group.process_message(&self.store, protocol).map_err(library("read a commit"))?;
        let committer = processed.credential().clone();
        let ProcessedMessageContent::StagedCommitMessage(staged) = processed.into_content() else {
            return Err(MlsError::Kind("a commit"));
        };
        let admitted = self.check_commit(&staged, &committer, now)?;
        let ours = !staged.self_removed();
        let group = self.group.as_mut().ok_or(MlsError::NoGroup)?;
        group.merge_staged_commit(&self.store, *staged).map_err(library("apply a commit"))?;
        for (token, claims) in admitted {
            self.admit(&token, &claims);
        }
        self.forget_old();
        Ok(ours)
    }

    /// Whatever token a commit brings in is checked with its time; a committer may renew its own, not its subject.
    fn check_commit(
        &self,
        staged: &StagedCommit,
        committer: &Credential,
        now: UnixSeconds,
    ) -> Result<Vec<(Vec<u8>, Claims)>, MlsError> {
        let mut admitted = Vec::new();
        for add in staged.add_proposals() {
            let leaf = add.add_proposal().key_package().leaf_node();
            admitted.push(self.check(leaf.credential(), leaf.signature_key().as_slice(), Some(now))?);
        }
        if let Some(leaf) = staged.update_path_leaf_node() {
            let time = (leaf.credential() != committer).then_some(now);
            let (token, claims) = self.check(leaf.credential(), leaf.signature_key().as_slice(), time)?;
            let before = self.subject_of(committer)?;
            if *before != *claims.subject {
                return Err(MlsError::Kind("the same subject as before"));
            }
            admitted.push((token, claims));
        }
        Ok(admitted)
    }

    /// Seals one application message.
    pub fn seal(&mut self, plaintext: &[u8], aad: Vec<u8>) -> Result<Vec<u8>, MlsError> {
        let signer = LeafSigner(self.provider.signing_key().ok_or(IdentityError::NoKey)?);
        let group = self.group.as_mut().ok_or(MlsError::NoGroup)?;
        group.set_aad(aad);
        octets(&group.create_message(&self.store, &signer, plaintext).map_err(library("encrypt"))?)
    }

    /// Opens one application message.
    ///
    /// Errors: not for this group, an epoch too old or not reached yet, opened before, or forged.
    pub fn open(&mut self, sealed: &[u8]) -> Result<Opened, MlsError> {
        self.open_since(sealed, 0)
    }

    /// Opens one application message unless it was sealed before that epoch: nothing is used up by one that was.
    ///
    /// Errors: as [`Group::open`]; [`MlsError::EarlierStay`].
    pub(crate) fn open_since(&mut self, sealed: &[u8], since: u64) -> Result<Opened, MlsError> {
        let MlsMessageBodyIn::PrivateMessage(message) = read(sealed)? else {
            return Err(MlsError::Kind("a private message"));
        };
        let epoch = message.epoch().as_u64();
        if epoch < since {
            return Err(MlsError::EarlierStay { epoch, since });
        }
        let group = self.group.as_mut().ok_or(MlsError::NoGroup)?;
        let processed = group.process_message(&self.store, message).map_err(library("decrypt"))?;
        let subject = self.subject_of(processed.credential())?;
        let aad = processed.aad().to_vec();
        let ProcessedMessageContent::ApplicationMessage(message) = processed.into_content() else {
            return Err(MlsError::Kind("an application message"));
        };
        Ok(Opened { plaintext: message.into_bytes(), aad, subject })
    }

    fn subject_of(&self, credential: &Credential) -> Result<Arc<str>, MlsError> {
        let known = self.admitted.get(credential.serialized_content());
        known.map(|known| known.subject.clone()).ok_or(MlsError::NoMember)
    }

    fn leaf_of(&self, subject: &str) -> Result<LeafNodeIndex, MlsError> {
        let group = self.group.as_ref().ok_or(MlsError::NoGroup)?;
        let mut members = group.members();
        let member = members.find(|member| {
            let known = self.admitted.get(member.credential.serialized_content());
            known.is_some_and(|known| *known.subject == *subject)
        });
        member.map(|member| member.index).ok_or(MlsError::NoMember)
    }

    /// The subjects of all members.
    #[must_use]
    pub fn members(&self) -> Vec<Arc<str>> {
        let members = self.group.iter().flat_map(MlsGroup::members);
        members.filter_map(|member| self.subject_of(&member.credential).ok()).collect()
    }

    /// The token in each member's leaf, by the id that its name has.
    pub(crate) fn tokens(&self) -> BTreeMap<NameId, Vec<u8>> {
        let members = self.group.iter().flat_map(MlsGroup::members);
        let known = members.filter_map(|member| {
            let subject = self.subject_of(&member.credential).ok()?;
            Some((app_id(&subject), member.credential.serialized_content().to_vec()))
        });
        known.collect()
    }

    /// The members, ourselves left out, whose leaf's token ends so soon that they would have renewed it if they could.
    #[must_use]
    pub fn ending(&self, now: UnixSeconds) -> Vec<Arc<str>> {
        let Some(group) = &self.group else { return Vec::new() };
        let others = group.members().filter(|member| member.index != group.own_leaf_index());
        let known = others.filter_map(|member| self.admitted.get(member.credential.serialized_content()));
        known.filter(|known| known.left_at(REINVITE_BEFORE_S, 8) <= now).map(|known| known.subject.clone()).collect()
    }

    /// When the token in that member's leaf ends.
    #[must_use]
    pub fn ends(&self, subject: &str) -> Option<UnixSeconds> {
        let mut members = self.group.iter().flat_map(MlsGroup::members);
        members.find_map(|member| {
            let known = self.admitted.get(member.credential.serialized_content())?;
            (*known.subject == *subject).then_some(known.expires)
        })
    }

    /// The epoch; `u64::MAX` while there is no group, as heartbeats say it.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.group.as_ref().map_or(u64::MAX, |group| group.epoch().as_u64())
    }

    /// Whether a group exists.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.group.is_some()
    }

    fn own_leaf(&self) -> Option<&Admitted> {
        self.admitted.get(self.group.as_ref()?.own_leaf_node()?.credential().serialized_content())
    }

    /// When the token in our own leaf ends.
    #[must_use]
    pub fn leaf_expires(&self) -> UnixSeconds {
        self.own_leaf().map_or(UnixSeconds::MAX, |leaf| leaf.expires)
    }

    /// Whether our own leaf nears its end, and we have a token that ends later.
    #[must_use]
    pub fn is_to_be_renewed(&self, now: UnixSeconds) -> bool {
        let Some(leaf) = self.own_leaf().filter(|leaf| leaf.left_at(RENEW_BEFORE_S, 4) <= now) else { return false };
        self.credential(now).is_ok_and(|(_, claims)| claims.expires > leaf.expires)
    }
}

fn token_of(credential: &Credential) -> Result<Vec<u8>, MlsError> {
    let basic = BasicCredential::try_from(credential.clone()).map_err(|_| MlsError::Kind("a basic credential"))?;
    Ok(basic.identity().to_vec())
}

fn read(octets: &[u8]) -> Result<MlsMessageBodyIn, MlsError> {
    Ok(MlsMessageIn::tls_deserialize_exact_bytes(octets).map_err(library("read an MLS message"))?.extract())
}

fn octets(message: &MlsMessageOut) -> Result<Vec<u8>, MlsError> {
    message.tls_serialize_detached().map_err(library("write an MLS message"))
}

fn library<E: std::fmt::Display>(what: &'static str) -> impl Fn(E) -> MlsError {
    move |error| MlsError::Library { what, why: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::SharedSecret;
    use crate::identity::key::KeyKind;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";
    const NOW: u64 = 1_000_000;

    struct Member {
        subject: String,
        group: Group,
    }

    fn member(kind: KeyKind, name: &str) -> Member {
        let subject = format!("acme/ns/{name}_12345678");
        let key = SigningKey::generate(kind).unwrap();
        let identity = Arc::new(SharedSecret::with_subject(subject.clone(), SECRET, key).unwrap());
        Member { subject, group: Group::new(identity.clone(), identity).unwrap() }
    }

    fn says(from: &mut Member, to: &mut [&mut Member], text: &str) {
        let sealed = from.group.seal(text.as_bytes(), b"aad".to_vec()).unwrap();
        for to in to {
            let opened = to.group.open(&sealed).unwrap();
            assert_eq!(
                opened,
                Opened { plaintext: text.into(), aad: b"aad".into(), subject: from.subject.as_str().into() }
            );
            assert!(to.group.open(&sealed).is_err(), "a message opens once");
        }
    }

    /// Three members come and go: everybody reads, the removed one does not, the returned one does again.
    #[test]
    fn a_group_lives() {
        for kind in [KeyKind::P256, KeyKind::Ed25519] {
            let [mut m, mut a, mut b] = ["m", "a", "b"].map(|name| member(kind, name));
            m.group.create(NOW).unwrap();
            let package = a.group.key_package(NOW).unwrap();
            let added = m.group.add(&package, NOW).unwrap();
            a.group.join(&added.welcome.unwrap()).unwrap();
            says(&mut m, &mut [&mut a], "hello");
            says(&mut a, &mut [&mut m], "hello yourself");

            let package = b.group.key_package(NOW).unwrap();
            let added = m.group.add(&package, NOW).unwrap();
            assert!(a.group.apply(&added.commit, NOW).unwrap());
            b.group.join(&added.welcome.unwrap()).unwrap();
            says(&mut b, &mut [&mut m, &mut a], "and me");
            assert_eq!(b.group.members().len(), 3);

            // A message of the epoch before is still read after the commit.
            let late = a.group.seal(b"late", Vec::new()).unwrap();
            let package = b.group.key_package(NOW).unwrap();
            let again = m.group.rejoin(&package, NOW).unwrap();
            assert!(a.group.apply(&again.commit, NOW).unwrap());
            b.group.join(&again.welcome.unwrap()).unwrap();
            assert_eq!(m.group.open(&late).unwrap().plaintext, b"late");
            says(&mut b, &mut [&mut m, &mut a], "back again");

            // A new token in the moderator's leaf, long after the first one ended.
            let fresh = m.group.refresh(NOW + 9000).unwrap();
            assert!(a.group.apply(&fresh.commit, NOW + 9000).unwrap());
            assert!(b.group.apply(&fresh.commit, NOW + 9000).unwrap());
            assert_eq!(m.group.leaf_expires(), NOW + 9000 + 3600);
            says(&mut m, &mut [&mut a, &mut b], "fresh");

            let removed = m.group.remove(&b.subject).unwrap();
            assert!(a.group.apply(&removed.commit, NOW).unwrap());
            assert!(!b.group.apply(&removed.commit, NOW).unwrap(), "b sees its own removal");
            let sealed = m.group.seal(b"without b", Vec::new()).unwrap();
            assert!(b.group.open(&sealed).is_err());
            assert_eq!(a.group.open(&sealed).unwrap().plaintext, b"without b");
            assert_eq!(m.group.epoch(), a.group.epoch());
            assert_eq!(m.group.remove(&b.subject), Err(MlsError::NoMember));
        }
    }

    fn pair() -> [Member; 2] {
        let [mut m, mut a] = ["m", "a"].map(|name| member(KeyKind::P256, name));
        m.group.create(NOW).unwrap();
        let package = a.group.key_package(NOW).unwrap();
        a.group.join(&m.group.add(&package, NOW).unwrap().welcome.unwrap()).unwrap();
        [m, a]
    }

    fn values(group: &Group) -> usize {
        let mut count = 0;
        group.each_value(|_, _| count += 1);
        count
    }

    /// However long a group lives, and whatever nobody answered: what is kept does not grow.
    #[test]
    fn what_is_kept_does_not_grow() {
        let [mut m, mut a] = pair();
        let mut kept = Vec::new();
        for round in 0..30 {
            let now = NOW + round * 1000;
            for _ in 0..3 {
                a.group.key_package(now).unwrap(); // nobody answers
            }
            let package = a.group.key_package(now).unwrap();
            let again = m.group.rejoin(&package, now).unwrap();
            a.group.join(&again.welcome.unwrap()).unwrap();
            let fresh = m.group.refresh(now).unwrap();
            assert!(a.group.apply(&fresh.commit, now).unwrap());
            says(&mut m, &mut [&mut a], "still here");
            kept.push([&m, &a].map(|one| (one.group.admitted.len(), values(&one.group))));
        }
        assert_eq!(kept[10..20], kept[20..], "{kept:?}");
        for _ in 0..30 {
            a.group.key_package(NOW).unwrap();
        }
        let [_, (admitted, values_before)] = kept[29];
        assert!(values(&a.group) <= values_before + 1, "{} from {values_before}", values(&a.group));
        assert_eq!(a.group.admitted.len(), admitted);
    }

    /// A committer's new token has to be good when it comes in; one that was there may have ended.
    #[test]
    fn a_renewal_by_a_token_that_ended() {
        let [mut m, mut a] = pair();
        let fresh = m.group.refresh(NOW).unwrap();
        let ended = a.group.apply(&fresh.commit, NOW + 3601);
        assert!(matches!(ended, Err(MlsError::Credential(IdentityError::Expired { .. }))), "{ended:?}");
        assert!(a.group.apply(&fresh.commit, NOW + 3600).unwrap());
        let mut b = member(KeyKind::P256, "b");
        let added = m.group.add(&b.group.key_package(NOW + 9000).unwrap(), NOW + 9000).unwrap();
        assert!(a.group.apply(&added.commit, NOW + 9000).unwrap(), "the committer's own token ended long ago");
    }

    /// A fast stream that is not repeated may lose many in a row.
    #[test]
    fn after_a_long_silence() {
        let [mut m, mut a] = pair();
        for _ in 0..5000 {
            m.group.seal(b"lost", Vec::new()).unwrap();
        }
        says(&mut m, &mut [&mut a], "after the silence");
        let late: Vec<_> = (0..1000).map(|_| m.group.seal(b"late", Vec::new()).unwrap()).collect();
        says(&mut m, &mut [&mut a], "before them");
        assert!(late.iter().all(|sealed| a.group.open(sealed).is_ok()));
    }

    #[test]
    fn forty_messages_backwards() {
        let [mut m, mut a] = ["m", "a"].map(|name| member(KeyKind::P256, name));
        m.group.create(NOW).unwrap();
        let package = a.group.key_package(NOW).unwrap();
        a.group.join(&m.group.add(&package, NOW).unwrap().welcome.unwrap()).unwrap();
        let mut sealed: Vec<_> = (0..40u8).map(|i| m.group.seal(&[i], Vec::new()).unwrap()).collect();
        sealed.reverse();
        for (i, sealed) in (0..40u8).rev().zip(sealed) {
            assert_eq!(a.group.open(&sealed).unwrap().plaintext, [i]);
        }
    }

    #[test]
    fn whom_we_do_not_admit() {
        let [mut m, mut a] = ["m", "a"].map(|name| member(KeyKind::P256, name));
        m.group.create(NOW).unwrap();
        let package = a.group.key_package(NOW).unwrap();
        assert!(matches!(m.group.add(&package, NOW + 3601), Err(MlsError::Credential(IdentityError::Expired { .. }))));
        assert!(matches!(
            m.group.add(&package, NOW - 10),
            Err(MlsError::Credential(IdentityError::FromTheFuture { .. }))
        ));

        let key = SigningKey::generate(KeyKind::P256).unwrap();
        let stranger = SharedSecret::with_subject("eve".into(), "another secret of thirty-two octets", key).unwrap();
        let stranger = Arc::new(stranger);
        let package = Group::new(stranger.clone(), stranger).unwrap().key_package(NOW).unwrap();
        assert_eq!(m.group.add(&package, NOW), Err(MlsError::Credential(IdentityError::WrongSecret)));

        let package = member(KeyKind::Ed25519, "ed").group.key_package(NOW).unwrap();
        assert!(m.group.add(&package, NOW).is_err(), "another cipher suite");
        for junk in [&b""[..], b"x", &[0, 1, 0, 5, 0], &[255; 300]] {
            assert!(m.group.add(junk, NOW).is_err());
            assert!(m.group.open(junk).is_err());
            assert!(a.group.join(junk).is_err());
            assert!(m.group.apply(junk, NOW).is_err());
        }
        assert_eq!(m.group.members().len(), 1, "nothing changed");
    }

    /// Every octet of a sealed message counts.
    #[test]
    fn a_changed_octet_is_refused() {
        let [mut m, mut a] = ["m", "a"].map(|name| member(KeyKind::P256, name));
        m.group.create(NOW).unwrap();
        let package = a.group.key_package(NOW).unwrap();
        a.group.join(&m.group.add(&package, NOW).unwrap().welcome.unwrap()).unwrap();
        let sealed = m.group.seal(b"hello", b"aad".to_vec()).unwrap();
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 0x41;
            assert!(a.group.open(&changed).is_err(), "octet {at}");
        }
        assert!(a.group.open(&sealed).is_ok());
    }
}
