//! The bpf(2) calls that are made here directly: reading shapes and ids, pins, links, batched counters.

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const MAP_CREATE: u32 = 0;
const MAP_LOOKUP_ELEM: u32 = 1;
const MAP_UPDATE_ELEM: u32 = 2;
const MAP_DELETE_ELEM: u32 = 3;
const MAP_GET_NEXT_KEY: u32 = 4;
const OBJ_PIN: u32 = 6;
const OBJ_GET: u32 = 7;
const PROG_GET_FD_BY_ID: u32 = 13;
const OBJ_GET_INFO_BY_FD: u32 = 15;
const PROG_QUERY: u32 = 16;
const MAP_LOOKUP_BATCH: u32 = 24;
const LINK_CREATE: u32 = 28;
const LINK_UPDATE: u32 = 29;

/// Map type `BPF_MAP_TYPE_ARRAY`.
pub(crate) const ARRAY: u32 = 2;
/// Map type `BPF_MAP_TYPE_PERCPU_ARRAY`.
pub(crate) const PER_CPU_ARRAY: u32 = 6;
/// `BPF_MAP_TYPE_LPM_TRIE`.
pub(crate) const LPM_TRIE: u32 = 11;
/// `BPF_F_NO_PREALLOC`, which a trie must have.
pub(crate) const NO_PREALLOC: u32 = 1;
/// Map type `BPF_MAP_TYPE_ARRAY_OF_MAPS`.
pub(crate) const ARRAY_OF_MAPS: u32 = 12;
/// Map type `BPF_MAP_TYPE_RINGBUF`.
pub(crate) const RING_BUFFER: u32 = 27;
/// Map flag `BPF_F_MMAPABLE`.
pub(crate) const MMAPABLE: u32 = 1 << 10;
/// `BPF_F_RDONLY`, of an opened pin.
const READ_ONLY: u32 = 1 << 3;
/// Attach type `BPF_XDP`.
const ATTACH_XDP: u32 = 37;
/// Attach type `BPF_TCX_EGRESS`.
const ATTACH_TCX_EGRESS: u32 = 47;
/// `BPF_F_BEFORE`: with nothing named, before all.
const BEFORE: u32 = 1 << 3;
/// `BPF_MPROG_MAX`: programs that a hook may have.
const HOOK_PROGRAMS: usize = 64;
/// `XDP_FLAGS_SKB_MODE`.
pub(crate) const XDP_GENERIC: u32 = 1 << 1;
/// `XDP_FLAGS_DRV_MODE`.
pub(crate) const XDP_NATIVE: u32 = 1 << 2;

/// The kernel's `union bpf_attr`, as the calls here fill it: what they do not name is zero.
#[repr(C, align(8))]
struct Attributes([u32; 32]);

impl Attributes {
    fn new() -> Self {
        Self([0; 32])
    }
    fn word(mut self, at: usize, value: u32) -> Self {
        self.0[at / 4] = value;
        self
    }
    fn fd(self, at: usize, fd: BorrowedFd<'_>) -> Self {
        self.word(at, fd.as_raw_fd().cast_unsigned())
    }
    fn pointer<T>(self, at: usize, pointer: *const T) -> Self {
        self.long(at, pointer as u64)
    }
    fn long(self, at: usize, value: u64) -> Self {
        self.word(at, value as u32).word(at + 4, (value >> 32) as u32)
    }
}

/// # Safety
///
/// Pointers in `attributes` lead to memory that is valid for what `command` does with it.
unsafe fn bpf(command: u32, attributes: &mut Attributes) -> io::Result<i64> {
    // SAFETY: the kernel reads and writes no more than the size given, which is that of `attributes`; what it leads to
    // is the caller's promise.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut attributes.0, size_of::<Attributes>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// # Safety
///
/// As for [`bpf`]; `command` returns a file descriptor.
unsafe fn bpf_fd(command: u32, attributes: &mut Attributes) -> io::Result<OwnedFd> {
    // SAFETY: the caller's promise.
    let fd = unsafe { bpf(command, attributes) }?;
    // SAFETY: the kernel has just made it, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// What a map is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) kind: u32,
    pub(crate) key_size: u32,
    pub(crate) value_size: u32,
    pub(crate) max_entries: u32,
    pub(crate) flags: u32,
}

/// Makes a map of nobody's.
pub(crate) fn create_map(shape: &Shape, inner: Option<BorrowedFd<'_>>) -> io::Result<OwnedFd> {
    let mut attributes = Attributes::new()
        .word(0, shape.kind)
        .word(4, shape.key_size)
        .word(8, shape.value_size)
        .word(12, shape.max_entries)
        .word(16, shape.flags);
    if let Some(inner) = inner {
        attributes = attributes.fd(20, inner);
    }
    // SAFETY: no pointers.
    unsafe { bpf_fd(MAP_CREATE, &mut attributes) }
}

/// Id and shape of a map.
pub(crate) fn map_info(map: BorrowedFd<'_>) -> io::Result<(u32, Shape)> {
    let info: [u32; 20] = info(map)?;
    let [kind, id, key_size, value_size, max_entries, flags, ..] = info;
    Ok((id, Shape { kind, key_size, value_size, max_entries, flags }))
}

/// Id of a program, and its name.
pub(crate) fn program_info(program: BorrowedFd<'_>) -> io::Result<(u32, String)> {
    let info: [u32; 32] = info(program)?;
    let name: Vec<u8> = info[16..20].iter().flat_map(|word| word.to_ne_bytes()).take_while(|byte| *byte != 0).collect();
    Ok((info[1], String::from_utf8_lossy(&name).into_owned()))
}

/// Program id and interface index of an XDP or tcx link; 0 = its interface is gone.
pub(crate) fn link_info(link: BorrowedFd<'_>) -> io::Result<(u32, u32)> {
    let info: [u32; 8] = info(link)?;
    Ok((info[2], info[4]))
}

fn info<const N: usize>(object: BorrowedFd<'_>) -> io::Result<[u32; N]> {
    let mut info = [0u32; N];
    let mut attributes =
        Attributes::new().fd(0, object).word(4, (N * 4) as u32).pointer(8, info.as_mut_ptr().cast_const());
    // SAFETY: the kernel writes no more than the length given, which is that of `info`.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attributes) }?;
    Ok(info)
}

/// Opens a program by its id: needs CAP_SYS_ADMIN.
pub(crate) fn program_by_id(id: u32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    unsafe { bpf_fd(PROG_GET_FD_BY_ID, &mut Attributes::new().word(0, id)) }
}

fn path_string(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// Pins a map, program or link.
pub(crate) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = path_string(path)?;
    // SAFETY: `path` ends in zero and lives through the call.
    unsafe { bpf(OBJ_PIN, &mut Attributes::new().pointer(0, path.as_ptr()).fd(8, object)) }.map(drop)
}

/// Opens what is pinned.
pub(crate) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    open_pin_with(path, 0)
}

/// Opens a pinned map for reading.
pub(crate) fn open_pin_read_only(path: &Path) -> io::Result<OwnedFd> {
    open_pin_with(path, READ_ONLY)
}

fn open_pin_with(path: &Path, flags: u32) -> io::Result<OwnedFd> {
    let path = path_string(path)?;
    // SAFETY: `path` ends in zero and lives through the call.
    unsafe { bpf_fd(OBJ_GET, &mut Attributes::new().pointer(0, path.as_ptr()).word(12, flags)) }
}

/// Attaches an XDP program to an interface, for as long as the link is held or pinned.
pub(crate) fn create_xdp_link(program: BorrowedFd<'_>, ifindex: u32, flags: u32) -> io::Result<OwnedFd> {
    let mut attributes = Attributes::new().fd(0, program).word(4, ifindex).word(8, ATTACH_XDP).word(12, flags);
    // SAFETY: no pointers.
    unsafe { bpf_fd(LINK_CREATE, &mut attributes) }
}

/// Attaches a classifier to the egress of an interface, before all that are there, for as long as the link is held or
/// pinned. EINVAL: this kernel has no such links (6.6 is the first).
pub(crate) fn create_tcx_link(program: BorrowedFd<'_>, ifindex: u32) -> io::Result<OwnedFd> {
    let mut attributes = Attributes::new().fd(0, program).word(4, ifindex).word(8, ATTACH_TCX_EGRESS).word(12, BEFORE);
    // SAFETY: no pointers.
    unsafe { bpf_fd(LINK_CREATE, &mut attributes) }
}

/// Ids of the programs at the egress of an interface that are attached by tcx, in order. EINVAL as above.
pub(crate) fn tcx_programs(ifindex: u32) -> io::Result<Vec<u32>> {
    let mut ids = [0u32; HOOK_PROGRAMS];
    let mut attributes = Attributes::new()
        .word(0, ifindex)
        .word(4, ATTACH_TCX_EGRESS)
        .pointer(16, ids.as_mut_ptr().cast_const())
        .word(24, HOOK_PROGRAMS as u32);
    // SAFETY: the kernel writes no more ids than it was told there is room for.
    unsafe { bpf(PROG_QUERY, &mut attributes) }?;
    let count = (attributes.0[6] as usize).min(HOOK_PROGRAMS);
    Ok(ids[..count].to_vec())
}

/// Replaces a link's program: one packet sees the old, the next one the new.
pub(crate) fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no pointers.
    unsafe { bpf(LINK_UPDATE, &mut Attributes::new().fd(0, link).fd(4, program)) }.map(drop)
}

/// Puts a map into an element of an array of maps: returns after every program run that began before has ended.
pub(crate) fn update_inner_map(outer: BorrowedFd<'_>, inner: BorrowedFd<'_>) -> io::Result<()> {
    let (key, value) = (0u32, inner.as_raw_fd());
    let mut attributes = Attributes::new().fd(0, outer).pointer(8, &raw const key).pointer(16, &raw const value);
    // SAFETY: key and value are four bytes each, as an array of maps has them.
    unsafe { bpf(MAP_UPDATE_ELEM, &mut attributes) }.map(drop)
}

/// Writes one element of an array of words, for tests.
#[cfg(test)]
pub(crate) fn update_elem(map: BorrowedFd<'_>, index: u32, words: &[u64]) -> io::Result<()> {
    let mut attributes = Attributes::new().fd(0, map).pointer(8, &raw const index).pointer(16, words.as_ptr());
    // SAFETY: the caller gives as many words as the map's element has, on all CPUs together.
    unsafe { bpf(MAP_UPDATE_ELEM, &mut attributes) }.map(drop)
}

/// Bytes of a key of a trie of prefixes.
pub(crate) type TrieKey = [u8; 20];

/// Writes an element of a trie of prefixes.
pub(crate) fn put_prefix(trie: BorrowedFd<'_>, key: &TrieKey, value: u32) -> io::Result<()> {
    let mut attributes = Attributes::new().fd(0, trie).pointer(8, key.as_ptr()).pointer(16, &raw const value);
    // SAFETY: the caller's map has keys of twenty bytes and values of four.
    unsafe { bpf(MAP_UPDATE_ELEM, &mut attributes) }.map(drop)
}

/// Removes an element of a trie of prefixes.
pub(crate) fn remove_prefix(trie: BorrowedFd<'_>, key: &TrieKey) -> io::Result<()> {
    // SAFETY: as above.
    unsafe { bpf(MAP_DELETE_ELEM, &mut Attributes::new().fd(0, trie).pointer(8, key.as_ptr())) }.map(drop)
}

/// The keys of a trie of prefixes, which nobody writes to meanwhile.
pub(crate) fn prefixes(trie: BorrowedFd<'_>) -> io::Result<Vec<TrieKey>> {
    let mut keys: Vec<TrieKey> = Vec::new();
    loop {
        let mut next: TrieKey = [0; 20];
        let mut attributes = Attributes::new().fd(0, trie).pointer(16, next.as_mut_ptr().cast_const());
        if let Some(last) = keys.last() {
            attributes = attributes.pointer(8, last.as_ptr());
        }
        // SAFETY: the caller's map has keys of twenty bytes, as many as the kernel reads and writes.
        match unsafe { bpf(MAP_GET_NEXT_KEY, &mut attributes) } {
            Ok(_) => keys.push(next),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(keys),
            Err(error) => return Err(error),
        }
    }
}

/// Values that the kernel can write as bytes, and that any bytes are.
pub(crate) trait Plain: Copy + zerocopy::FromBytes {}
impl<T: Copy + zerocopy::FromBytes> Plain for T {}

/// Reads one element of a per-CPU array: a value for each possible CPU.
pub(crate) fn lookup_per_cpu<T: Plain>(map: BorrowedFd<'_>, index: u32, cpus: usize) -> io::Result<Vec<T>> {
    const { assert!(size_of::<T>().is_multiple_of(8)) };
    let mut values: Vec<MaybeUninit<T>> = Vec::with_capacity(cpus);
    let mut attributes =
        Attributes::new().fd(0, map).pointer(8, &raw const index).pointer(16, values.as_mut_ptr().cast_const());
    // SAFETY: the kernel writes one value, whose size is a multiple of eight, for each possible CPU: `cpus` of them.
    unsafe { bpf(MAP_LOOKUP_ELEM, &mut attributes) }?;
    // SAFETY: the kernel has written all of them, and any bytes are a `T`.
    unsafe {
        values.set_len(cpus);
        Ok(values.into_iter().map(|value| value.assume_init()).collect())
    }
}

/// Elements read by one call: with 2 KiB each and 256 CPUs, 16 MiB.
const BATCH: usize = 32;

/// Calls `each` with index and values by CPU of all elements of a per-CPU array; few system calls where the kernel
/// can (5.13), one for each element where not.
pub(crate) fn for_each_per_cpu<T: Plain>(
    map: BorrowedFd<'_>,
    elements: u32,
    cpus: usize,
    mut each: impl FnMut(u32, &[T]),
) -> io::Result<()> {
    const { assert!(size_of::<T>().is_multiple_of(8)) };
    let mut keys = [0u32; BATCH];
    let mut values: Vec<MaybeUninit<T>> = Vec::with_capacity(BATCH * cpus);
    let mut token = 0u32;
    let mut first = true;
    loop {
        let next = 0u32;
        let mut attributes = Attributes::new()
            .pointer(8, &raw const next)
            .pointer(16, keys.as_mut_ptr().cast_const())
            .pointer(24, values.as_mut_ptr().cast_const())
            .word(32, BATCH as u32)
            .fd(36, map);
        if !first {
            attributes = attributes.pointer(0, &raw const token);
        }
        // SAFETY: keys and values have room for BATCH elements, of `cpus` values each; the tokens are four bytes.
        let result = unsafe { bpf(MAP_LOOKUP_BATCH, &mut attributes) };
        let done = match result {
            Ok(_) => false,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
            Err(_) if first => break,
            Err(error) => return Err(error),
        };
        let count = (attributes.0[8] as usize).min(BATCH);
        // SAFETY: the kernel has written `count` elements, and any bytes are a `T`.
        let read: &[T] = unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), count * cpus) };
        for (key, value) in keys[..count].iter().zip(read.chunks_exact(cpus)) {
            each(*key, value);
        }
        if done {
            return Ok(());
        }
        // SAFETY: `next` was written by the kernel through its address.
        token = unsafe { std::ptr::read_volatile(&raw const next) };
        first = false;
    }
    for index in 0..elements {
        each(index, &lookup_per_cpu(map, index, cpus)?);
    }
    Ok(())
}

/// Whether a path lies on a BPF file system. The path exists.
pub(crate) fn is_bpffs(path: &Path) -> io::Result<bool> {
    const BPF_FS_MAGIC: i64 = 0xcafe_4a11;
    let found = nix::sys::statfs::statfs(path)?;
    Ok(found.filesystem_type().0 as i64 & 0xffff_ffff == BPF_FS_MAGIC)
}

/// Number of possible CPUs: values of an element of a per-CPU map.
pub(crate) fn possible_cpus() -> io::Result<usize> {
    aya::util::nr_cpus().map_err(|(_, error)| error)
}

/// Duplicates a file descriptor.
pub(crate) fn duplicate(fd: &impl AsFd) -> io::Result<OwnedFd> {
    fd.as_fd().try_clone_to_owned()
}
