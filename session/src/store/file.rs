//! The file: an encrypted log of commits, read into memory when it is opened.
//!
//! ```text
//! head    magic 15, layout 1, salt 32, check 16, then two slots: sequence u64, end u64, MAC 16
//! commit  length u32, nonce 12, sealed: AES-256-GCM under a key of this file, with sequence and length as associated data
//! ```
//!
//! A commit is appended and synchronised, then one of the slots (in turn) notes where it ends. A commit that was cut off in the
//! middle of writing lies behind the noted end and was never acted upon: it is dropped. Anything unreadable before the noted
//! end is damage, and refused. Opening writes nothing. When most of the log is outdated, what is current is written to a new
//! file, under a new key, which takes the old one's place.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::{constant_time, hkdf, hmac};
use prost::Message as _;
use zeroize::Zeroizing;

use super::record::{Commit, Put};
use super::{Change, StoreError};
use crate::random;

const MAGIC: &[u8; 15] = b"slimline store\n";
const LAYOUT: u8 = 1;
const SALT: std::ops::Range<usize> = 16..48;
const CHECK: std::ops::Range<usize> = 48..64;
const SLOTS: usize = 64;
const SLOT_OCTETS: usize = 32;
const HEAD_OCTETS: usize = SLOTS + 2 * SLOT_OCTETS;
const PREFIX_OCTETS: usize = 16;
const MAC_OCTETS: usize = 16;
/// A log below this is not worth rewriting.
const COMPACT_FROM: u64 = 1 << 20;
/// A log is rewritten when it is this many times what is current.
const COMPACT_FACTOR: u64 = 4;
/// Octets of records per commit of a rewritten log.
const COMMIT_OCTETS: usize = 16 << 20;

/// The key of a store, as the caller keeps it.
pub struct StoreKey(Zeroizing<[u8; 32]>);

impl StoreKey {
    /// 32 octets nobody can guess: from a key service or a file, never from a password alone.
    #[must_use]
    pub fn new(octets: [u8; 32]) -> Self {
        Self(Zeroizing::new(octets))
    }
}

/// What is derived for one file.
struct Keys {
    seal: LessSafeKey,
    mac: hmac::Key,
    check: [u8; MAC_OCTETS],
}

struct Octets(usize);

impl hkdf::KeyType for Octets {
    fn len(&self) -> usize {
        self.0
    }
}

impl Keys {
    fn derive(key: &StoreKey, salt: &[u8]) -> Option<Self> {
        let secret = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(&*key.0);
        let mut okm = Zeroizing::new([0; 32 + 32 + MAC_OCTETS]);
        let info = [MAGIC.as_slice(), &[LAYOUT]];
        secret.expand(&info, Octets(okm.len())).and_then(|expanded| expanded.fill(&mut *okm)).ok()?;
        let (seal, rest) = okm.split_at(32);
        let (mac, check) = rest.split_at(32);
        Some(Self {
            seal: LessSafeKey::new(UnboundKey::new(&AES_256_GCM, seal).ok()?),
            mac: hmac::Key::new(hmac::HMAC_SHA256, mac),
            check: check.try_into().ok()?,
        })
    }

    /// A slot of the head: which commit is the last, and where it ends.
    fn slot(&self, sequence: u64, end: u64) -> [u8; SLOT_OCTETS] {
        let mut slot = [0; SLOT_OCTETS];
        slot[..8].copy_from_slice(&sequence.to_be_bytes());
        slot[8..16].copy_from_slice(&end.to_be_bytes());
        let tag = hmac::sign(&self.mac, &slot[..16]);
        slot[16..].copy_from_slice(&tag.as_ref()[..MAC_OCTETS]);
        slot
    }

    fn read_slot(&self, slot: &[u8]) -> Option<(u64, u64)> {
        let (sequence, rest) = slot.split_first_chunk::<8>()?;
        let (end, _) = rest.split_first_chunk::<8>()?;
        let (sequence, end) = (u64::from_be_bytes(*sequence), u64::from_be_bytes(*end));
        constant_time::verify_slices_are_equal(&self.slot(sequence, end), slot).ok().map(|()| (sequence, end))
    }

    fn seal(&self, sequence: u64, commit: &Commit) -> Result<Vec<u8>, &'static str> {
        let sealed_octets = commit.encoded_len() + AES_256_GCM.tag_len();
        let length = u32::try_from(sealed_octets).map_err(|_| "a commit above 4 GiB")?;
        let nonce: [u8; 12] = random::octets().map_err(|_| "no randomness from the operating system")?;
        let mut sealed = Vec::with_capacity(sealed_octets);
        commit.encode(&mut sealed).map_err(|_| "a record cannot be written")?;
        let aad = associated(sequence, length);
        self.seal
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), &mut sealed)
            .map_err(|_| "sealing failed")?;
        let mut out = Vec::with_capacity(PREFIX_OCTETS + sealed.len());
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&sealed);
        Ok(out)
    }

    /// The commit at the front of `input`, and the octets it takes.
    fn open(&self, sequence: u64, input: &[u8]) -> Option<(Commit, usize)> {
        let (length, rest) = input.split_first_chunk::<4>()?;
        let (nonce, rest) = rest.split_first_chunk::<12>()?;
        let length = u32::from_be_bytes(*length);
        let mut sealed = rest.get(..length as usize)?.to_vec();
        let aad = associated(sequence, length);
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let plain = self.seal.open_in_place(nonce, Aad::from(aad), &mut sealed).ok()?;
        Some((Commit::decode(&*plain).ok()?, PREFIX_OCTETS + length as usize))
    }
}

fn associated(sequence: u64, length: u32) -> [u8; 12] {
    let mut aad = [0; 12];
    aad[..8].copy_from_slice(&sequence.to_be_bytes());
    aad[8..].copy_from_slice(&length.to_be_bytes());
    aad
}

/// An open store. Nobody else can open it meanwhile.
pub struct Store {
    path: PathBuf,
    file: File,
    key: StoreKey,
    keys: Keys,
    /// What is current.
    live: BTreeMap<Vec<u8>, Vec<u8>>,
    live_octets: u64,
    /// Commits in the file.
    sequence: u64,
    /// Where the last of them ends.
    end: u64,
    /// Octets after `end` are of a commit that was cut off.
    torn: bool,
    stopped: bool,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("path", &self.path).field("records", &self.live.len()).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the store at `path`; where there is no file, a new one is made.
    ///
    /// Errors: see [`StoreError`]; a file that is refused is left as it was.
    pub fn open(path: impl AsRef<Path>, key: StoreKey) -> Result<Self, StoreError> {
        let path = path.as_ref();
        let failed = |what| failed(path, what);
        loop {
            let opened = OpenOptions::new().read(true).write(true).open(path);
            let mut file = match opened {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    write_new(path, &key, &BTreeMap::new(), Place::Free)?;
                    continue;
                }
                other => other.map_err(failed("open"))?,
            };
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(StoreError::InUse { path: shown(path) }),
                Err(TryLockError::Error(error)) => return Err(failed("lock")(error)),
            }
            // Between opening and locking another process may have put a rewritten log in its place.
            let (ours, there) = (file.metadata().map_err(failed("read"))?, std::fs::metadata(path));
            if there.is_ok_and(|there| there.ino() == ours.ino()) {
                let mut octets = Vec::new();
                file.read_to_end(&mut octets).map_err(failed("read"))?;
                return Self::read(path, file, key, &octets);
            }
        }
    }

    fn read(path: &Path, file: File, key: StoreKey, octets: &[u8]) -> Result<Self, StoreError> {
        let foreign = || StoreError::Foreign { path: shown(path) };
        let (magic, rest) = octets.split_at_checked(MAGIC.len()).ok_or_else(foreign)?;
        let found = *rest.first().filter(|_| magic == MAGIC).ok_or_else(foreign)?;
        if found != LAYOUT {
            return Err(StoreError::Layout { path: shown(path), found, ours: LAYOUT });
        }
        let damaged = |at: u64| StoreError::Damaged { path: shown(path), at };
        let head = octets.get(..HEAD_OCTETS).ok_or_else(|| damaged(octets.len() as u64))?;
        let wrong = || StoreError::WrongKey { path: shown(path) };
        let keys = Keys::derive(&key, &head[SALT]).ok_or_else(wrong)?;
        constant_time::verify_slices_are_equal(&keys.check, &head[CHECK]).map_err(|_| wrong())?;
        let slots = head[SLOTS..].chunks_exact(SLOT_OCTETS).filter_map(|slot| keys.read_slot(slot));
        let (noted_sequence, noted_end) = slots.max().ok_or_else(|| damaged(SLOTS as u64))?;

        let (mut live, mut live_octets, mut sequence, mut end) = (BTreeMap::new(), 0, 0, HEAD_OCTETS);
        while let Some((commit, taken)) = keys.open(sequence, &octets[end..]) {
            live_octets = apply(&mut live, live_octets, commit);
            sequence += 1;
            end += taken;
        }
        if sequence < noted_sequence || (end as u64) < noted_end {
            return Err(damaged(end as u64));
        }
        let torn = end < octets.len();
        let path = path.to_owned();
        Ok(Self { path, file, key, keys, live, live_octets, sequence, end: end as u64, torn, stopped: false })
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.live.get(key).map(Vec::as_slice)
    }

    /// Everything in it, by key.
    pub fn records(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.live.iter().map(|(key, value)| (&**key, &**value))
    }

    /// Writes changes, all or none; returns when they are on the disk.
    ///
    /// Errors: the system's; after one of them the store takes nothing more.
    pub fn commit(&mut self, changes: Vec<Change>) -> Result<(), StoreError> {
        if self.stopped {
            return Err(StoreError::Stopped { path: shown(&self.path) });
        }
        self.stopped = true; // until it is done
        let (mut puts, mut deletes) = (Vec::new(), Vec::new());
        for (key, value) in changes {
            match value {
                Some(value) => puts.push(Put { key, value }),
                None => deletes.push(key),
            }
        }
        let commit = Commit { puts, deletes };
        let sealed =
            self.keys.seal(self.sequence, &commit).map_err(|why| self.failed("seal")(io::Error::other(why)))?;
        if std::mem::take(&mut self.torn) {
            self.file.set_len(self.end).map_err(self.failed("cut"))?;
        }
        self.file.write_all_at(&sealed, self.end).map_err(self.failed("write"))?;
        self.file.sync_data().map_err(self.failed("synchronise"))?;
        self.sequence += 1;
        self.end += sealed.len() as u64;
        let slot = SLOTS + SLOT_OCTETS * usize::from(!self.sequence.is_multiple_of(2));
        let noted = self.keys.slot(self.sequence, self.end);
        self.file.write_all_at(&noted, slot as u64).map_err(self.failed("write"))?;
        self.live_octets = apply(&mut self.live, self.live_octets, commit);
        if self.end > COMPACT_FROM && self.end / COMPACT_FACTOR > self.live_octets {
            self.compact()?;
        }
        self.stopped = false;
        Ok(())
    }

    /// Writes what is current to a new file, which takes the place of this one.
    fn compact(&mut self) -> Result<(), StoreError> {
        let written = write_new(&self.path, &self.key, &self.live, Place::Taken)?;
        (self.file, self.keys, self.sequence, self.end) = written;
        Ok(())
    }

    fn failed(&self, what: &'static str) -> impl Fn(io::Error) -> StoreError + use<> {
        failed(&self.path, what)
    }
}

/// Where a new log goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Where nothing is; if somebody was faster, theirs stays.
    Free,
    /// In place of the log that is there.
    Taken,
}

/// Writes a whole log, locked: it appears at `path` complete or not at all.
fn write_new(
    path: &Path,
    key: &StoreKey,
    live: &BTreeMap<Vec<u8>, Vec<u8>>,
    place: Place,
) -> Result<(File, Keys, u64, u64), StoreError> {
    let failed = |what| failed(path, what);
    let salt: [u8; 32] = random::octets()?;
    let refused = |why| failed("seal")(io::Error::other(why));
    let keys = Keys::derive(key, &salt).ok_or_else(|| refused("no key can be derived"))?;
    let mut octets = vec![0; HEAD_OCTETS];
    octets[..MAGIC.len()].copy_from_slice(MAGIC);
    octets[MAGIC.len()] = LAYOUT;
    octets[SALT].copy_from_slice(&salt);
    octets[CHECK].copy_from_slice(&keys.check);
    let (mut sequence, mut commit, mut held) = (0, Commit::default(), 0);
    for (key, value) in live {
        held += key.len() + value.len();
        commit.puts.push(Put { key: key.clone(), value: value.clone() });
        if held >= COMMIT_OCTETS {
            octets.extend_from_slice(&keys.seal(sequence, &std::mem::take(&mut commit)).map_err(refused)?);
            (sequence, held) = (sequence + 1, 0);
        }
    }
    if !commit.puts.is_empty() {
        octets.extend_from_slice(&keys.seal(sequence, &commit).map_err(refused)?);
        sequence += 1;
    }
    let end = octets.len() as u64;
    for slot in octets[SLOTS..HEAD_OCTETS].chunks_exact_mut(SLOT_OCTETS) {
        slot.copy_from_slice(&keys.slot(sequence, end));
    }
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(format!(".{}.new", std::process::id()));
    let unfinished = Unfinished(unfinished.into());
    match std::fs::remove_file(&unfinished.0) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("remove")(error)),
        _ => {} // an earlier process of our number left it, or somebody laid it there for us to write to
    }
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&unfinished.0);
    let file = file.map_err(failed("create"))?;
    file.try_lock().map_err(|error| failed("lock")(error.into()))?;
    file.write_all_at(&octets, 0).map_err(failed("write"))?;
    file.sync_all().map_err(failed("synchronise"))?;
    if place == Place::Taken {
        std::fs::rename(&unfinished.0, path).map_err(failed("rename"))?;
    } else {
        match std::fs::hard_link(&unfinished.0, path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed("create")(error)),
            _ => {}
        }
    }
    drop(unfinished);
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed("synchronise"))?;
    Ok((file, keys, sequence, end))
}

/// A log under the name it has until it is complete; whatever becomes of it, the name goes.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0); // renamed already, or of no use
    }
}

/// Makes the changes, and returns how many octets the records have then.
fn apply(live: &mut BTreeMap<Vec<u8>, Vec<u8>>, mut octets: u64, commit: Commit) -> u64 {
    let size = |key: usize, value: &Vec<u8>| (key + value.len()) as u64;
    for key in commit.deletes {
        octets -= live.remove(&key).map_or(0, |value| size(key.len(), &value));
    }
    for Put { key, value } in commit.puts {
        let octets_of_key = key.len();
        octets += size(octets_of_key, &value);
        octets -= live.insert(key, value).map_or(0, |value| size(octets_of_key, &value));
    }
    octets
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn failed(path: &Path, what: &'static str) -> impl Fn(io::Error) -> StoreError + use<> {
    let path = shown(path);
    move |error| StoreError::Io { path: path.clone(), what, why: error.to_string() }
}
