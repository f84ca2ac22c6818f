//! `guenon simulate`: what would become of these packets?

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use clap::ValueEnum;
use guenon_ebpf::abi::{ROLE_DECAP, ROLE_DIRECTOR};
use guenon_ebpf::hash::Schedule;

use super::options::Policy;
use super::status::format::{Style, Tone, count, number, plain, table, text};
use crate::model::{NodeView, Role};
use crate::run;
use crate::simulate::capture::{Capture, Writer};
use crate::simulate::desired::{Desired, desired, incoming, read_view};
use crate::simulate::replay::{self, Line, Summary, replay};
use crate::simulate::sandbox::{Sandbox, Setup, Verdict};

const EXAMPLES: &str = "\
Examples:
  guenon view > view.yaml; tcpdump -i eth0 -s 0 -w in.pcap
      On the node: all that is needed, together with its manifests, to replay what it sees elsewhere.
  guenon simulate --manifests manifests --view view.yaml --in in.pcap --out out.pcap
      What becomes of each packet; out.pcap has the frames that leave.
  guenon simulate ... --hook both
      A conversation with an ordinary pod (delivery Nat), captured where the pod's replies are not translated yet.
  guenon simulate ... -o json | jq 'select(.verdict == \"DROP\")'
      The drops.

JSON is one object for each packet, one on each line: `packet`, `program` (`guenon`; `guenon_egress`: that of what leaves), `verdict` (PASS, DROP, TX, REDIRECT, ABORTED),
`reason` (of a drop), `interface` (by which it leaves; null to the node's own stack), `frontend`, `service`, `endpoint`,
`length`; with --hex `frame`, what came out; `note`, where there is something to know about the packet. A packet that
the kernel cannot run (shorter than an Ethernet header, or too long for a test run) has verdict null and a note.

The real program runs in the kernel, on private maps: no interface is touched, no agent is needed or disturbed.
Needs root (CAP_BPF, CAP_NET_ADMIN). Problems of the manifests are told on standard error.";

/// What becomes of captured packets on a node with these manifests and this view
///
/// Runs each packet of a capture through the real program in the kernel, on private maps filled from manifests and a
/// node's view, touching no interface. Says for each its verdict, reason, frontend and endpoint, and writes the
/// frames that leave the program.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Args {
    /// Directory of YAML manifests (VirtualService, Service, EndpointSlice, Endpoints, Node)
    #[arg(long, env = "GUENON_MANIFESTS", value_name = "DIR")]
    manifests: PathBuf,

    /// The node's view of itself, as `guenon view` prints it
    #[arg(long, value_name = "FILE")]
    view: PathBuf,

    /// Captured packets: pcap or pcapng, Ethernet
    #[arg(long = "in", value_name = "IN.pcap")]
    input: PathBuf,

    /// Where the frames that leave (PASS, TX, REDIRECT) are written, in order, with the times of the capture
    #[arg(long = "out", value_name = "OUT.pcap")]
    output: PathBuf,

    /// Interface of the view that the packets come in on. Default: the first that the program is attached to
    #[arg(long, value_name = "NAME")]
    interface: Option<String>,

    /// Which program packets run through: that of what comes in, that of what leaves, or either by the sender's MAC (a
    /// packet that an interface of the view has sent leaves). Flows are remembered from packet to packet
    #[arg(long, value_enum, default_value = "ingress")]
    hook: Hook,

    /// File with the key of the flow hash: 16 bytes, or 32 hex digits; the published default without
    #[arg(long, env = "GUENON_HASH_KEY_FILE", value_name = "FILE")]
    hash_key_file: Option<PathBuf>,

    /// Address of a director that may send tunnel packets here, beside every Node's; repeatable
    #[arg(long, env = "GUENON_DIRECTOR", value_name = "ADDR", value_delimiter = ',')]
    director: Vec<IpAddr>,

    #[command(flatten)]
    policy: Policy,

    /// UDP destination port of GUE
    #[arg(long, env = "GUENON_GUE_PORT", value_name = "PORT", default_value_t = guenon_ebpf::abi::GUE_PORT,
          value_parser = clap::value_parser!(u16).range(1..))]
    gue_port: u16,

    /// Output for people or for scripts
    #[arg(short = 'o', long = "output", value_enum, value_name = "FORMAT", default_value = "table")]
    format: Format,

    /// Show each frame that comes out in hexadecimal
    #[arg(long)]
    hex: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A table and a summary
    Table,
    /// JSON, one object for each packet
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Hook {
    /// Packets come in
    Ingress,
    /// Packets leave
    Egress,
    /// A conversation: what interfaces of the node have sent leaves
    Both,
}

impl Hook {
    const fn of(self) -> replay::Hook {
        match self {
            Self::Ingress => replay::Hook::Ingress,
            Self::Egress => replay::Hook::Egress,
            Self::Both => replay::Hook::Both,
        }
    }
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let Args {
        manifests,
        view: view_file,
        input,
        output,
        interface,
        hook,
        hash_key_file,
        director,
        policy,
        gue_port,
        format,
        hex,
    } = args;
    let view = read_view(&view_file)?;
    let interface = incoming(&view, &view_file, interface.as_deref())?;
    ensure!(
        !same_file(&input, &output),
        "--in and --out are the same file, {}; name another one for what comes out",
        input.display()
    );
    Capture::check(&input)?;
    if hash_key_file.is_none() {
        eprintln!("guenon: no --hash-key-file: rows are picked by the published default key");
    }
    let key = run::hash_key(hash_key_file.as_deref())?.0;
    let directors = BTreeSet::from_iter(director);
    let Desired { state, problems } = desired(&manifests, &view, Schedule::new(key), directors, policy.of())?;
    for problem in &problems {
        eprintln!("guenon: {problem}");
    }

    let setup = Setup { ifindex: interface.index, roles: roles(&view), key, gue_port, ..Setup::default() };
    let mut sandbox = Sandbox::new(&state, &setup)?;
    for name in view.attached.iter().chain([&interface.name]) {
        // All of them have the program on the way out, as on a node that translates.
        if let Some(attached) = view.interfaces.iter().find(|known| known.name == *name) {
            sandbox.attach_egress(name, attached.index);
        }
    }
    let mut capture = Capture::open(&input)?;
    let mut out = Writer::create(&output, capture.resolution())?;
    let mut stdout = std::io::stdout().lock();
    let mut lines = Vec::new();
    let summary = replay(&mut capture, &mut sandbox, &view, hook.of(), &mut out, hex, |line| match format {
        Format::Json => {
            serde_json::to_writer(&mut stdout, &line)?;
            stdout.write_all(b"\n")
        }
        Format::Table => {
            lines.push(line);
            Ok(())
        }
    })?;
    out.finish()?;
    if format == Format::Table {
        let style = Style::of_stdout(false);
        writeln!(stdout, "{}", shown(&lines, &summary, style)).context("cannot write the result")?;
    }
    Ok(())
}

fn roles(view: &NodeView) -> u8 {
    view.roles.iter().fold(0, |bits, role| match role {
        Role::Director => bits | ROLE_DIRECTOR,
        Role::Decap => bits | ROLE_DECAP,
    })
}

/// Whether both names lead to one file that is there.
fn same_file(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        (Err(_), _) | (_, Err(_)) => false,
    }
}

/// A line for each packet, what they sum up to, and what is worth knowing.
fn shown(lines: &[Line], summary: &Summary, style: Style) -> String {
    let headings = ["PACKET", "VERDICT", "REASON", "INTERFACE", "FRONTEND", "SERVICE", "ENDPOINT", "LENGTH"];
    let or_dash = |value: Option<&str>| plain(value.unwrap_or("-"));
    let rows = lines.iter().map(|line| {
        vec![
            number(line.packet as u64),
            text(line.verdict.map_or("-", Verdict::name), tone(line.verdict), style),
            or_dash(line.reason),
            or_dash(line.interface.as_deref()),
            or_dash(line.frontend.as_deref()),
            or_dash(line.service.as_deref()),
            or_dash(line.endpoint.as_deref()),
            number(line.length as u64),
        ]
    });
    let mut shown = vec![table(&headings, rows, style)];
    for line in lines {
        if let Some(Some(frame)) = &line.frame {
            shown.push(format!("packet {}: {frame}", line.packet));
        }
    }
    for line in lines {
        if let Some(note) = &line.note {
            shown.push(format!("packet {}: {note}", line.packet));
        }
    }
    shown.push(String::new());
    shown.push(summed_up(summary));
    for (reason, dropped) in &summary.drops {
        let name = style.paint(reason.name(), Tone::Warning);
        shown.push(format!("{name} ({}): {} {}", count(*dropped, "packet"), reason.cause(), reason.cure()));
    }
    shown.join("\n")
}

fn summed_up(summary: &Summary) -> String {
    let mut parts: Vec<String> =
        summary.verdicts.iter().rev().map(|(verdict, packets)| format!("{packets} {}", verdict.name())).collect();
    if summary.not_run > 0 {
        parts.push(format!("{} not run", summary.not_run));
    }
    let packets = count(summary.packets, "packet");
    if parts.is_empty() { packets } else { format!("{packets}: {}", parts.join(", ")) }
}

fn tone(verdict: Option<Verdict>) -> Tone {
    match verdict {
        Some(Verdict::Tx | Verdict::Redirect) => Tone::Good,
        Some(Verdict::Pass) => Tone::Plain,
        Some(Verdict::Drop) | None => Tone::Warning,
        Some(Verdict::Aborted) => Tone::Bad,
    }
}
