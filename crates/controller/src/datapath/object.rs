//! The compiled XDP programs, embedded in the binary.

/// The ELF object that `build.rs` made of crates/ebpf. It starts at an address that is a multiple of 8, as
/// readers of ELF need.
pub const OBJECT: &[u8] = &ALIGNED.0;

#[repr(C, align(8))]
struct Aligned<T: ?Sized>(T);

static ALIGNED: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/guenon-xdp")));
