//! Page-aligned zeroed memory that the kernel may write while we hold it.

use std::io;
use std::ptr::NonNull;

/// One mapping; from the heap under Miri, which has no kernel to share it with.
///
/// It hands out raw addresses only: what may be referenced when is the caller's argument ([`super::pool`]).
#[derive(Debug)]
pub(super) struct Memory {
    base: NonNull<u8>,
    octets: usize,
}

impl Memory {
    /// Maps `octets`, rounded up to whole pages by the kernel; zeroed, private.
    pub(super) fn new(octets: usize) -> io::Result<Self> {
        assert!(octets > 0);
        Ok(Self { base: map(octets)?, octets })
    }

    /// The address of the octet at `offset`, which may also be the one past the end.
    pub(super) fn at(&self, offset: usize) -> NonNull<u8> {
        assert!(offset <= self.octets);
        // SAFETY: the mapping spans `octets` and `offset` stays inside or one past the end, asserted above.
        unsafe { self.base.add(offset) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        unmap(self.base, self.octets);
    }
}

#[cfg(not(miri))]
fn map(octets: usize) -> io::Result<NonNull<u8>> {
    use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a fresh anonymous mapping at an address of the kernel's choice touches nothing of ours.
    let base = unsafe { mmap_anonymous(std::ptr::null_mut(), octets, protection, MapFlags::PRIVATE) }?;
    if octets >= 2 << 20 {
        // Fewer TLB misses where the kernel has huge pages to give; a refusal costs nothing.
        // SAFETY: the range is the mapping just made, and this advice does not change its contents.
        let _ = unsafe { madvise(base, octets, Advice::LinuxHugepage) };
    }
    // SAFETY: the mapping starts readable, writable and zeroed; the cast keeps its address.
    NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mapped at address zero"))
}

#[cfg(not(miri))]
fn unmap(base: NonNull<u8>, octets: usize) {
    // SAFETY: `Memory` owns exactly this mapping, and its users (pool, rings) end their kernel use before dropping it.
    let result = unsafe { rustix::mm::munmap(base.as_ptr().cast(), octets) };
    debug_assert!(result.is_ok(), "unmapping our own mapping: {result:?}");
}

#[cfg(miri)]
fn layout(octets: usize) -> std::alloc::Layout {
    std::alloc::Layout::from_size_align(octets, 4096).expect("a size that fits memory")
}

#[cfg(miri)]
fn map(octets: usize) -> io::Result<NonNull<u8>> {
    // SAFETY: the layout is not empty, asserted in `Memory::new`.
    let base = unsafe { std::alloc::alloc_zeroed(layout(octets)) };
    NonNull::new(base).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

#[cfg(miri)]
fn unmap(base: NonNull<u8>, octets: usize) {
    // SAFETY: allocated in `map` with the same layout, and freed once, here.
    unsafe { std::alloc::dealloc(base.as_ptr(), layout(octets)) }
}
