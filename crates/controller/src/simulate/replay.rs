//! A capture through a sandbox.

use std::collections::BTreeMap;

use guenon_ebpf::reason::DropReason;
use serde::Serialize;

use super::capture::{Capture, CaptureError, Frame, Writer};
use super::hex;
use super::sandbox::{Outcome, Sandbox, SandboxError, Verdict};
use crate::datapath::private::PrivateError;
use crate::model::NodeView;

/// The least that the kernel takes for a frame: an Ethernet header.
const ETHERNET_HEADER: usize = 14;

/// What became of one packet: a line of `guenon simulate -o json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// Its number in the capture, from 1.
    pub packet: usize,
    /// The program that it ran through: `guenon`, or `guenon_egress`, that of packets that leave.
    pub program: &'static str,
    /// The verdict; `null` for a packet that could not be run (`note` says why).
    pub verdict: Option<Verdict>,
    /// Name of the drop reason.
    pub reason: Option<&'static str>,
    /// Name of the interface by which it leaves; `null` where it does not, or goes to the node's own stack.
    pub interface: Option<String>,
    /// The frontend that it was counted for.
    pub frontend: Option<String>,
    /// The VirtualService.
    pub service: Option<String>,
    /// Address of the endpoint that it was counted for.
    pub endpoint: Option<String>,
    /// Bytes of the frame as the program left it.
    pub length: usize,
    /// With `--hex`: the frame that came out, in hexadecimal; `null` where none did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frame: Option<Option<String>>,
    /// What must be known to read the rest; only there if there is something.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// How a replay went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Packets in all.
    pub packets: usize,
    /// Packets by verdict.
    pub verdicts: BTreeMap<Verdict, usize>,
    /// Drops by reason.
    pub drops: BTreeMap<DropReason, usize>,
    /// Packets that could not be run.
    pub not_run: usize,
}

/// Why a replay ended before the end.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The capture or the output.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// The program.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// Whoever takes the lines.
    #[error("cannot write the result")]
    Output(#[from] std::io::Error),
}

/// Which of the two programs packets run through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hook {
    /// That of packets that come in.
    #[default]
    Ingress,
    /// That of packets that leave.
    Egress,
    /// A packet that an interface of this node has sent leaves, any other comes in.
    Both,
}

impl Hook {
    /// Whether a frame leaves.
    fn leaves(self, frame: &[u8], view: &NodeView) -> bool {
        let sender = frame.get(SENDER);
        let is_ours = || view.interfaces.iter().any(|own| own.mac.is_some_and(|mac| Some(&mac.0[..]) == sender));
        match self {
            Self::Ingress => false,
            Self::Egress => true,
            Self::Both => is_ours(),
        }
    }
}

/// Where a frame has its sender's MAC.
const SENDER: std::ops::Range<usize> = 6..12;

/// Runs each frame of a capture through the sandbox, writes those that come out, and calls `each` with what became of it.
///
/// # Errors
///
/// [`ReplayError`]: lines before it were told, and their frames written.
pub fn replay(
    capture: &mut Capture,
    sandbox: &mut Sandbox,
    view: &NodeView,
    hook: Hook,
    out: &mut Writer,
    with_frames: bool,
    mut each: impl FnMut(Line) -> std::io::Result<()>,
) -> Result<Summary, ReplayError> {
    let mut summary = Summary::default();
    while let Some(frame) = capture.next_frame()? {
        summary.packets += 1;
        let leaves = hook.leaves(&frame.data, view);
        let program = if leaves { "guenon_egress" } else { "guenon" };
        let outcome = match run(sandbox, &frame, leaves)? {
            Ok(outcome) => outcome,
            Err(why) => {
                summary.not_run += 1;
                each(Line { program, ..not_run(&frame, why, with_frames) })?;
                continue;
            }
        };
        *summary.verdicts.entry(outcome.verdict).or_default() += 1;
        if let Some(reason) = outcome.reason {
            *summary.drops.entry(reason).or_default() += 1;
        }
        let left = left(outcome.verdict);
        if left {
            out.write(frame.timestamp, &outcome.frame, missing(&frame))?;
        }
        each(Line {
            packet: frame.number,
            program,
            verdict: Some(outcome.verdict),
            reason: outcome.reason.map(DropReason::name),
            interface: outcome.interface.map(|index| name_of(view, index)),
            frontend: outcome.frontend.map(|frontend| frontend.to_string()),
            service: outcome.service.as_ref().map(|service| service.owner().to_string()),
            endpoint: outcome.endpoint.map(|endpoint| endpoint.to_string()),
            length: outcome.frame.len(),
            frame: with_frames.then(|| left.then(|| hex(&outcome.frame))),
            note: note(&frame),
        })?;
    }
    Ok(summary)
}

/// Whether a frame leaves the program with this verdict.
const fn left(verdict: Verdict) -> bool {
    match verdict {
        Verdict::Pass | Verdict::Tx | Verdict::Redirect => true,
        Verdict::Drop | Verdict::Aborted => false,
    }
}

/// The outcome, or why there is none.
fn run(sandbox: &mut Sandbox, frame: &Frame, leaves: bool) -> Result<Result<Outcome, String>, SandboxError> {
    if frame.data.len() < ETHERNET_HEADER {
        return Ok(Err(format!("not run: its {} bytes are no Ethernet frame (14 at least)", frame.data.len())));
    }
    let outcome = if leaves { sandbox.run_egress(&frame.data, None) } else { sandbox.run(&frame.data) };
    match outcome {
        Ok(outcome) => Ok(Ok(outcome)),
        Err(SandboxError::Private(error @ PrivateError::Run { .. })) => Ok(Err(format!("not run: {error}"))),
        Err(other) => Err(other),
    }
}

fn not_run(frame: &Frame, why: String, with_frames: bool) -> Line {
    Line {
        packet: frame.number,
        program: "guenon",
        verdict: None,
        reason: None,
        interface: None,
        frontend: None,
        service: None,
        endpoint: None,
        length: frame.data.len(),
        frame: with_frames.then_some(None),
        note: Some(why),
    }
}

/// Bytes that the capture had cut off.
fn missing(frame: &Frame) -> u32 {
    frame.original_length.saturating_sub(u32::try_from(frame.data.len()).unwrap_or(u32::MAX))
}

fn note(frame: &Frame) -> Option<String> {
    (missing(frame) > 0).then(|| {
        format!(
            "only {} of its {} bytes were captured, and the program saw no more; capture whole packets with \
             `tcpdump -s 0`",
            frame.data.len(),
            frame.original_length
        )
    })
}

fn name_of(view: &NodeView, index: u32) -> String {
    let known = view.interfaces.iter().find(|interface| interface.index == index);
    known.map_or_else(|| format!("#{index}"), |interface| interface.name.clone())
}
