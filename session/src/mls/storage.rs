//! Where openmls keeps secrets: in memory, one store per session, gone with it.
//!
//! openmls writes its whole state to storage with every message, for groups that are to be loaded again. Ours live in
//! memory, so that part is written nowhere: it saves most of the cost of a message, and no copy of a ratchet outlives its
//! use. What openmls does read back while a group lives (key packages, leaf and path keys) is kept.

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

/// Keeps keys, forgets state.
#[derive(Default)]
pub(super) struct Storage {
    keys: MemoryStorage,
}

/// Writes and deletions of state that is never loaded: nothing to do.
macro_rules! not_written {
    ($($name:ident<$($generic:ident),+>($($argument:ty),+);)+) => {$(
        fn $name<$($generic: traits::$generic<V>),+>(&self, $(_: $argument),+) -> Result<(), Self::Error> {
            Ok(())
        }
    )+};
}

/// Reads of state that was never written: nothing, an empty list or no value.
macro_rules! not_there {
    ($($name:ident<$($generic:ident),+>() -> $kind:ident<$value:ty>;)+) => {$(
        fn $name<$($generic: traits::$generic<V>),+>(&self, _: &GroupId) -> Result<$kind<$value>, Self::Error> {
            Ok($kind::default())
        }
    )+};
}

/// What is read back while a group lives.
macro_rules! kept {
    ($($name:ident<$($generic:ident),+>($($argument:ident: $kind:ty),+) -> $value:ty;)+) => {$(
        fn $name<$($generic: traits::$generic<V>),+>(&self, $($argument: $kind),+) -> Result<$value, Self::Error> {
            StorageProvider::<V>::$name(&self.keys, $($argument),+)
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

    not_written! {
        write_mls_join_config<GroupId, MlsGroupJoinConfig>(&GroupId, &MlsGroupJoinConfig);
        append_own_leaf_node<GroupId, LeafNode>(&GroupId, &LeafNode);
        queue_proposal<GroupId, ProposalRef, QueuedProposal>(&GroupId, &ProposalRef, &QueuedProposal);
        write_tree<GroupId, TreeSync>(&GroupId, &TreeSync);
        write_interim_transcript_hash<GroupId, InterimTranscriptHash>(&GroupId, &InterimTranscriptHash);
        write_context<GroupId, GroupContext>(&GroupId, &GroupContext);
        write_confirmation_tag<GroupId, ConfirmationTag>(&GroupId, &ConfirmationTag);
        write_group_state<GroupState, GroupId>(&GroupId, &GroupState);
        write_message_secrets<GroupId, MessageSecrets>(&GroupId, &MessageSecrets);
        write_resumption_psk_store<GroupId, ResumptionPskStore>(&GroupId, &ResumptionPskStore);
        write_own_leaf_index<GroupId, LeafNodeIndex>(&GroupId, &LeafNodeIndex);
        write_group_epoch_secrets<GroupId, GroupEpochSecrets>(&GroupId, &GroupEpochSecrets);
        write_signature_key_pair<SignaturePublicKey, SignatureKeyPair>(&SignaturePublicKey, &SignatureKeyPair);
        remove_proposal<GroupId, ProposalRef>(&GroupId, &ProposalRef);
        delete_own_leaf_nodes<GroupId>(&GroupId);
        delete_group_config<GroupId>(&GroupId);
        delete_tree<GroupId>(&GroupId);
        delete_confirmation_tag<GroupId>(&GroupId);
        delete_group_state<GroupId>(&GroupId);
        delete_context<GroupId>(&GroupId);
        delete_interim_transcript_hash<GroupId>(&GroupId);
        delete_message_secrets<GroupId>(&GroupId);
        delete_all_resumption_psk_secrets<GroupId>(&GroupId);
        delete_own_leaf_index<GroupId>(&GroupId);
        delete_group_epoch_secrets<GroupId>(&GroupId);
        clear_proposal_queue<GroupId, ProposalRef>(&GroupId);
        delete_signature_key_pair<SignaturePublicKey>(&SignaturePublicKey);
    }

    not_there! {
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
        _: &SignaturePublicKey,
    ) -> Result<Option<SignatureKeyPair>, Self::Error> {
        Ok(None)
    }
}
