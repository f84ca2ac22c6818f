//! A private copy of the data path: the unmodified program on maps of its own, which the real table writer fills.

use guenon_ebpf::abi::{GUE_PORT, InterfaceCounters, ROLE_DIRECTOR, Settings, TunnelTooBig};
use guenon_ebpf::hash::{DEFAULT_KEY, Schedule};

use super::attribution::Attribution;
pub use super::outcome::{Outcome, Verdict};
use super::outcome::{difference, reason};
use crate::apply::{DataPath, Operation, Refusal};
use crate::datapath::private::{self, PrivateError, PrivateMaps, PrivateProgram};
use crate::datapath::tables::attachments::{self, Attachment, Egress, Mode};
use crate::datapath::tables::{Capacities, NoReaders, Tables};
use crate::model::{Path, ServiceState, State};

/// How the program is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Index of the interface that it believes to be attached to.
    pub ifindex: u32,
    /// [`guenon_ebpf::abi::ROLE_DIRECTOR`], [`guenon_ebpf::abi::ROLE_DECAP`], or both.
    pub roles: u8,
    /// The hash key.
    pub key: [u8; 16],
    /// UDP port of GUE.
    pub gue_port: u16,
    /// "Packet too big" answers a second and CPU.
    pub too_big_rate: u64,
    /// Whether to run the program for kernels before 5.18 (no multi-buffer frames) on a newer one too.
    pub linear: bool,
    /// Flows of delivery `Nat` that are remembered.
    pub flows: u32,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            ifindex: 1,
            roles: ROLE_DIRECTOR,
            key: DEFAULT_KEY,
            gue_port: GUE_PORT,
            too_big_rate: 1 << 32,
            linear: false,
            flows: 65_536,
        }
    }
}

/// Why a sandbox cannot be made or run.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The kernel does not play.
    #[error(transparent)]
    Private(#[from] PrivateError),
    /// The tables do not take the configuration.
    #[error("cannot write the tables of the sandbox: {0}")]
    Refused(#[from] Refusal),
    /// An action that XDP does not have.
    #[error("the program returned {0}, which is no XDP action; this is a defect in Guenon, please report it")]
    Action(u32),
    /// An action that the program on the way out must not return.
    #[error("the program on the way out returned {0}; this is a defect in Guenon, please report it")]
    EgressAction(i32),
}

/// The program, its maps, and their writer.
pub struct Sandbox {
    program: PrivateProgram,
    tables: Tables<PrivateMaps>,
    attribution: Attribution,
    /// Whether counters have changed that `attribution` does not know of.
    unattributed: bool,
    /// As the last run left them; `None` after runs that were not counted.
    counters: Option<InterfaceCounters>,
    ifindex: u32,
}

impl Sandbox {
    /// Loads the program and puts this configuration in force.
    ///
    /// # Errors
    ///
    /// [`SandboxError`]: nothing is left behind.
    pub fn new(state: &State, setup: &Setup) -> Result<Self, SandboxError> {
        let Setup { ifindex, roles, key, gue_port, too_big_rate, linear, flows } = *setup;
        let schedule = Schedule::new(key);
        let settings = Settings { hash: schedule.0, ifindex, roles, gue_port, too_big_rate, ..Settings::default() };
        let (program, maps) = private::load(settings, &capacities(state, flows), linear)?;
        // Nothing runs while the tables are written: runs are calls of the same owner.
        let tables = Tables::open(maps, Box::<NoReaders>::default(), gue_port, schedule.fingerprint());
        let attribution = Attribution::default();
        let mut sandbox = Self { program, tables, attribution, unattributed: false, counters: None, ifindex };
        for operation in operations(state) {
            sandbox.tables.execute(&operation)?;
        }
        sandbox.tables.commit();
        sandbox.attribute()?;
        Ok(sandbox)
    }

    /// Says that this interface has the program on the way out: flows whose replies leave by it are translated.
    pub fn attach_egress(&mut self, interface: &str, ifindex: u32) {
        let store = self.tables.store();
        if let Some(slot) = attachments::attachment_slot(store, interface) {
            let (interface, mode, egress) = (interface.to_owned(), Mode::Native, Egress::Tcx);
            attachments::set_attachment(store, &Attachment { slot, interface, ifindex, mode, egress });
        }
    }

    /// Changes what is in force.
    ///
    /// # Errors
    ///
    /// [`SandboxError`]: what was in force still is.
    pub fn execute(&mut self, operation: &Operation) -> Result<(), SandboxError> {
        self.tables.execute(operation)?;
        self.tables.commit();
        self.attribute()
    }

    /// Runs one frame through the program, and tells from the counters what became of it.
    ///
    /// # Errors
    ///
    /// [`PrivateError::Run`] for a frame that the kernel takes for no test run (too short, or too long).
    pub fn run(&mut self, frame: &[u8]) -> Result<Outcome, SandboxError> {
        if std::mem::take(&mut self.unattributed) {
            self.attribution.settle(&self.program)?;
        }
        let mut outcome = self.run_unattributed(frame)?;
        let counted = self.attribution.read(&self.program, frame)?;
        self.unattributed = false;
        outcome.frontend = counted.frontend;
        outcome.service = counted.service;
        outcome.endpoint = counted.endpoint;
        if outcome.verdict == Verdict::Redirect {
            outcome.interface = counted.interface;
        }
        Ok(outcome)
    }

    /// The same, but for frontend, service, endpoint and the device of a redirect: many times faster where there are many.
    ///
    /// # Errors
    ///
    /// As for [`Self::run`].
    pub fn run_unattributed(&mut self, frame: &[u8]) -> Result<Outcome, SandboxError> {
        let before = match self.counters {
            Some(counters) => counters,
            None => self.program.counters()?,
        };
        let (verdict, frame) = self.run_uncounted(frame)?;
        let after = self.program.counters()?;
        let counters = difference(&after, &before);
        self.counters = Some(after);
        Ok(Outcome {
            verdict,
            reason: reason(&counters),
            frame,
            interface: (verdict == Verdict::Tx).then_some(self.ifindex),
            frontend: None,
            service: None,
            endpoint: None,
            counters,
        })
    }

    /// Runs one frame through the program on the way out, with the flows that earlier runs have left. `device`: see
    /// [`PrivateProgram::run_egress`]. It names no frontend and no endpoint.
    ///
    /// # Errors
    ///
    /// As for [`Self::run`].
    pub fn run_egress(&mut self, frame: &[u8], device: Option<u32>) -> Result<Outcome, SandboxError> {
        let before = self.program.egress_counters()?;
        let (action, frame) = self.program.run_egress(frame, device)?;
        let counters = difference(&self.program.egress_counters()?, &before);
        let verdict = Verdict::from_egress_action(action).ok_or(SandboxError::EgressAction(action))?;
        Ok(Outcome {
            verdict,
            reason: reason(&counters),
            frame,
            interface: (verdict == Verdict::Pass).then_some(self.ifindex),
            frontend: None,
            service: None,
            endpoint: None,
            counters,
        })
    }

    /// Verdict and frame alone; what it counted shows in [`Self::counters`].
    ///
    /// # Errors
    ///
    /// As for [`Self::run`].
    pub fn run_uncounted(&mut self, frame: &[u8]) -> Result<(Verdict, Vec<u8>), SandboxError> {
        self.unattributed = true;
        self.counters = None;
        let (action, frame) = self.program.run(frame)?;
        Ok((Verdict::from_action(action).ok_or(SandboxError::Action(action))?, frame))
    }

    /// The interface's counters since the program was loaded, all CPUs together.
    ///
    /// # Errors
    ///
    /// [`PrivateError::Read`].
    pub fn counters(&self) -> Result<InterfaceCounters, SandboxError> {
        Ok(self.program.counters()?)
    }

    /// What the program on the way out has counted since it was loaded, all CPUs together.
    ///
    /// # Errors
    ///
    /// [`PrivateError::Read`].
    pub fn egress_counters(&self) -> Result<InterfaceCounters, SandboxError> {
        Ok(self.program.egress_counters()?)
    }

    /// What routers said of tunnel packets since the last call.
    pub fn tunnel_too_big(&mut self) -> Vec<TunnelTooBig> {
        self.program.tunnel_too_big()
    }

    /// Runs one frame through the program on the way out, and leaves its counters unread.
    ///
    /// # Errors
    ///
    /// As [`Self::run_egress`].
    pub fn run_egress_uncounted(&mut self, frame: &[u8]) -> Result<(i32, Vec<u8>), SandboxError> {
        Ok(self.program.run_egress(frame, None)?)
    }

    /// The loaded programs, to load the one on the way out.
    pub fn program_mut(&mut self) -> &mut PrivateProgram {
        &mut self.program
    }

    /// The loaded program.
    #[must_use]
    pub fn program(&self) -> &PrivateProgram {
        &self.program
    }

    /// Whether the program knows no multi-buffer frames (kernels before 5.18): a frame is then at most a page.
    #[must_use]
    pub fn is_linear(&self) -> bool {
        self.program.is_linear()
    }

    /// The words of the tables, as the program sees them.
    #[must_use]
    pub fn maps(&self) -> &PrivateMaps {
        self.tables.store()
    }

    fn attribute(&mut self) -> Result<(), SandboxError> {
        self.attribution = Attribution::new(self.tables.store(), &self.tables.observe(), &self.program)?;
        self.unattributed = false;
        Ok(())
    }
}

/// All that puts a configuration in force, in an order in which each step finds what it needs.
fn operations(state: &State) -> Vec<Operation> {
    let State { tunnels, directors, on_node, next_hops, services } = state;
    let mut operations = Vec::new();
    operations.extend(tunnels.iter().copied().map(Operation::PutTunnel));
    operations.extend(directors.iter().copied().map(Operation::PutDirector));
    operations.extend(next_hops.iter().map(|(key, hop)| Operation::PutNextHop(key.clone(), hop.clone())));
    operations.extend(services.iter().map(|(name, service)| Operation::PutService(name.clone(), service.clone())));
    operations.extend(on_node.iter().map(|vip| Operation::SetOnNode(*vip, true)));
    operations
}

/// Room for the configuration twice, and for a few more of everything.
fn capacities(state: &State, flows: u32) -> Capacities {
    let sum = |count: fn(&ServiceState) -> usize| -> u32 {
        let total: usize = state.services.values().map(|service| count(service)).sum();
        u32::try_from(total).unwrap_or(u32::MAX / 8).saturating_mul(2).saturating_add(64)
    };
    Capacities {
        services: sum(|_| 1),
        frontends: sum(|service| service.frontends.len()),
        endpoints: sum(|service| service.endpoints.len()),
        row_pages: sum(|service| service.rows.len().div_ceil(1024)),
        // Each frontend with each endpoint, and each VIP with each for fragments.
        locals: sum(|service| {
            let here = |path: &Path| matches!(path, Path::Local(_));
            service.frontends.len() * 2 * service.endpoints.iter().filter(|endpoint| here(&endpoint.path)).count()
        }),
        flows,
    }
}

#[cfg(test)]
mod tests {
    use guenon_ebpf::abi::{PASSED, RECEIVED};

    use super::*;

    /// An Ethernet frame with an IPv4 packet that has nothing but its header.
    fn frame() -> Vec<u8> {
        let mut frame = vec![0; 34];
        frame[12..18].copy_from_slice(&[8, 0, 0x45, 0, 0, 20]);
        frame[22..24].copy_from_slice(&[64, 59]);
        frame
    }

    #[test]
    fn a_frame_that_concerns_no_flow_leaves_as_it_is() {
        let mut sandbox = Sandbox::new(&State::default(), &Setup::default()).expect("root may load programs");
        for device in [None, Some(1)] {
            let outcome = sandbox.run_egress(&frame(), device).expect("it runs");
            assert_eq!((outcome.verdict, outcome.reason, outcome.frame), (Verdict::Pass, None, frame()));
            assert_eq!((outcome.counters.0[RECEIVED].packets, outcome.counters.0[PASSED].packets), (1, 1));
        }
        assert_eq!(sandbox.egress_counters().expect("counters").0[RECEIVED].packets, 2);
        assert_eq!(sandbox.counters().expect("counters").0[RECEIVED].packets, 0, "the other program has seen nothing");
        assert!(sandbox.run_egress(&frame(), Some(0x7fff_0000)).is_err(), "there is no such device");
    }
}
