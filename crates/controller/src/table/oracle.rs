//! The definition taken literally: all pairs in order of score. Slow and plain; what the implementation is held to.

use std::collections::BTreeMap;
use std::net::IpAddr;

use guenon_ebpf::abi::PAGE_ROWS;
use guenon_ebpf::hash::Schedule;

use super::score::{self, Scores};
use super::{Group, endpoints_of};

/// The primary of every row, by address.
pub(super) fn primaries(schedule: &Schedule, groups: &[Group], rows: u32) -> Vec<IpAddr> {
    let scores = Scores::new(schedule);
    let endpoints = endpoints_of(groups);
    let mut by_name = BTreeMap::<&str, (u64, BTreeMap<IpAddr, u64>)>::new();
    for group in groups {
        let (weight, members) = by_name.entry(&group.name).or_default();
        if group.weight > 0 {
            *weight += u64::from(group.weight);
            for member in group.members.iter().filter(|member| member.weight > 0) {
                let weight = members.entry(member.address).or_default();
                *weight = (*weight).max(u64::from(member.weight));
            }
        }
    }
    by_name.retain(|_, (weight, members)| *weight > 0 && !members.is_empty());

    let groups: Vec<score::Candidate> = (0u32..)
        .zip(&by_name)
        .map(|(index, (name, (weight, _)))| score::Candidate {
            identity: scores.identity_of_name(name),
            weight: *weight,
            index,
        })
        .collect();
    let all: Vec<u32> = (0..rows).collect();
    let chosen = greedy(&scores, &groups, &all);
    let mut primaries = vec![None; rows as usize];
    for (index, (_, members)) in (0u32..).zip(by_name.values()) {
        let members: Vec<score::Candidate> = members
            .iter()
            .map(|(address, weight)| score::Candidate {
                identity: scores.identity_of_address(*address),
                weight: *weight,
                index: endpoints.binary_search(address).unwrap() as u32,
            })
            .collect();
        let mine: Vec<u32> = all.iter().copied().filter(|row| chosen[row] == index).collect();
        for (row, who) in greedy(&scores, &members, &mine) {
            primaries[row as usize] = Some(endpoints[who as usize]);
        }
    }
    primaries.into_iter().map(|primary| primary.expect("every row has a primary")).collect()
}

/// Row -> index of the candidate that takes it.
fn greedy(scores: &Scores, candidates: &[score::Candidate], rows: &[u32]) -> BTreeMap<u32, u32> {
    let weighted = candidates.iter().any(|candidate| candidate.weight != candidates[0].weight);
    let mut pairs = Vec::new();
    for &row in rows {
        let (base, copy) = ((row % PAGE_ROWS) as u16, (row / PAGE_ROWS).reverse_bits());
        for (place, candidate) in candidates.iter().enumerate() {
            let uniform = score::uniform(scores.row(base), candidate.identity);
            let score = if weighted {
                score::weighted(uniform, score::reciprocal(candidate.weight))
            } else {
                score::unweighted(uniform)
            };
            pairs.push((std::cmp::Reverse(score), candidate.index, base, copy, row, place));
        }
    }
    pairs.sort_unstable();

    let mut quotas = quotas(rows.len() as u128, candidates);
    let mut taken = BTreeMap::new();
    for (_, _, _, _, row, place) in pairs {
        if quotas[place] > 0 && !taken.contains_key(&row) {
            quotas[place] -= 1;
            taken.insert(row, candidates[place].index);
        }
    }
    taken
}

/// Largest remainder, one row at a time.
fn quotas(rows: u128, candidates: &[score::Candidate]) -> Vec<u128> {
    let sum: u128 = candidates.iter().map(|candidate| u128::from(candidate.weight)).sum();
    let mut quotas: Vec<u128> = candidates.iter().map(|c| rows * u128::from(c.weight) / sum).collect();
    let mut remainders: Vec<u128> = candidates.iter().map(|c| rows * u128::from(c.weight) % sum).collect();
    while quotas.iter().sum::<u128>() < rows {
        let largest = *remainders.iter().max().unwrap();
        let place = remainders.iter().position(|&remainder| remainder == largest).unwrap();
        quotas[place] += 1;
        remainders[place] = 0;
    }
    quotas
}
