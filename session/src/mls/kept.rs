//! Groups that outlive their process: what a store has to keep of them, and a group from what it kept.

use std::collections::HashMap;
use std::sync::Arc;

use openmls::prelude::{GroupId, MlsGroup, OpenMlsProvider as _};

use super::Group;
use super::group::Admitted;
use super::storage::Provider as Storage;
use crate::error::MlsError;
use crate::identity::{Provider, Verifier};
use crate::store::record;

impl Group {
    /// Like [`Group::new`], but what openmls writes can be kept: [`Group::each_value`] and [`Group::record`] together are the
    /// group. It costs the writing of the whole state with every message.
    pub(crate) fn kept(provider: Arc<dyn Provider>, verifier: Arc<dyn Verifier>) -> Result<Self, MlsError> {
        Ok(Self { store: Storage::whole(), ..Self::new(provider, verifier)? })
    }

    /// Everything openmls wrote.
    pub(crate) fn each_value(&self, show: impl FnMut(&[u8], &[u8])) {
        self.store.each_value(show);
    }

    /// What openmls does not know.
    pub(crate) fn record(&self) -> record::Group {
        let admitted = self.admitted.iter().map(|(credential, known)| record::Admitted {
            credential: credential.clone(),
            subject: known.subject.to_string(),
            expires: known.expires,
            issued: known.issued,
            epoch: known.epoch,
        });
        record::Group { id: self.group.as_ref().map(|group| group.group_id().to_vec()), admitted: admitted.collect() }
    }

    /// Becomes the group that was kept.
    ///
    /// Errors: values that openmls cannot read, or that are not all there.
    pub(crate) fn restore(
        &mut self,
        record: &record::Group,
        values: HashMap<Vec<u8>, Vec<u8>>,
    ) -> Result<(), MlsError> {
        self.store = Storage::from_values(values);
        let failed = |why: String| MlsError::Library { what: "load the group", why };
        self.group = match &record.id {
            None => None,
            Some(id) => {
                let loaded = MlsGroup::load(self.store.storage(), &GroupId::from_slice(id));
                Some(loaded.map_err(|error| failed(error.to_string()))?.ok_or(MlsError::NoGroup)?)
            }
        };
        let admitted = record.admitted.iter().map(|one| {
            let (subject, issued, expires, epoch) = (one.subject.as_str().into(), one.issued, one.expires, one.epoch);
            (one.credential.clone(), Admitted { subject, issued, expires, epoch })
        });
        self.admitted = admitted.collect();
        Ok(())
    }
}
