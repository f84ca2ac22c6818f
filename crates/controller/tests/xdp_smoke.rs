//! The XDP program in the kernel, through BPF_PROG_TEST_RUN: it loads, and the main verdicts are right.
//! Needs root (CAP_BPF, CAP_NET_ADMIN).

use aya::maps::{MapData, PerCpuArray};
use aya::programs::{ProgramError, TestRun, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use guenon_controller::datapath::object::OBJECT;
use guenon_ebpf::abi::{self, Counter, Settings};
use zerocopy::IntoBytes;

const XDP_PASS: u32 = 2;

#[derive(Clone, Copy)]
#[repr(transparent)]
struct Counters([Counter; abi::COUNTERS_PER_INTERFACE]);

// SAFETY: repr(transparent) over an array of plain words with no padding.
unsafe impl aya::Pod for Counters {}

fn load(settings: &Settings, program: &str) -> Ebpf {
    let mut ebpf = EbpfLoader::new()
        .override_global("SETTINGS", settings.as_bytes(), true)
        .load(OBJECT)
        .expect("the object is read and its maps are made");
    let xdp: &mut Xdp = ebpf.program_mut(program).expect("the program is in the object").try_into().unwrap();
    if let Err(error) = xdp.load() {
        match error {
            ProgramError::LoadError { io_error, verifier_log } => panic!("{program}: {io_error}\n{verifier_log}"),
            other => panic!("{program}: {other:?}"),
        }
    }
    ebpf
}

#[test]
fn each_entry_point_loads() {
    for program in ["guenon", "guenon_linear", "guenon_pass", "guenon_pass_linear"] {
        load(&Settings::default(), program);
    }
}

#[test]
fn a_frame_that_is_nothing_passes_untouched_and_is_counted() {
    let ebpf = load(&Settings { slot: 3, ..Settings::default() }, "guenon");
    let xdp: &Xdp = ebpf.program("guenon").unwrap().try_into().unwrap();
    let frame = [0x5a; 64];
    let mut out = [0; 2048];
    let mut options = TestRunOptions::default();
    options.data_in = Some(&frame);
    options.data_out = Some(&mut out);
    let result = xdp.test_run(options).unwrap();
    assert_eq!(result.return_value, XDP_PASS);
    assert_eq!(&out[..result.data_size_out as usize], &frame);

    let counters: PerCpuArray<&MapData, Counters> = ebpf.map("COUNTERS").unwrap().try_into().unwrap();
    let sum: u64 = counters.get(&3, 0).unwrap().iter().map(|cpu| cpu.0[abi::PASSED].packets).sum();
    assert_eq!(sum, 1);
}
