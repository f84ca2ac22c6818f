//! Times a program by `BPF_PROG_TEST_RUN`, restoring the packet before each run (see the programs in
//! crates/ebpf/src/bin/guenon-bench).

use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use aya::maps::{Array, MapData, PerCpuArray, ProgramArray};
use aya::programs::{Program, ProgramFd, SchedClassifier, TestRun, TestRunOptions, TestRunResult, Xdp};
use aya::{Ebpf, Pod};
use nix::time::{ClockId, clock_gettime};

const OBJECT: &[u8] = &ALIGNED.0;
#[repr(C, align(8))]
struct Aligned<T: ?Sized>(T);
static ALIGNED: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/guenon-bench")));

/// Bytes of the head that the harness rewrites.
pub(crate) const HEAD: usize = 96;

/// `Template` of the harness programs.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Template {
    pub(crate) len: u64,
    pub(crate) flow_mask: u64,
    pub(crate) services: u64,
    pub(crate) runs: u64,
    pub(crate) ifindex: u64,
    pub(crate) head: [u8; HEAD],
}

// SAFETY: integers and bytes, without padding.
unsafe impl Pod for Template {}

/// The benchmark's own programs and maps.
pub(crate) struct Harness {
    bpf: Ebpf,
    target: ProgramArray<MapData>,
    /// For programs on the way out.
    target_out: ProgramArray<MapData>,
    template: Array<MapData, Template>,
}

/// What came out of one run.
pub(crate) struct Outcome {
    pub(crate) verdict: u32,
    pub(crate) frame: Vec<u8>,
}

impl Harness {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let mut bpf = Ebpf::load(OBJECT).context("cannot load the benchmark's programs")?;
        for (name, program) in bpf.programs_mut() {
            let loaded = if let Program::Xdp(program) = program {
                program.load()
            } else if let Program::SchedClassifier(program) = program {
                program.load()
            } else {
                bail!("{name} is of a kind that nobody loads");
            };
            loaded.with_context(|| format!("cannot load the program {name}"))?;
        }
        let target_out = bpf.take_map("TC_TARGET").ok_or_else(|| anyhow!("no map TC_TARGET"))?;
        let target_out = ProgramArray::try_from(target_out)?;
        let target = ProgramArray::try_from(bpf.take_map("TARGET").ok_or_else(|| anyhow!("no map TARGET"))?)?;
        let template = Array::try_from(bpf.take_map("TEMPLATE").ok_or_else(|| anyhow!("no map TEMPLATE"))?)?;
        Ok(Self { bpf, target, target_out, template })
    }

    /// One of the benchmark's own programs.
    pub(crate) fn program(&self, name: &str) -> anyhow::Result<&Xdp> {
        let program = self.bpf.program(name).ok_or_else(|| anyhow!("no program {name}"))?;
        Ok(program.try_into()?)
    }

    /// The same, to attach it.
    pub(crate) fn program_mut(&mut self, name: &str) -> anyhow::Result<&mut Xdp> {
        let program = self.bpf.program_mut(name).ok_or_else(|| anyhow!("no program {name}"))?;
        Ok(program.try_into()?)
    }

    /// Sets what the harness programs write.
    pub(crate) fn set_template(&mut self, template: &Template) -> anyhow::Result<()> {
        Ok(self.template.set(0, template, 0)?)
    }

    /// Puts one of the benchmark's own programs behind `relay` and the harnesses.
    pub(crate) fn set_target(&mut self, name: &str) -> anyhow::Result<()> {
        let target = self.program(name)?.fd()?.try_clone()?;
        self.set_foreign_target(&target)
    }

    /// Puts any loaded program there.
    pub(crate) fn set_foreign_target(&mut self, target: &ProgramFd) -> anyhow::Result<()> {
        self.target.set(0, target, 0).context("the target is not of the harness's kind")
    }

    /// Frames that `sink` saw on all CPUs.
    pub(crate) fn arrived(&self) -> anyhow::Result<u64> {
        let map = self.bpf.map("ARRIVED").ok_or_else(|| anyhow!("no map ARRIVED"))?;
        let arrived: PerCpuArray<_, u64> = PerCpuArray::try_from(map)?;
        Ok(arrived.get(&0, 0)?.iter().sum())
    }

    /// The same for one of the benchmark's own programs.
    pub(crate) fn time_own(
        &mut self,
        harness: &str,
        target: &str,
        template: &Template,
        repeat: u32,
    ) -> anyhow::Result<f64> {
        let target = self.program(target)?.fd()?.try_clone()?;
        self.time(harness, &target, template, repeat)
    }

    /// One run of `harness` with `target` behind it.
    pub(crate) fn once(&mut self, harness: &str, target: &ProgramFd, template: &Template) -> anyhow::Result<Outcome> {
        self.set_foreign_target(target)?;
        self.set_template(template)?;
        once(self.program(harness)?, template)
    }

    /// Thread CPU time of one run in nanoseconds, harness included, averaged over `repeat` runs.
    pub(crate) fn time(
        &mut self,
        harness: &str,
        target: &ProgramFd,
        template: &Template,
        repeat: u32,
    ) -> anyhow::Result<f64> {
        self.set_foreign_target(target)?;
        self.set_template(template)?;
        time(self.program(harness)?, template, repeat)
    }
}

impl Harness {
    fn program_out(&self, name: &str) -> anyhow::Result<&SchedClassifier> {
        let program = self.bpf.program(name).ok_or_else(|| anyhow!("no program {name}"))?;
        Ok(program.try_into()?)
    }

    /// [`Self::time_own`] for the way out.
    pub(crate) fn time_own_out(
        &mut self,
        harness: &str,
        target: &str,
        template: &Template,
        repeat: u32,
    ) -> anyhow::Result<f64> {
        let target = self.program_out(target)?.fd()?.try_clone()?;
        self.time_out(harness, &target, template, repeat)
    }

    /// [`Self::once`] for the way out: what leaves.
    pub(crate) fn once_out(
        &mut self,
        harness: &str,
        target: &ProgramFd,
        template: &Template,
    ) -> anyhow::Result<Vec<u8>> {
        self.target_out.set(0, target, 0).context("the target is not of the harness's kind")?;
        self.set_template(template)?;
        Ok(once(self.program_out(harness)?, template)?.frame)
    }

    /// [`Self::time`] for the way out.
    pub(crate) fn time_out(
        &mut self,
        harness: &str,
        target: &ProgramFd,
        template: &Template,
        repeat: u32,
    ) -> anyhow::Result<f64> {
        self.target_out.set(0, target, 0).context("the target is not of the harness's kind")?;
        self.set_template(template)?;
        time(self.program_out(harness)?, template, repeat)
    }
}

/// A program of either kind, as test runs see it.
trait Runnable: for<'a> TestRun<Opts<'a> = TestRunOptions<'a>, Result = TestRunResult> {}
impl<T: for<'a> TestRun<Opts<'a> = TestRunOptions<'a>, Result = TestRunResult>> Runnable for T {}

fn once(program: &impl Runnable, template: &Template) -> anyhow::Result<Outcome> {
    let input = packet(template);
    let mut frame = vec![0; input.len() + 256];
    let options = TestRunOptions { data_in: Some(&input), data_out: Some(&mut frame), ..TestRunOptions::new() };
    let result = program.test_run(options)?;
    frame.truncate(result.data_size_out as usize);
    Ok(Outcome { verdict: result.return_value, frame })
}

fn time(program: &impl Runnable, template: &Template, repeat: u32) -> anyhow::Result<f64> {
    let input = packet(template);
    let start = cpu_time()?;
    program.test_run(TestRunOptions { data_in: Some(&input), repeat, ..TestRunOptions::new() })?;
    Ok((cpu_time()? - start).as_secs_f64() * 1e9 / f64::from(repeat))
}

/// A packet of the template's length that begins with its head.
pub(crate) fn packet(template: &Template) -> Vec<u8> {
    let mut bytes = template.head.to_vec();
    bytes.resize(template.len as usize, 0x61);
    bytes
}

/// The middle one.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn cpu_time() -> anyhow::Result<Duration> {
    Ok(Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?))
}
