//! Services: descriptor, rows, names.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Rows of one page of `ROWS`, and the least number of rows of a service.
pub const PAGE_ROWS: u32 = 1024;
/// The most rows of a service.
pub const MAX_ROWS: u32 = 65_536;

/// One element of `SERVICES`. All that a packet needs of a service hangs on this one word, so one
/// 8-byte store puts a new configuration in force: bits 0..24 first row page, 24..28 log2 of the
/// number of pages, 28 present, 29 has rows, 30 client-IP affinity, 32..64 first element of the endpoint
/// block in `ENDPOINTS`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Descriptor(pub u64);

impl Descriptor {
    /// The service exists (the id is taken).
    pub const PRESENT: u64 = 1 << 28;
    /// There is a row to pick; else packets are dropped as `no_backend`.
    pub const HAS_ROWS: u64 = 1 << 29;
    /// The row is picked by the client's address alone.
    pub const CLIENT_IP: u64 = 1 << 30;

    /// A service with `1 << log2_pages` pages of rows from `page` on, endpoints from `block` on.
    #[must_use]
    pub const fn new(page: u32, log2_pages: u32, block: u32, client_ip: bool) -> Self {
        Self(
            page as u64
                | (log2_pages as u64) << 24
                | Self::PRESENT
                | Self::HAS_ROWS
                | if client_ip { Self::CLIENT_IP } else { 0 }
                | (block as u64) << 32,
        )
    }
    /// A service without any row: its frontends drop as `no_backend`. Its endpoints (of weight 0,
    /// or draining) may still stand in a block.
    #[must_use]
    pub const fn without_rows(client_ip: bool) -> Self {
        Self(Self::PRESENT | if client_ip { Self::CLIENT_IP } else { 0 })
    }
    /// Whether the id is taken.
    #[must_use]
    pub const fn is_present(self) -> bool {
        self.0 & Self::PRESENT != 0
    }
    /// Whether there is a row to pick.
    #[inline(always)]
    #[must_use]
    pub const fn has_rows(self) -> bool {
        self.0 & Self::HAS_ROWS != 0
    }
    /// Whether the row is picked by the client's address alone.
    #[inline(always)]
    #[must_use]
    pub const fn client_ip(self) -> bool {
        self.0 & Self::CLIENT_IP != 0
    }
    /// First page in `ROWS`.
    #[inline(always)]
    #[must_use]
    pub const fn page(self) -> u32 {
        self.0 as u32 & 0x00ff_ffff
    }
    /// log2 of the number of pages, 0..=6.
    #[inline(always)]
    #[must_use]
    pub const fn log2_pages(self) -> u32 {
        (self.0 >> 24) as u32 & 0xf
    }
    /// Number of rows.
    #[must_use]
    pub const fn rows(self) -> u32 {
        if self.has_rows() { PAGE_ROWS << self.log2_pages() } else { 0 }
    }
    /// First element of the endpoint block.
    #[inline(always)]
    #[must_use]
    pub const fn block(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// One row: two indices into the service's endpoint block. Low half primary, high half secondary
/// (equal to the primary when there is no other endpoint).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Row(pub u32);

impl Row {
    /// A row of this primary and secondary.
    #[must_use]
    pub const fn new(primary: u16, secondary: u16) -> Self {
        Self(primary as u32 | (secondary as u32) << 16)
    }
    /// Index of the primary endpoint in the block.
    #[inline(always)]
    #[must_use]
    pub const fn primary(self) -> u16 {
        self.0 as u16
    }
    /// Index of the secondary endpoint in the block.
    #[must_use]
    pub const fn secondary(self) -> u16 {
        (self.0 >> 16) as u16
    }
}

/// One element of `ROWS`: a page of rows, 4 KiB.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct RowPage(pub [Row; PAGE_ROWS as usize]);

/// Where row number `hash` (its low bits) of a service lies: page in `ROWS` and index in the page.
#[inline(always)]
#[must_use]
pub const fn locate_row(descriptor: Descriptor, hash: u64) -> (u32, u32) {
    let row = hash as u32 & ((PAGE_ROWS << descriptor.log2_pages()) - 1);
    (descriptor.page() + (row >> PAGE_ROWS.trailing_zeros()), row & (PAGE_ROWS - 1))
}

/// One element of `SERVICE_NAMES`: `namespace/name` of the service with the same id. 320 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct ServiceName {
    /// Bytes of `text` in use; 0 = none.
    pub len: u16,
    /// UTF-8.
    pub text: [u8; 318],
}

/// The one element of `META`. 64 bytes. Whoever opens pinned maps reads this first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct Meta {
    /// [`super::ABI_VERSION`] of whoever made the maps; always the first four bytes.
    pub abi: u32,
    /// Zero.
    pub reserved0: u32,
    /// Number of the configuration in force: raised once for each batch of changes.
    pub revision: u64,
    /// When `revision` came into force, seconds since the Unix epoch.
    pub revision_at: u64,
    /// [`crate::hash::Schedule::fingerprint`] of the hash key in use.
    pub hash_fingerprint: u64,
    /// Coarse time, for the age of flows: [`super::FLOW_TICK_SECONDS`] each, counted up by the agent. It stands still
    /// while no agent runs.
    pub clock: u64,
    /// Zero.
    pub reserved1: [u64; 3],
}

const _: () = {
    assert!(size_of::<Descriptor>() == 8);
    assert!(size_of::<RowPage>() == 4096);
    assert!(size_of::<ServiceName>() == 320);
    assert!(size_of::<Meta>() == 64);
};
