//! The stable matching of base rows and candidates by deferred acceptance: rows propose in order of their
//! preference, candidates keep their best until their quota is full.
//!
//! A base row stands for its copies, so what is proposed, kept and turned away is an amount (the stable allocation
//! problem of Baïou and Balinski, "Erratum: the stable allocation (or ordinal transportation) problem",
//! Mathematics of Operations Research 27(4), 2002). Both sides rank a pair by the same score; then the stable
//! matching is unique, and is what taking all pairs in order of score would give.
//!
//! A row looks at its best few candidates ([`LIST`]) and ranks again only when those have all turned it away, so
//! time is near base rows x candidates and no table of scores is kept.

use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

use super::quota::apportion;
use super::score::{Candidate, SCORE_BITS, Scores, key_of, reciprocal, uniform, unweighted, weighted};

/// Choices that a row remembers.
const LIST: usize = 3;
/// Up to so many candidates are ranked without branches: for more, most are not worth a place on the list.
const FEW: usize = 16;

/// So many copies of a base row go to a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Take {
    /// The base row, 0..1,024.
    pub base: u16,
    /// Rank among the candidates.
    pub who: u32,
    /// How many copies.
    pub amount: u32,
    /// Score and rank in one word, as the base row orders its candidates.
    key: u64,
}

/// Scratch memory and, after [`Matching::run`], the result.
#[derive(Debug, Default)]
pub(super) struct Matching {
    wishes: Vec<Wishes>,
    ranked: Vec<Ranked>,
    /// Whether weights differ.
    weighted: bool,
    /// By candidate.
    held: Vec<Held>,
    waiting: Vec<(u16, u32)>,
    takes: Vec<Take>,
}

/// What scores need of a candidate.
#[derive(Clone, Copy, Debug)]
struct Ranked {
    identity: u64,
    reciprocal: u64,
}

/// The next choices of a base row, best first; 0 = there are no more.
#[derive(Clone, Copy, Debug, Default)]
struct Wishes {
    list: [u64; LIST],
    at: usize,
}

/// What a candidate holds: in any order while there is room, then ordered.
#[derive(Debug, Default)]
struct Held {
    unordered: Vec<Offer>,
    /// The least on top.
    ordered: BinaryHeap<Offer>,
    /// Copies that there is still room for.
    free: u32,
}

impl Held {
    /// Holds nothing; memory is kept.
    fn reset(&mut self, quota: u32) {
        self.free = quota;
        if self.unordered.capacity() == 0 {
            self.unordered = std::mem::take(&mut self.ordered).into_vec();
        }
        self.unordered.clear();
        self.ordered.clear();
    }

    /// Takes an offer for which there is room.
    fn accept(&mut self, offer: Offer, amount: u32) {
        self.free -= amount;
        self.unordered.push(offer);
    }

    /// All offers, now that there is no room: from here on the least one matters.
    fn full(&mut self) -> &mut BinaryHeap<Offer> {
        if !self.unordered.is_empty() {
            self.ordered = BinaryHeap::from(std::mem::take(&mut self.unordered));
        }
        &mut self.ordered
    }

    /// Where the least offer is of the same amount (the common case: one copy a row), one of the two goes out.
    fn exchange(&mut self, offer: Offer) -> Option<Offer> {
        let mut least = self.full().peek_mut()?;
        if least.amount() != offer.amount() {
            return None;
        }
        Some(if offer < *least { std::mem::replace(&mut *least, offer) } else { offer })
    }

    fn offers(&self) -> impl Iterator<Item = &Offer> {
        self.unordered.iter().chain(&self.ordered)
    }
}

/// Score (46 bits), base row (10, the lower ranks higher), amount (8); inverted but for the amount, so that the
/// least is the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Offer(u64);

impl Offer {
    fn new(key: u64, base: u16, amount: u32) -> Self {
        let score = key >> 18;
        Self((!(score << 10 | (1023 - u64::from(base)))) << 8 | u64::from(amount))
    }
    fn amount(self) -> u32 {
        self.0 as u8 as u32
    }
    fn base(self) -> u16 {
        (self.0 >> 8) as u16 & 1023
    }
    fn score(self) -> u64 {
        !self.0 >> 18
    }
}

const _: () = assert!(SCORE_BITS + 18 == 64);

impl Matching {
    /// Gives every copy of every base row to a candidate. `copies` (at most 64 each) are `rows` in all; quotas are by weight.
    pub(super) fn run(
        &mut self,
        scores: &Scores,
        candidates: &[Candidate],
        copies: &[u32],
        rows: u32,
        quotas: &mut Vec<u32>,
    ) {
        self.takes.clear();
        if candidates.is_empty() {
            return;
        }
        apportion(rows, candidates.iter().map(|candidate| candidate.weight), quotas);
        self.weighted = candidates.iter().any(|candidate| candidate.weight != candidates[0].weight);
        self.ranked.clear();
        self.ranked.extend(
            candidates
                .iter()
                .map(|candidate| Ranked { identity: candidate.identity, reciprocal: reciprocal(candidate.weight) }),
        );
        if self.held.len() < candidates.len() {
            self.held.resize_with(candidates.len(), Held::default);
        }
        for (held, &quota) in self.held.iter_mut().zip(quotas.iter()) {
            held.reset(quota);
        }
        self.wishes.clear();
        for (base, &amount) in (0u16..).zip(copies) {
            if amount == 0 {
                self.wishes.push(Wishes::default());
                continue;
            }
            let list = self.best(scores, base, u64::MAX);
            self.wishes.push(Wishes { list, at: 0 });
            self.propose(base, amount, list[0]);
            self.settle(scores);
        }
        self.collect(copies.iter().all(|&amount| amount <= 1));
    }

    /// What [`Matching::run`] found: all of a base row side by side, its best choice first.
    pub(super) fn takes(&self) -> &[Take] {
        &self.takes
    }

    /// The candidate that the base row ranks next after the one of `take`, or, after the last, the first;
    /// `None` if there is no other.
    pub(super) fn next_choice(&self, scores: &Scores, candidates: &[Candidate], take: &Take) -> Option<u32> {
        if candidates.len() < 2 {
            return None;
        }
        let wishes = &self.wishes[usize::from(take.base)];
        let at = if wishes.list[0] == take.key { Some(0) } else { wishes.list.iter().position(|key| *key == take.key) };
        let known = match at {
            Some(at) if at + 1 < LIST => wishes.list[at + 1],
            _ => self.best(scores, take.base, take.key)[0],
        };
        let next = if known == 0 { self.best(scores, take.base, u64::MAX)[0] } else { known };
        Some(who(next))
    }

    /// Lets everybody who waits propose, until all have a place.
    fn settle(&mut self, scores: &Scores) {
        while let Some((base, amount)) = self.waiting.pop() {
            let wishes = &mut self.wishes[usize::from(base)];
            if wishes.at == LIST {
                let last = wishes.list[LIST - 1];
                let list = self.best(scores, base, last);
                self.wishes[usize::from(base)] = Wishes { list, at: 0 };
            }
            let wishes = &self.wishes[usize::from(base)];
            let key = wishes.list[wishes.at];
            // There are as many places as copies: who is turned away by all would leave one of them free.
            assert!(key != 0, "base row {base} was turned away by every candidate");
            self.propose(base, amount, key);
        }
    }

    fn propose(&mut self, base: u16, amount: u32, key: u64) {
        let who = who(key);
        let held = &mut self.held[who as usize];
        let offer = Offer::new(key, base, amount);
        if held.free >= amount {
            held.accept(offer, amount);
            return;
        }
        if held.free == 0
            && let Some(out) = held.exchange(offer)
        {
            self.turn_away(out.base(), amount, key);
            return;
        }
        let mut excess = amount - held.free;
        held.free = 0;
        held.full().push(offer);
        while excess > 0 {
            let Some(mut least) = self.held[who as usize].full().peek_mut() else { break };
            let (out, gone) = (least.base(), least.amount().min(excess));
            excess -= gone;
            if gone == least.amount() {
                PeekMut::pop(least);
            } else {
                least.0 -= u64::from(gone);
                drop(least);
            }
            self.turn_away(out, gone, key);
        }
    }

    /// `amount` copies of a base row have no place any more with the candidate of `key`.
    fn turn_away(&mut self, base: u16, amount: u32, key: u64) {
        let wishes = &mut self.wishes[usize::from(base)];
        // A row that has gone on already proposes what it lost to its present choice.
        if wishes.at < LIST && who(wishes.list[wishes.at]) == who(key) && wishes.list[wishes.at] != 0 {
            wishes.at += 1;
        }
        self.waiting.push((base, amount));
    }

    /// The best choices of a base row among those below a key, best first.
    fn best(&self, scores: &Scores, base: u16, below: u64) -> [u64; LIST] {
        let row = scores.row(base);
        if self.weighted {
            best_of(&self.ranked, below, |c| weighted(uniform(row, c.identity), c.reciprocal))
        } else {
            best_of(&self.ranked, below, |c| unweighted(uniform(row, c.identity)))
        }
    }

    /// Sets `takes` from what candidates hold.
    fn collect(&mut self, one_copy: bool) {
        let held = (0u32..).zip(&self.held[..self.ranked.len()]);
        let takes = held.flat_map(|(who, held)| {
            held.offers().map(move |offer| Take {
                base: offer.base(),
                who,
                amount: offer.amount(),
                key: key_of(offer.score(), who),
            })
        });
        self.takes.extend(takes);
        if one_copy {
            return; // One take a base row: there is nothing to order.
        }
        self.takes.sort_unstable_by_key(|take| (take.base, std::cmp::Reverse(take.key)));
        // What a row lost elsewhere and brought to its next choice stands there beside what it had brought before.
        self.takes.dedup_by(|next, take| {
            let same = (next.base, next.key) == (take.base, take.key);
            if same {
                take.amount += next.amount;
            }
            same
        });
    }
}

fn who(key: u64) -> u32 {
    0x3_ffff - (key as u32 & 0x3_ffff)
}

#[inline]
fn best_of(ranked: &[Ranked], below: u64, score: impl Fn(&Ranked) -> u64) -> [u64; LIST] {
    let mut best = [0; LIST];
    let few = below == u64::MAX && ranked.len() <= FEW;
    for (index, candidate) in (0u32..).zip(ranked) {
        let mut key = key_of(score(candidate), index);
        // Among few, most belong on the list for a while: the test, mispredicted, would cost more than it saves.
        if !few && (key >= below || key < best[LIST - 1]) {
            continue;
        }
        for place in &mut best {
            (*place, key) = ((*place).max(key), (*place).min(key));
        }
    }
    best
}
