//! What was sent and what of it was lost.

use std::collections::BTreeMap;
use std::fmt::{Display, Formatter};
use std::ops::Range;
use std::time::Duration;

use anyhow::{Result, bail};

/// Something that was lost.
#[derive(Clone, Debug)]
pub(crate) struct Loss {
    /// When it was sent and when it was given up, after the load began.
    pub(crate) from: Duration,
    pub(crate) until: Duration,
    /// Who had answered its flow before; nobody, if it was a new one.
    pub(crate) by: Option<String>,
    /// Whether it was a connection that an endpoint had accepted, which needs that endpoint to its end.
    pub(crate) accepted: bool,
    pub(crate) what: String,
}

impl Loss {
    /// Whether it was under way at some time of these.
    pub(crate) fn during(&self, times: &Range<Duration>) -> bool {
        self.from < times.end && self.until >= times.start
    }
}

/// One kind of traffic.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kind {
    pub(crate) sent: u64,
    pub(crate) lost: Vec<Loss>,
}

/// All of it, by kind.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    kinds: BTreeMap<&'static str, Kind>,
    /// What the nodes' programs dropped meanwhile, in words.
    pub(crate) drops: String,
}

/// Losses that may be, and why.
pub(crate) struct Excuse<'a> {
    pub(crate) why: &'static str,
    pub(crate) covers: Box<dyn Fn(&Loss) -> bool + 'a>,
}

/// Losses that are shown of each kind.
const SHOWN: usize = 3;

impl Report {
    pub(super) fn one(name: &'static str, kind: Kind) -> Self {
        Self { kinds: BTreeMap::from([(name, kind)]), drops: String::new() }
    }

    pub(super) fn add(&mut self, other: Self) {
        for (name, kind) in other.kinds {
            let own = self.kinds.entry(name).or_default();
            own.sent += kind.sent;
            own.lost.extend(kind.lost);
        }
    }

    /// Everything that was lost.
    pub(crate) fn losses(&self) -> impl Iterator<Item = &Loss> {
        self.kinds.values().flat_map(|kind| &kind.lost)
    }

    /// What was lost, and how much of it is excused by what; an error if something is not, or if nothing was sent.
    pub(crate) fn judge(&self, excuses: &[Excuse<'_>]) -> Result<String> {
        if let Some((name, _)) = self.kinds.iter().find(|(_, kind)| kind.sent == 0) {
            bail!("the load sent no {name}");
        }
        let (mut faults, mut excused) = (Vec::new(), vec![0_usize; excuses.len()]);
        for (name, kind) in &self.kinds {
            let mut lost = Vec::new();
            for loss in &kind.lost {
                match excuses.iter().position(|excuse| (excuse.covers)(loss)) {
                    Some(number) => excused[number] += 1,
                    None => lost.push(loss),
                }
            }
            if !lost.is_empty() {
                faults.push(format!("{} of {} {name} were lost that nothing excuses:", lost.len(), kind.sent));
                faults.extend(lost.iter().take(SHOWN).map(|loss| format!("  {loss}")));
            }
        }
        if !faults.is_empty() {
            bail!("{}\n{}", faults.join("\n"), self.drops);
        }
        let whys: String = excuses
            .iter()
            .zip(excused)
            .filter(|(_, count)| *count > 0)
            .map(|(excuse, count)| format!("; {count} of them {}", excuse.why))
            .collect();
        Ok(format!("{self}{whys}"))
    }
}

impl Display for Loss {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let by = self.by.as_deref().unwrap_or("nobody yet");
        let (from, until) = (self.from.as_secs_f64(), self.until.as_secs_f64());
        write!(f, "{from:.1} to {until:.1} s after the start, flow answered by {by}: {}", self.what)
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let kinds: Vec<String> =
            self.kinds.iter().map(|(name, kind)| format!("{} of {} {name}", kind.lost.len(), kind.sent)).collect();
        write!(f, "lost {}; {}", kinds.join(", "), self.drops)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loss(by: &str) -> Loss {
        let (from, until) = (Duration::from_secs(3), Duration::from_secs(5));
        Loss { from, until, by: Some(by.to_owned()), accepted: false, what: String::new() }
    }

    #[test]
    fn only_what_is_excused_may_be_lost() {
        let mut report = Report::one("datagrams", Kind { sent: 10, lost: vec![loss("n2"), loss("n3")] });
        "no drops".clone_into(&mut report.drops);
        let gone = Excuse { why: "were n3's", covers: Box::new(|loss| loss.by.as_deref() == Some("n3")) };
        let error = report.judge(&[gone]).expect_err("n2's is left");
        assert!(error.to_string().starts_with("1 of 10 datagrams"), "{error}");
        let all = Excuse { why: "are of no use", covers: Box::new(|_| true) };
        assert_eq!(
            report.judge(&[all]).expect("all are excused"),
            "lost 2 of 10 datagrams; no drops; 2 of them are of no use"
        );
        assert!(Report::one("datagrams", Kind::default()).judge(&[]).is_err(), "nothing was sent");
    }

    #[test]
    fn what_is_under_way_at_any_time_of_a_span_is_lost_during_it() {
        let during = |from, to| loss("n2").during(&(Duration::from_secs(from)..Duration::from_secs(to)));
        assert!(during(0, 4) && during(4, 9) && during(5, 9));
        assert!(!during(0, 3) && !during(6, 9));
    }
}
