//! Where openmls keeps secrets: in memory, one store per session, gone with it.

use openmls_memory_storage::MemoryStorage;
use openmls_traits::OpenMlsProvider;

use super::provider::Crypto;

/// Primitives and store of one session.
#[derive(Default)]
pub(super) struct Provider {
    crypto: Crypto,
    storage: MemoryStorage,
}

impl OpenMlsProvider for Provider {
    type CryptoProvider = Crypto;
    type RandProvider = Crypto;
    type StorageProvider = MemoryStorage;

    fn storage(&self) -> &MemoryStorage {
        &self.storage
    }

    fn crypto(&self) -> &Crypto {
        &self.crypto
    }

    fn rand(&self) -> &Crypto {
        &self.crypto
    }
}
