//! Runs frames through the program and balances the ledger after each.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use guenon_controller::model::State;
use guenon_controller::simulate::sandbox::{Outcome, Sandbox, Setup, Verdict};
use guenon_ebpf::abi::{
    Event, FIRST_DROP, InterfaceCounters, PASSED, RECEIVED, REDIRECTED, ROLE_DECAP, ROLE_DIRECTOR, TRANSMITTED,
};
use guenon_ebpf::reason::DropReason;

use super::bed;
use super::expect::{assert_frame, hex};
use super::read;

/// A program on tables of its own.
pub struct Lab {
    pub sandbox: Sandbox,
}

/// How the program under test is set up, but for what a test changes.
pub fn setup() -> Setup {
    Setup { ifindex: bed::NIC, roles: ROLE_DIRECTOR | ROLE_DECAP, ..Setup::default() }
}

/// A program that tests take turns with: loading one takes the kernel's verifier seconds, and a guest's minutes.
type Shared = OnceLock<Result<Mutex<Lab>, String>>;

fn shared(lab: &'static Shared, setup: Setup) -> MutexGuard<'static, Lab> {
    // One that does not load is tried once, not by every test.
    match lab.get_or_init(|| Lab::try_new(&bed::state(), &setup).map(Mutex::new)) {
        Ok(lab) => lab.lock().unwrap_or_else(PoisonError::into_inner),
        Err(error) => panic!("{error}"),
    }
}

/// The program that most tests share: both roles, the tables of [`bed::state`].
pub fn lab() -> MutexGuard<'static, Lab> {
    static LAB: Shared = OnceLock::new();
    shared(&LAB, setup())
}

/// The program for kernels before 5.18, on tables of its own that are the same as those of [`lab`].
pub fn linear_lab() -> MutexGuard<'static, Lab> {
    static LAB: Shared = OnceLock::new();
    shared(&LAB, Setup { linear: true, ..setup() })
}

/// One of a node that is only a director.
pub fn director_lab() -> MutexGuard<'static, Lab> {
    static LAB: Shared = OnceLock::new();
    shared(&LAB, Setup { roles: ROLE_DIRECTOR, ..setup() })
}

/// One of a node that is only a decap node.
pub fn decap_lab() -> MutexGuard<'static, Lab> {
    static LAB: Shared = OnceLock::new();
    shared(&LAB, Setup { roles: ROLE_DECAP, ..setup() })
}

/// One with another GUE port, and five answers to packets that are too big a second.
pub fn odd_lab() -> MutexGuard<'static, Lab> {
    static LAB: Shared = OnceLock::new();
    shared(&LAB, Setup { gue_port: ODD_GUE_PORT, too_big_rate: ODD_RATE, ..setup() })
}

pub const ODD_GUE_PORT: u16 = 6666;
pub const ODD_RATE: u64 = 5;

impl Lab {
    fn try_new(state: &State, setup: &Setup) -> Result<Self, String> {
        match Sandbox::new(state, setup) {
            Ok(sandbox) => Ok(Self { sandbox }),
            Err(error) => {
                Err(format!("these tests need root: {}", shortened(&format!("{:#}", anyhow::Error::new(error)))))
            }
        }
    }

    /// Sends one frame in. The ledger balances, and nothing malformed leaves that came in well-formed.
    #[track_caller]
    pub fn send(&mut self, frame: &[u8]) -> Outcome {
        let outcome = self.sandbox.run(frame).unwrap_or_else(|error| panic!("{error:#}, frame {}", hex(frame)));
        assert_ledger(&outcome, frame);
        outcome
    }

    /// The same, not asking which frontend and endpoint counted it: for many frames.
    #[track_caller]
    pub fn send_one_of_many(&mut self, frame: &[u8]) -> Outcome {
        let run = self.sandbox.run_unattributed(frame);
        let outcome = run.unwrap_or_else(|error| panic!("{error:#}, frame {}", hex(frame)));
        assert_ledger(&outcome, frame);
        outcome
    }

    /// Sends a frame that must be dropped for this reason, and nothing else.
    #[track_caller]
    pub fn send_dropped(&mut self, frame: &[u8], reason: DropReason) {
        let outcome = self.send(frame);
        let want = if reason == DropReason::Aborted { Verdict::Aborted } else { Verdict::Drop };
        assert_eq!((outcome.verdict, outcome.reason), (want, Some(reason)), "of {}", hex(frame));
    }

    /// Sends a frame that must be passed bit for bit, with no event.
    #[track_caller]
    pub fn send_untouched(&mut self, frame: &[u8]) {
        let outcome = self.send(frame);
        assert_eq!((outcome.verdict, outcome.events()), (Verdict::Pass, vec![]), "of {}", hex(frame));
        assert_frame("a frame that is not ours", &outcome.frame, frame);
    }

    /// Sends a frame that must leave as `want` under this verdict, with these events.
    #[track_caller]
    pub fn send_becomes(&mut self, frame: &[u8], verdict: Verdict, events: &[Event], want: &[u8]) -> Outcome {
        let outcome = self.send(frame);
        assert_eq!((outcome.verdict, outcome.reason), (verdict, None), "of {}", hex(frame));
        assert_frame("what left", &outcome.frame, want);
        assert_eq!(outcome.events(), events, "of {}", hex(frame));
        outcome
    }
}

/// The verifier's word, which can be megabytes, cut to its beginning and its end.
fn shortened(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    match lines.len() {
        0..60 => text.to_owned(),
        count => format!("{}\n[...]\n{}", lines[0], lines[count - 50..].join("\n")),
    }
}

/// received = passed + transmitted + redirected + drops; one verdict, one reason; and the counters say what the
/// return value says.
#[track_caller]
pub fn assert_ledger(outcome: &Outcome, frame: &[u8]) {
    let packets = |index: usize| outcome.counters.0[index].packets;
    let drops: Vec<(usize, u64)> =
        (FIRST_DROP..outcome.counters.0.len()).map(|i| (i - FIRST_DROP, packets(i))).filter(|(_, n)| *n > 0).collect();
    let counted = (packets(RECEIVED), packets(PASSED), packets(TRANSMITTED), packets(REDIRECTED), drops.len());
    let want = match outcome.verdict {
        Verdict::Pass => (1, 1, 0, 0, 0),
        Verdict::Tx => (1, 0, 1, 0, 0),
        Verdict::Redirect => (1, 0, 0, 1, 0),
        Verdict::Drop | Verdict::Aborted => (1, 0, 0, 0, 1),
    };
    assert_eq!(counted, want, "the ledger after {:?} ({drops:?}) of {}", outcome.verdict, hex(frame));
    assert!(drops.iter().all(|(_, n)| *n == 1), "one reason, once: {drops:?}");
    assert_eq!(drops.first().map(|(number, _)| *number), outcome.reason.map(|reason| reason as usize));
    let bytes = |index: usize| outcome.counters.0[index].bytes;
    if frame.len() <= 3000 {
        assert_eq!(bytes(RECEIVED), frame.len() as u64, "bytes received, of {}", hex(frame));
    }
    assert_eq!(balance(&outcome.counters), 0);
}

/// The ledger's difference: packets that were received but not accounted for.
pub fn balance(counters: &InterfaceCounters) -> i64 {
    let packets = |index: usize| counters.0[index].packets as i64;
    let out: i64 = [PASSED, TRANSMITTED, REDIRECTED].into_iter().chain(FIRST_DROP..counters.0.len()).map(packets).sum();
    packets(RECEIVED) - out
}

/// Nothing malformed is ever sent.
#[track_caller]
pub fn assert_well_formed(outcome: &Outcome, inner: bool, from: &[u8]) {
    if let Some(fault) = read::fault(&outcome.frame, inner) {
        panic!("{:?} sent {}: {fault}\nmade of {}", outcome.verdict, hex(&outcome.frame), hex(from));
    }
}
