//! Where openmls keeps secrets: in memory, one store per session, gone with it.
//!
//! openmls writes its whole state to storage with every message, for groups that are to be loaded again. Ours live in
//! memory, so that part is written nowhere: it saves most of the cost of a message, and no copy of a ratchet outlives its
//! use. What openmls does read back while a group lives (key packages, leaf and path keys) is kept. Where the application
//! has a [`crate::store`], everything is written, and `each_value` shows the store what it has to keep.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use openmls_memory_storage::{MemoryStorage, MemoryStorageError};
use openmls_traits::OpenMlsProvider;
use openmls_traits::storage::{CURRENT_VERSION as V, StorageProvider, traits};

use super::provider::Crypto;

/// Primitives and store of one session.
#[derive(Default)]
pub(super) struct Provider {
    crypto: Crypto,
    storage: Storage,
}

impl OpenMlsProvider for Provider {
    type CryptoProvider = Crypto;
    type RandProvider = Crypto;
    type StorageProvider = Storage;

    fn storage(&self) -> &Storage {
        &self.storage
    }

    fn crypto(&self) -> &Crypto {
        &self.crypto
    }

    fn rand(&self) -> &Crypto {
        &self.crypto
    }
}

impl Provider {
    /// For a group that is to be loaded again.
    pub(super) fn whole() -> Self {
        Self::from_values(HashMap::new())
    }

    /// What `each_value` showed before.
    pub(super) fn from_values(values: HashMap<Vec<u8>, Vec<u8>>) -> Self {
        let values = MemoryStorage { values: RwLock::new(values) };
        Self { crypto: Crypto, storage: Storage { values, whole: true } }
    }

    /// Key packages that nobody used, with their private keys.
    pub(super) fn forget_key_packages(&self) {
        let mut values = self.storage.values.values.write().unwrap_or_else(PoisonError::into_inner);
        values.retain(|key, _| !key.starts_with(b"KeyPackage"));
    }

    /// Everything openmls wrote, in no order.
    pub(super) fn each_value(&self, mut show: impl FnMut(&[u8], &[u8])) {
        let values = self.storage.values.values.read().unwrap_or_else(PoisonError::into_inner);
        for (key, value) in values.iter() {
            show(key, value);
        }
    }
}

/// Keeps keys; forgets state, unless the group is to be loaded again.
#[derive(Default)]
pub(super) struct Storage {
    values: MemoryStorage,
    /// Everything is written: see [`crate::store`].
    whole: bool,
}

/// Writes and deletions of state that is only written for groups that are kept.
macro_rules! written_if_kept {
    ($($name:ident<$($generic:ident),+>($($argument:ident: $kind:ty),+);)+) => {$(
        fn $name<$($generic: traits::$generic<V>),+>(&self, $($argument: $kind),+) -> Result<(), Self::Error> {
            if self.whole { StorageProvider::<V>::$name::<$($generic),+>(&self.values, $($argument),+) } else { Ok(()) }
        }
    )+};
}

/// Reads: of state that is not kept they give nothing, an empty list or no value.
macro_rules! read {
    ($($name:ident<$($generic:ident),+>() -> $value:ty;)+) => {$(
        fn $name<$($generic: traits::$generic<V>),+>(&self, group: &GroupId) -> Result<$value, Self::Error> {
            StorageProvider::<V>::$name::<$($generic),+>(&self.values, group)
        }
    )+};
}

/// What is read back while a group lives.
macro_rules! kept {
    ($($name:ident<$($generic:ident),+>($($argument:ident: $kind:ty),+) -> $value:ty;)+) => {$(
        fn $name<$($generic: traits::$generic<V>),+>(&self, $($argument: $kind),+) -> Result<$value, Self::Error> {
            StorageProvider::<V>::$name::<$($generic),+>(&self.values, $($argument),+)
        }
    )+};
}

impl StorageProvider<V> for Storage {
    type Error = MemoryStorageError;

    kept! {
        write_encryption_key_pair<EncryptionKey, HpkeKeyPair>(key: &EncryptionKey, pair: &HpkeKeyPair) -> ();
        encryption_key_pair<HpkeKeyPair, EncryptionKey>(key: &EncryptionKey) -> Option<HpkeKeyPair>;
        delete_encryption_key_pair<EncryptionKey>(key: &EncryptionKey) -> ();
        write_encryption_epoch_key_pairs<GroupId, EpochKey, HpkeKeyPair>(group: &GroupId, epoch: &EpochKey, leaf: u32, pairs: &[HpkeKeyPair]) -> ();
        encryption_epoch_key_pairs<GroupId, EpochKey, HpkeKeyPair>(group: &GroupId, epoch: &EpochKey, leaf: u32) -> Vec<HpkeKeyPair>;
        delete_encryption_epoch_key_pairs<GroupId, EpochKey>(group: &GroupId, epoch: &EpochKey, leaf: u32) -> ();
        write_key_package<HashReference, KeyPackage>(reference: &HashReference, package: &KeyPackage) -> ();
        key_package<HashReference, KeyPackage>(reference: &HashReference) -> Option<KeyPackage>;
        delete_key_package<HashReference>(reference: &HashReference) -> ();
        write_psk<PskId, PskBundle>(id: &PskId, psk: &PskBundle) -> ();
        psk<PskBundle, PskId>(id: &PskId) -> Option<PskBundle>;
        delete_psk<PskId>(id: &PskId) -> ();
    }

    written_if_kept! {
        write_mls_join_config<GroupId, MlsGroupJoinConfig>(first: &GroupId, second: &MlsGroupJoinConfig);
        append_own_leaf_node<GroupId, LeafNode>(first: &GroupId, second: &LeafNode);
        queue_proposal<GroupId, ProposalRef, QueuedProposal>(first: &GroupId, second: &ProposalRef, third: &QueuedProposal);
        write_tree<GroupId, TreeSync>(first: &GroupId, second: &TreeSync);
        write_interim_transcript_hash<GroupId, InterimTranscriptHash>(first: &GroupId, second: &InterimTranscriptHash);
        write_context<GroupId, GroupContext>(first: &GroupId, second: &GroupContext);
        write_confirmation_tag<GroupId, ConfirmationTag>(first: &GroupId, second: &ConfirmationTag);
        write_group_state<GroupState, GroupId>(first: &GroupId, second: &GroupState);
        write_message_secrets<GroupId, MessageSecrets>(first: &GroupId, second: &MessageSecrets);
        write_resumption_psk_store<GroupId, ResumptionPskStore>(first: &GroupId, second: &ResumptionPskStore);
        write_own_leaf_index<GroupId, LeafNodeIndex>(first: &GroupId, second: &LeafNodeIndex);
        write_group_epoch_secrets<GroupId, GroupEpochSecrets>(first: &GroupId, second: &GroupEpochSecrets);
        write_signature_key_pair<SignaturePublicKey, SignatureKeyPair>(first: &SignaturePublicKey, second: &SignatureKeyPair);
        remove_proposal<GroupId, ProposalRef>(first: &GroupId, second: &ProposalRef);
        delete_own_leaf_nodes<GroupId>(first: &GroupId);
        delete_group_config<GroupId>(first: &GroupId);
        delete_tree<GroupId>(first: &GroupId);
        delete_confirmation_tag<GroupId>(first: &GroupId);
        delete_group_state<GroupId>(first: &GroupId);
        delete_context<GroupId>(first: &GroupId);
        delete_interim_transcript_hash<GroupId>(first: &GroupId);
        delete_message_secrets<GroupId>(first: &GroupId);
        delete_all_resumption_psk_secrets<GroupId>(first: &GroupId);
        delete_own_leaf_index<GroupId>(first: &GroupId);
        delete_group_epoch_secrets<GroupId>(first: &GroupId);
        clear_proposal_queue<GroupId, ProposalRef>(first: &GroupId);
        delete_signature_key_pair<SignaturePublicKey>(first: &SignaturePublicKey);
    }

    read! {
        mls_group_join_config<GroupId, MlsGroupJoinConfig>() -> Option<MlsGroupJoinConfig>;
        own_leaf_nodes<GroupId, LeafNode>() -> Vec<LeafNode>;
        queued_proposal_refs<GroupId, ProposalRef>() -> Vec<ProposalRef>;
        queued_proposals<GroupId, ProposalRef, QueuedProposal>() -> Vec<(ProposalRef, QueuedProposal)>;
        tree<GroupId, TreeSync>() -> Option<TreeSync>;
        group_context<GroupId, GroupContext>() -> Option<GroupContext>;
        interim_transcript_hash<GroupId, InterimTranscriptHash>() -> Option<InterimTranscriptHash>;
        confirmation_tag<GroupId, ConfirmationTag>() -> Option<ConfirmationTag>;
        group_state<GroupState, GroupId>() -> Option<GroupState>;
        message_secrets<GroupId, MessageSecrets>() -> Option<MessageSecrets>;
        resumption_psk_store<GroupId, ResumptionPskStore>() -> Option<ResumptionPskStore>;
        own_leaf_index<GroupId, LeafNodeIndex>() -> Option<LeafNodeIndex>;
        group_epoch_secrets<GroupId, GroupEpochSecrets>() -> Option<GroupEpochSecrets>;
    }

    fn signature_key_pair<
        SignaturePublicKey: traits::SignaturePublicKey<V>,
        SignatureKeyPair: traits::SignatureKeyPair<V>,
    >(
        &self,
        key: &SignaturePublicKey,
    ) -> Result<Option<SignatureKeyPair>, Self::Error> {
        StorageProvider::<V>::signature_key_pair(&self.values, key)
    }
}
