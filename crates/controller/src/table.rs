//! Forwarding tables: rendezvous with quotas. Which endpoint takes which row of a service.
//!
//! Pure and history-free: the same groups and key give the same table on every node, whatever the CPU, the libc or
//! the order in which objects came.
//!
//! # The algorithm
//!
//! 1. **Quotas.** Each endpoint has its exact share of the rows by weight, rounded by largest remainder
//!    (`quota.rs`).
//! 2. **Scores.** Each pair of a base row (row mod 1,024) and an endpoint has a score from a keyed hash and the
//!    endpoint's weight (`score.rs`): weighted rendezvous hashing (Thaler and Ravishankar, "Using name-based
//!    mappings to increase hit rates", IEEE/ACM Transactions on Networking 6(1), 1998). Rows that differ by a
//!    multiple of 1,024 are copies of one base row, so doubling the rows moves next to nothing.
//! 3. **Matching.** In order of score, a row takes the endpoint unless the row has one or the endpoint's quota
//!    is full; copies in order of their bit-reversed number (see `copy_at`). That is the one stable matching of rows and endpoints, and
//!    deferred acceptance finds it without sorting all pairs (`matching.rs`; Gale and Shapley, "College
//!    admissions and the stability of marriage", American Mathematical Monthly 69(1), 1962).
//!
//! With several groups (backendRefs) this happens twice: rows pick groups by the groups' weights, then, in
//! each group, the rows it got pick endpoints by theirs. So a change inside a group moves no row of another.
//!
//! Measured for 2 to 512 endpoints of equal weight: adding one moves its share and 1.9 % of the rest (3.2 % at most),
//! doubling the rows moves 0.4 % (1.1 % at most, near 64 rows an endpoint).
//!
//! A row's secondary is its next choice after the primary within the group; where the group has no other
//! endpoint, the best of the row's next group.

mod matching;
#[cfg(test)]
mod oracle;
mod quota;
mod score;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::Arc;

use guenon_ebpf::abi::{MAX_ROWS, PAGE_ROWS, Row};
use guenon_ebpf::hash::Schedule;

use matching::{Matching, Take};
use score::Scores;

/// Rows for each endpoint, at least, until [`MAX_ROWS`] is reached: a share is off by 1.5 % at most.
pub const ROWS_PER_ENDPOINT: usize = 64;

/// Endpoints that a service can have, of any weight. Those with the highest addresses beyond it get no row and do not
/// stand in [`Table::endpoints`]; whoever calls says so.
pub const MAX_ENDPOINTS: usize = u16::MAX as usize;

/// An endpoint that may take rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its identity.
    pub address: IpAddr,
    /// Its share within the group; 0 = primary of no row. Differences count fully up to 2^16.
    pub weight: u32,
}

/// Endpoints that share one weight: those of a backendRef, or all that are given in the object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its identity among the groups of the service. Groups of one name are one, of the sum of their weights.
    pub name: String,
    /// Its share of the rows, whatever the number of members; 0 = no row. A group without a member of
    /// weight leaves its share to the others.
    pub weight: u32,
    /// Its endpoints in any order. An address seen twice is one endpoint, of the larger weight.
    pub members: Vec<Candidate>,
}

/// A service's forwarding table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Every member of every group, sorted by address, each once; rows index it.
    pub endpoints: Vec<IpAddr>,
    /// The least power of two ≥ 64 x endpoints of weight, within 1,024..=65,536; empty where no endpoint has weight.
    pub rows: Arc<[Row]>,
}

/// Builds one table, in memory that each thread keeps for the next.
#[must_use]
pub fn build(schedule: &Schedule, groups: &[Group]) -> Table {
    thread_local! {
        static BUILDER: RefCell<Option<Builder>> = const { RefCell::new(None) };
    }
    BUILDER.with_borrow_mut(|kept| {
        let builder = match kept {
            Some(builder) if builder.scores.schedule() == schedule => builder,
            _ => kept.insert(Builder::new(schedule)),
        };
        let table = builder.build(groups);
        if table.endpoints.len() > KEPT {
            *kept = None;
        }
        table
    })
}

/// Scratch memory that was used for more endpoints than these is given back.
const KEPT: usize = 4096;

/// Builds tables one after the other, with memory that is used again.
#[derive(Debug)]
pub struct Builder {
    scores: Scores,
    matching: Matching,
    /// Those of weight, by name.
    groups: Vec<Members>,
    /// What each group got of each base row.
    shares: Vec<Take>,
    quotas: Vec<u32>,
    /// Per base row: how many copies the group at hand has, and the number of its first.
    copies: Vec<u32>,
    first_copy: Vec<u32>,
    rows: Vec<Row>,
}

/// A group of weight, made ready: its members of weight as candidates, who stand for indices in `Table::endpoints`.
#[derive(Debug, Default)]
struct Members {
    identity: u64,
    weight: u64,
    candidates: Vec<score::Candidate>,
}

impl Builder {
    /// A builder for this cluster's key.
    #[must_use]
    pub fn new(schedule: &Schedule) -> Self {
        Self {
            scores: Scores::new(schedule),
            matching: Matching::default(),
            groups: Vec::new(),
            shares: Vec::new(),
            quotas: Vec::new(),
            copies: vec![0; PAGE_ROWS as usize],
            first_copy: vec![0; PAGE_ROWS as usize],
            rows: Vec::new(),
        }
    }

    /// The table of these groups.
    #[must_use]
    pub fn build(&mut self, groups: &[Group]) -> Table {
        let endpoints = endpoints_of(groups);
        let weighted = self.prepare(groups, &endpoints);
        let rows = (weighted * ROWS_PER_ENDPOINT).next_power_of_two().clamp(PAGE_ROWS as usize, MAX_ROWS as usize);
        self.finish(endpoints, weighted, rows as u32)
    }

    /// The table of these groups with another number of rows: a power of two, 1,024..=65,536. For tests and benchmarks.
    ///
    /// # Panics
    ///
    /// On any other number.
    #[must_use]
    pub fn build_rows(&mut self, groups: &[Group], rows: u32) -> Table {
        assert!(rows.is_power_of_two() && (PAGE_ROWS..=MAX_ROWS).contains(&rows), "a table cannot have {rows} rows");
        let endpoints = endpoints_of(groups);
        let weighted = self.prepare(groups, &endpoints);
        self.finish(endpoints, weighted, rows)
    }

    fn finish(&mut self, endpoints: Vec<IpAddr>, weighted: usize, rows: u32) -> Table {
        self.fill(if weighted == 0 { 0 } else { rows });
        Table { endpoints, rows: Arc::from(self.rows.as_slice()) }
    }

    /// Sets `self.groups`; returns how many endpoints have weight.
    fn prepare(&mut self, groups: &[Group], endpoints: &[IpAddr]) -> usize {
        let mut by_name: Vec<&Group> = groups.iter().filter(|group| group.weight > 0).collect();
        by_name.sort_by(|a, b| a.name.cmp(&b.name));
        let mut used = 0;
        for same_name in by_name.chunk_by(|a, b| a.name == b.name) {
            if self.groups.len() == used {
                self.groups.push(Members::default());
            }
            let members = &mut self.groups[used];
            members.identity = self.scores.identity_of_name(&same_name[0].name);
            members.weight = same_name.iter().map(|group| u64::from(group.weight)).sum();
            members.candidates.clear();
            for candidate in same_name.iter().flat_map(|group| &group.members).filter(|member| member.weight > 0) {
                // Not found: beyond MAX_ENDPOINTS.
                if let Ok(index) = endpoints.binary_search(&candidate.address) {
                    members.candidates.push(score::Candidate {
                        identity: self.scores.identity_of_address(candidate.address),
                        weight: u64::from(candidate.weight),
                        index: index as u32,
                    });
                }
            }
            // Of an address that is there twice, the larger weight comes first and stays.
            members.candidates.sort_unstable_by(|a, b| a.index.cmp(&b.index).then(b.weight.cmp(&a.weight)));
            members.candidates.dedup_by_key(|candidate| candidate.index);
            if !members.candidates.is_empty() {
                used += 1;
            }
        }
        self.groups.truncate(used);
        match self.groups.as_slice() {
            [only] => only.candidates.len(),
            several => {
                let mut indices: Vec<u32> =
                    several.iter().flat_map(|group| group.candidates.iter().map(|c| c.index)).collect();
                indices.sort_unstable();
                indices.dedup();
                indices.len()
            }
        }
    }

    /// Sets `self.rows` to this many rows (a multiple of 1,024, or 0).
    fn fill(&mut self, rows: u32) {
        self.rows.clear();
        self.rows.resize(rows as usize, Row::default());
        let copies = rows / PAGE_ROWS;
        if let [only] = self.groups.as_slice() {
            self.copies.fill(copies);
            self.first_copy.fill(0);
            self.matching.run(&self.scores, &only.candidates, &self.copies, rows, &mut self.quotas);
            self.write(0);
            return;
        }
        let candidates: Vec<score::Candidate> = (0u32..)
            .zip(&self.groups)
            .map(|(index, group)| score::Candidate { identity: group.identity, weight: group.weight, index })
            .collect();
        self.copies.fill(copies);
        self.matching.run(&self.scores, &candidates, &self.copies, rows, &mut self.quotas);
        self.shares.clear();
        self.shares.extend_from_slice(self.matching.takes());
        for group in 0..self.groups.len() {
            let got = self.take_share(group);
            let candidates = &self.groups[group].candidates;
            self.matching.run(&self.scores, candidates, &self.copies, got, &mut self.quotas);
            self.write(group);
        }
    }

    /// Sets `copies` and `first_copy` to what the group got of each base row; returns the sum.
    fn take_share(&mut self, group: usize) -> u32 {
        self.copies.fill(0);
        let mut next = (usize::MAX, 0); // base row, copies given away so far
        let mut got = 0;
        for share in &self.shares {
            let base = usize::from(share.base);
            if next.0 != base {
                next = (base, 0);
            }
            if share.who as usize == group {
                self.copies[base] = share.amount;
                self.first_copy[base] = next.1;
                got += share.amount;
            }
            next.1 += share.amount;
        }
        got
    }

    /// Writes the rows of the group that was just matched.
    fn write(&mut self, group: usize) {
        let candidates = &self.groups[group].candidates;
        let copies = self.rows.len() as u32 / PAGE_ROWS;
        let mut written = (usize::MAX, 0); // base row, copies written so far
        for take in self.matching.takes() {
            let base = usize::from(take.base);
            if written.0 != base {
                written = (base, 0);
            }
            let primary = candidates[take.who as usize].index;
            let secondary = match self.matching.next_choice(&self.scores, candidates, take) {
                Some(next) => candidates[next as usize].index,
                None => self.next_group(group, take.base, primary).unwrap_or(primary),
            };
            let row = Row::new(primary as u16, secondary as u16);
            let first = self.first_copy[base] + written.1;
            for place in first..first + take.amount {
                self.rows[base + copy_at(place, copies) * PAGE_ROWS as usize] = row;
            }
            written.1 += take.amount;
        }
    }

    /// The best endpoint other than `primary` in the base row's next groups after `group`, best group first.
    fn next_group(&self, group: usize, base: u16, primary: u32) -> Option<u32> {
        if self.groups.len() < 2 {
            return None;
        }
        let rank = |index: usize| {
            let Members { identity, weight, .. } = self.groups[index];
            self.scores.key(base, &score::Candidate { identity, weight, index: index as u32 })
        };
        let own = rank(group);
        let mut others: Vec<usize> = (0..self.groups.len()).filter(|&index| index != group).collect();
        // Those ranked below our own first, then those above; each best first.
        others.sort_by_key(|&index| {
            let key = rank(index);
            (key > own, std::cmp::Reverse(key))
        });
        others.into_iter().find_map(|other| {
            let best = self.groups[other]
                .candidates
                .iter()
                .filter(|candidate| candidate.index != primary)
                .max_by_key(|candidate| self.scores.key(base, candidate))?;
            Some(best.index)
        })
    }
}

/// The number of the copy that comes at this place in the order of copies.
///
/// Copies are served in order of their bit-reversed number. So the two copies that a row becomes when the rows are doubled
/// stand side by side, and where a base row is split between two candidates, both sides double. (In the plain
/// order, doubling 32,768 rows of 415 endpoints moved 12 % of them.)
fn copy_at(place: u32, copies: u32) -> usize {
    // With one copy the shift would be by all 32 bits: place is 0 then.
    place.reverse_bits().checked_shr(u32::BITS - copies.ilog2()).unwrap_or(0) as usize
}

fn endpoints_of(groups: &[Group]) -> Vec<IpAddr> {
    let mut endpoints: Vec<IpAddr> =
        groups.iter().flat_map(|group| group.members.iter().map(|member| member.address)).collect();
    endpoints.sort_unstable();
    endpoints.dedup();
    endpoints.truncate(MAX_ENDPOINTS);
    endpoints
}
