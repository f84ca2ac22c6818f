//! Captures of pods' traffic as tshark reads them.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::capture::tshark;

/// A TCP segment or UDP datagram whose checksums are right.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Segment {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    /// All that a translation must leave as it is.
    pub(super) what: String,
}

/// tshark's word for a checksum that is right.
const GOOD: &str = "1";

/// Every one in a capture, which must be sound.
pub(super) fn segments(file: &Path) -> Result<Vec<Segment>> {
    const FIELDS: [&str; 19] = [
        "ip.version",
        "ip.src",
        "ip.dst",
        "ipv6.src",
        "ipv6.dst",
        "ip.checksum.status",
        "tcp.srcport",
        "tcp.dstport",
        "tcp.checksum.status",
        "udp.srcport",
        "udp.dstport",
        "udp.checksum.status",
        "tcp.seq_raw",
        "tcp.ack_raw",
        "tcp.flags",
        "tcp.window_size_value",
        "tcp.options",
        "tcp.payload",
        "udp.payload",
    ];
    sound(file)?;
    let mut segments = Vec::new();
    for line in fields(file, &FIELDS, "tcp || udp")?.lines() {
        let values: Vec<&str> = line.split('|').collect();
        let [version, from4, to4, from6, to6, ip_sum, tcp_from, tcp_to, tcp_sum, udp_from, udp_to, udp_sum, what @ ..] =
            &values[..]
        else {
            bail!("tshark says {line}")
        };
        let ip_right = if *version == "4" { *ip_sum == GOOD } else { ip_sum.is_empty() };
        // Of the one protocol the good word, of the other none.
        ensure!(ip_right && format!("{tcp_sum}{udp_sum}") == GOOD, "a checksum is wrong: {line}");
        let end = |four: &str, six: &str, tcp: &str, udp: &str| -> Result<SocketAddr> {
            let (ip, port) = (format!("{four}{six}"), format!("{tcp}{udp}"));
            Ok(SocketAddr::new(ip.parse().with_context(|| line.to_owned())?, port.parse()?))
        };
        let (from, to) = (end(from4, from6, tcp_from, udp_from)?, end(to4, to6, tcp_to, udp_to)?);
        segments.push(Segment { from, to, what: what.join(" ") });
    }
    ensure!(!segments.is_empty(), "{} is empty", file.display());
    Ok(segments)
}

/// An ICMP error whose checksums are right.
pub(super) struct Complaint {
    /// Whose, and to whom.
    pub(super) outer: (IpAddr, IpAddr),
    /// Whom the packet that it quotes was from and for.
    pub(super) quoted: (SocketAddr, SocketAddr),
    /// Type and code.
    pub(super) kind: String,
}

/// Every one in a capture, which must be sound.
pub(super) fn complaints(file: &Path) -> Result<Vec<Complaint>> {
    const FIELDS: [&str; 16] = [
        "ip.src",
        "ip.dst",
        "ipv6.src",
        "ipv6.dst",
        "tcp.srcport",
        "udp.srcport",
        "tcp.dstport",
        "udp.dstport",
        "icmp.type",
        "icmp.code",
        "icmpv6.type",
        "icmpv6.code",
        "icmp.checksum.status",
        "icmpv6.checksum.status",
        "tcp.checksum.status",
        "udp.checksum.status",
    ];
    const ERRORS: &str = "icmp.type in {3, 11, 12} || icmpv6.type < 128";
    sound(file)?;
    let mut complaints = Vec::new();
    for line in fields(file, &FIELDS, ERRORS)?.lines() {
        let values: Vec<&str> = line.split('|').collect();
        let [from4, to4, from6, to6, tcp_from, udp_from, tcp_to, udp_to, type4, code4, type6, code6, sums @ ..] =
            &values[..]
        else {
            bail!("tshark says {line}")
        };
        ensure!(sums[..2].concat() == GOOD, "a checksum is wrong: {line}");
        let pair = |four: &str, six: &str| -> Result<(IpAddr, IpAddr)> {
            let both = format!("{four}{six}");
            let (outer, inner) = both.split_once(',').with_context(|| format!("no quote: {line}"))?;
            Ok((outer.parse()?, inner.parse()?))
        };
        let (from, sender) = pair(from4, from6)?;
        let (to, receiver) = pair(to4, to6)?;
        let sender = SocketAddr::new(sender, format!("{tcp_from}{udp_from}").parse().context(line.to_owned())?);
        let receiver = SocketAddr::new(receiver, format!("{tcp_to}{udp_to}").parse().context(line.to_owned())?);
        let kind = if type6.is_empty() { format!("{type4}/{code4}") } else { format!("v6 {type6}/{code6}") };
        complaints.push(Complaint { outer: (from, to), quoted: (sender, receiver), kind });
    }
    Ok(complaints)
}

/// An error unless tshark finds every packet well formed and no checksum wrong, those of quoted datagrams included.
fn sound(file: &Path) -> Result<()> {
    // The segments that errors quote are short: nobody can check those.
    const BAD: &str = "_ws.malformed || ((_ws.short || tcp.checksum.status == 0) && !icmp && !icmpv6) \
                       || ip.checksum.status == 0 || udp.checksum.status == 0 || icmp.checksum.status == 0 \
                       || icmpv6.checksum.status == 0";
    const WHY: [&str; 8] = [
        "frame.number",
        "_ws.malformed",
        "ip.checksum.status",
        "tcp.checksum.status",
        "udp.checksum.status",
        "icmp.checksum.status",
        "icmpv6.checksum.status",
        "_ws.col.Info",
    ];
    let said = fields(file, &WHY, BAD)?;
    ensure!(said.trim().is_empty(), "tshark complains about {} ({}):\n{said}", file.display(), WHY.join("|"));
    Ok(())
}

fn fields(file: &Path, fields: &[&str], filter: &str) -> Result<String> {
    let mut args = vec!["-Y", filter, "-T", "fields", "-E", "separator=|", "-E", "occurrence=a", "-E", "aggregator=,"];
    args.extend(fields.iter().flat_map(|field| ["-e", field]));
    tshark(file, &args)
}
