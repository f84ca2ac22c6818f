//! Where the words of the tables lie.

use guenon_ebpf::abi::{self, PAGE_ROWS, map};

use crate::datapath::atomic::{AtomicU64, Ordering};

/// The tables that are mapped into the agent's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// VIPs and tunnel addresses.
    Addresses,
    /// Known directors.
    Directors,
    /// Frontends.
    Frontends,
    /// Descriptors of services.
    Services,
    /// Names of services.
    ServiceNames,
    /// Pages of rows.
    Rows,
    /// Endpoint blocks.
    Endpoints,
    /// Next hops.
    NextHops,
    /// What next hops stand for.
    NextHopKeys,
    /// Devices to send from.
    Interfaces,
    /// Local deliveries.
    Locals,
    /// Which interface counts where.
    Attachments,
    /// Addresses of VIPs, by id.
    Vips,
    /// Ports that endpoints of delivery `Nat` listen on.
    TargetPorts,
    /// Flows of endpoints of delivery `Nat`. The programs write it; the agent reads.
    Flows,
    /// Version and revision.
    Meta,
}

impl Table {
    /// Every table.
    pub const ALL: [Self; 16] = [
        Self::Addresses,
        Self::Directors,
        Self::Frontends,
        Self::Services,
        Self::ServiceNames,
        Self::Rows,
        Self::Endpoints,
        Self::NextHops,
        Self::NextHopKeys,
        Self::Interfaces,
        Self::Locals,
        Self::Attachments,
        Self::Vips,
        Self::TargetPorts,
        Self::Flows,
        Self::Meta,
    ];

    /// Name of the map.
    #[must_use]
    pub const fn map(self) -> &'static str {
        match self {
            Self::Addresses => map::ADDRESSES,
            Self::Directors => map::DIRECTORS,
            Self::Frontends => map::FRONTENDS,
            Self::Services => map::SERVICES,
            Self::ServiceNames => map::SERVICE_NAMES,
            Self::Rows => map::ROWS,
            Self::Endpoints => map::ENDPOINTS,
            Self::NextHops => map::NEXT_HOPS,
            Self::NextHopKeys => map::NEXT_HOP_KEYS,
            Self::Interfaces => map::INTERFACES,
            Self::Locals => map::LOCALS,
            Self::Attachments => map::ATTACHMENTS,
            Self::Vips => map::VIPS,
            Self::TargetPorts => map::TARGET_PORTS,
            Self::Flows => map::FLOWS,
            Self::Meta => map::META,
        }
    }

    /// Bytes of an element.
    #[must_use]
    pub const fn element_bytes(self) -> usize {
        match self {
            Self::Addresses | Self::Directors => size_of::<abi::AddressSlot>(),
            Self::Frontends => size_of::<abi::FrontendSlot>(),
            Self::Services => size_of::<abi::Descriptor>(),
            Self::ServiceNames => size_of::<abi::ServiceName>(),
            Self::Rows => size_of::<abi::RowPage>(),
            Self::Endpoints => size_of::<abi::Endpoint>(),
            Self::NextHops => size_of::<abi::NextHop>(),
            Self::NextHopKeys => size_of::<abi::NextHopKey>(),
            Self::Interfaces => size_of::<abi::Interface>(),
            Self::Locals => size_of::<abi::LocalSlot>(),
            Self::Attachments => size_of::<abi::Attachment>(),
            Self::Vips => size_of::<abi::VipSlot>(),
            Self::TargetPorts => size_of::<u64>(),
            Self::Flows => size_of::<abi::FlowSet>(),
            Self::Meta => size_of::<abi::Meta>(),
        }
    }

    /// 8-byte words of an element.
    #[must_use]
    pub const fn element_words(self) -> usize {
        self.element_bytes() / 8
    }
}

/// How much the tables promise to hold. Open-addressed tables have four slots for each entry promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Capacities {
    /// Services (`--max-services`).
    pub services: u32,
    /// Frontends, and VIPs (`--max-frontends`).
    pub frontends: u32,
    /// Endpoints, those of a change in flight included (`--max-endpoints`).
    pub endpoints: u32,
    /// Pages of 1,024 rows, those of a change in flight included (`--max-row-pages`).
    pub row_pages: u32,
    /// Local deliveries: frontends times endpoints on this node (`--max-locals`).
    pub locals: u32,
    /// Flows of endpoints of this node with delivery `Nat` (`--max-flows`).
    pub flows: u32,
}

impl Default for Capacities {
    fn default() -> Self {
        Self {
            services: 16_384,
            frontends: 16_384,
            endpoints: 262_144,
            row_pages: 16_384,
            locals: 16_384,
            flows: 262_144,
        }
    }
}

/// Next hops: gateways, and on-link nodes.
pub const MAX_NEXT_HOPS: u32 = 8192;
/// Directors that may send to one node.
pub const MAX_DIRECTORS: u32 = 4096;

impl Capacities {
    /// Elements of a table's map.
    #[must_use]
    pub fn elements(&self, table: Table) -> u32 {
        let slots = |entries: u32| entries.max(1).saturating_mul(4).next_power_of_two();
        match table {
            // Every endpoint of this node may have an address of its own beside the VIPs.
            Table::Addresses => slots(self.frontends.saturating_add(self.locals)),
            Table::Frontends => slots(self.frontends),
            Table::Directors => slots(MAX_DIRECTORS),
            Table::Services | Table::ServiceNames => self.services.max(1),
            Table::Rows => self.row_pages.max(1),
            Table::Endpoints => self.endpoints.max(1),
            Table::NextHops | Table::NextHopKeys => MAX_NEXT_HOPS,
            Table::Interfaces | Table::Attachments => abi::MAX_INTERFACES,
            Table::Locals => slots(self.locals),
            // As many as there may be VIPs, withdrawn ones included.
            Table::Vips => slots(self.frontends).min(abi::MAX_VIPS),
            Table::TargetPorts => abi::TARGET_PORT_WORDS,
            Table::Flows => (self.flows.max(1).div_ceil(abi::FLOW_WAYS as u32)).next_power_of_two(),
            Table::Meta => 1,
        }
    }
}

/// Memory that holds the tables. Its words may be read by others at any time; one writer.
pub trait Store {
    /// The words of a table, all of its elements one after the other.
    fn words(&self, table: Table) -> &[AtomicU64];

    /// Rows of a page of `ROWS`. Other than the ABI's in models only, to keep them small.
    fn page_rows(&self) -> u32 {
        PAGE_ROWS
    }

    /// Number of elements of a table.
    fn elements(&self, table: Table) -> u32 {
        let words = if table == Table::Rows { self.page_rows() as usize / 2 } else { table.element_words() };
        u32::try_from(self.words(table).len() / words).unwrap_or(u32::MAX)
    }

    /// Reads a word; what was written before it was published is seen too.
    fn load(&self, table: Table, word: usize) -> u64 {
        self.words(table)[word].load(Ordering::Acquire)
    }

    /// Writes a word that nobody is led to yet.
    fn prepare(&self, table: Table, word: usize, value: u64) {
        self.words(table)[word].store(value, Ordering::Relaxed);
    }

    /// Writes a word that leads to what was prepared before it.
    fn publish(&self, table: Table, word: usize, value: u64) {
        self.words(table)[word].store(value, Ordering::Release);
    }

    /// Reads an element of `N` words.
    fn element<const N: usize>(&self, table: Table, index: u32) -> [u64; N]
    where
        Self: Sized,
    {
        let first = index as usize * N;
        std::array::from_fn(|word| self.load(table, first + word))
    }
}
