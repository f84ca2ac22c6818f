//! What was sent and what of it was lost.

use std::collections::BTreeMap;
use std::fmt::{Display, Formatter};
use std::time::Duration;

use anyhow::{Result, bail};

/// Something that was lost.
#[derive(Clone, Debug)]
pub(crate) struct Loss {
    /// When it was sent, after the load began.
    pub(crate) at: Duration,
    /// Who had answered its flow before; nobody, if it was a new one.
    pub(crate) by: Option<String>,
    pub(crate) what: String,
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
    pub(crate) kinds: BTreeMap<&'static str, Kind>,
}

/// Losses that are shown of each kind.
const SHOWN: usize = 3;

impl Report {
    pub(super) fn one(name: &'static str, kind: Kind) -> Self {
        Self { kinds: BTreeMap::from([(name, kind)]) }
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

    /// An error if anything was lost but what is excused, or if any kind was not sent at all.
    pub(crate) fn nothing_lost_but(&self, excused: impl Fn(&Loss) -> bool) -> Result<()> {
        if let Some((name, _)) = self.kinds.iter().find(|(_, kind)| kind.sent == 0) {
            bail!("the load sent no {name}");
        }
        let mut faults = Vec::new();
        for (name, kind) in &self.kinds {
            let lost: Vec<&Loss> = kind.lost.iter().filter(|loss| !excused(loss)).collect();
            if lost.is_empty() {
                continue;
            }
            faults.push(format!("{} of {} {name} were lost that nothing excuses:", lost.len(), kind.sent));
            faults.extend(lost.iter().take(SHOWN).map(|loss| format!("  {loss}")));
        }
        if faults.is_empty() { Ok(()) } else { bail!("{}", faults.join("\n")) }
    }

    /// The same without any excuse.
    pub(crate) fn nothing_lost(&self) -> Result<()> {
        self.nothing_lost_but(|_| false)
    }
}

impl Display for Loss {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let by = self.by.as_deref().unwrap_or("nobody yet");
        write!(f, "{:.1} s after the start, flow answered by {by}: {}", self.at.as_secs_f64(), self.what)
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let kinds: Vec<String> =
            self.kinds.iter().map(|(name, kind)| format!("{} of {} {name} lost", kind.lost.len(), kind.sent)).collect();
        write!(f, "{}", kinds.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_excused_may_be_lost() {
        let loss = |by: &str| Loss { at: Duration::ZERO, by: Some(by.to_owned()), what: String::new() };
        let report = Report::one("datagrams", Kind { sent: 10, lost: vec![loss("n2"), loss("n3")] });
        assert!(report.nothing_lost().is_err());
        let error = report.nothing_lost_but(|loss| loss.by.as_deref() == Some("n3")).expect_err("n2's is left");
        assert!(error.to_string().starts_with("1 of 10 datagrams"), "{error}");
        assert!(report.nothing_lost_but(|_| true).is_ok());
        assert!(Report::one("datagrams", Kind::default()).nothing_lost().is_err(), "nothing was sent");
    }
}
