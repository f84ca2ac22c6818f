//! Reads an agent's metrics (the Prometheus text format).

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

use super::layout::{Host, METRICS};
use super::{Topology, client};

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

impl Topology {
    /// What an agent exports now.
    pub(crate) fn metrics(&self, host: Host) -> Result<Vec<Sample>> {
        let reply = client::get(&self.netns(host), METRICS.parse()?, "/metrics")?;
        if reply.status != 200 {
            bail!("/metrics of {} answered {}: {}", host.name(), reply.status, reply.text());
        }
        parse(&reply.text())
    }

    /// How the program is attached on a node: native or generic.
    pub(crate) fn xdp_mode(&self, host: Host) -> Result<String> {
        let modes = sums(&self.metrics(host)?, "guenon_interface_info", "mode");
        Ok(modes.into_iter().filter(|(_, count)| *count > 0.0).map(|(mode, _)| mode).collect::<Vec<_>>().join("+"))
    }

    /// The same; `None` if that node's agent was ended on purpose.
    pub(crate) fn metrics_if_up(&self, host: Host) -> Result<Option<Vec<Sample>>> {
        if self.agents.contains_key(&host) { self.metrics(host).map(Some) } else { Ok(None) }
    }
}

/// Sums of a metric by the value of one label; zero sums are there too.
pub(crate) fn sums(samples: &[Sample], name: &str, label: &str) -> BTreeMap<String, f64> {
    let mut sums = BTreeMap::new();
    for sample in samples.iter().filter(|s| s.name == name) {
        let key = sample.labels.get(label).cloned().unwrap_or_default();
        *sums.entry(key).or_insert(0.0) += sample.value;
    }
    sums
}

pub(crate) fn parse(text: &str) -> Result<Vec<Sample>> {
    text.lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| sample(line).with_context(|| format!("not a line of metrics: {line}")))
        .collect()
}

fn sample(line: &str) -> Option<Sample> {
    let (name, rest) = line.split_at(line.find(['{', ' '])?);
    let mut labels = BTreeMap::new();
    let mut rest = rest.trim_start();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once("=\"")?;
            let end = closing_quote(after)?;
            labels.insert(label.trim_start_matches(',').trim().to_owned(), unescape(&after[..end]));
            rest = &after[end + 1..];
        }
        rest = &rest[1..];
    }
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample { name: name.to_owned(), labels, value })
}

/// Where the first quote is that no backslash escapes.
fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    })
}

fn unescape(text: &str) -> String {
    text.replace("\\n", "\n").replace("\\\"", "\"").replace("\\\\", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read_and_summed() {
        let text = "# HELP x y\na_total{cpu=\"0\",verdict=\"TX\"} 3\na_total{cpu=\"1\",verdict=\"TX\"} 4\nb 1e3\nc{d=\"e, \\\"f}\"} 0\n";
        let samples = parse(text).expect("these are metrics");
        assert_eq!(samples.len(), 4);
        assert_eq!(sums(&samples, "a_total", "verdict"), BTreeMap::from([("TX".to_owned(), 7.0)]));
        assert_eq!(samples[2].value, 1000.0);
        assert_eq!(samples[3].labels["d"], "e, \"f}");
    }
}
