//! Runs a frame with next to no headroom: a test run always leaves 256 bytes, so a small program in front of the real
//! one takes most of them, writes the frame anew at the new start, and tail-calls the real one.

use std::io::Error;
use std::mem::{size_of_val, zeroed};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use aya::maps::{Map, MapData, ProgramArray};
use aya_obj::generated::{bpf_attach_type, bpf_attr, bpf_cmd, bpf_map_type, bpf_prog_type};
use guenon_controller::simulate::sandbox::{Sandbox, Verdict};

/// Bytes of headroom that are taken; of the rest, the kernel keeps 40 for itself.
const TAKEN: i32 = 208;
/// `BPF_F_XDP_HAS_FRAGS`: a program that tail-calls a multi-buffer aware one must be so too.
const HAS_FRAGS: u32 = 1 << 5;

/// Runs this frame (padded by what was taken) with at most 8 bytes of headroom.
pub fn run(sandbox: &Sandbox, frame: &[u8]) -> Verdict {
    let array = aya_obj::Map::new_from_params(bpf_map_type::BPF_MAP_TYPE_PROG_ARRAY as u32, 4, 4, 1, 0);
    let array = MapData::create(array, "packets_tail", None).expect("a program array");
    let fd = array.fd().as_fd().as_raw_fd();
    let mut array = ProgramArray::try_from(Map::ProgramArray(array)).expect("a program array");
    array.set(0, sandbox.program().fd().expect("a loaded program"), 0).expect("the program in its array");
    let head = load(&instructions(frame, fd), sandbox.is_linear());

    // The head program grows the frame by TAKEN: what trails behind the frame's own bytes is padding.
    let mut input = vec![0_u8; frame.len().max(64)];
    let mut output = vec![0_u8; 4096];
    // SAFETY: all fields that are not set below may be zero.
    let mut attr: bpf_attr = unsafe { zeroed() };
    // SAFETY: this member is the one that BPF_PROG_TEST_RUN reads.
    let test = unsafe { &mut attr.test };
    test.prog_fd = head.as_raw_fd() as u32;
    test.repeat = 1;
    test.data_in = input.as_mut_ptr() as u64;
    test.data_size_in = input.len() as u32;
    test.data_out = output.as_mut_ptr() as u64;
    test.data_size_out = output.len() as u32;
    let result = bpf(bpf_cmd::BPF_PROG_TEST_RUN, &mut attr);
    assert_eq!(result, 0, "test run: {}", Error::last_os_error());
    // SAFETY: as above; the kernel has written it.
    Verdict::from_action(unsafe { attr.test.retval }).expect("an XDP action")
}

/// The head program, in eBPF's own words (code, registers, offset, immediate).
fn instructions(frame: &[u8], array: i32) -> Vec<u64> {
    const MOV_REG: u8 = 0xbf;
    const MOV: u8 = 0xb7;
    const ADD: u8 = 0x07;
    const CALL: u8 = 0x85;
    const EXIT: u8 = 0x95;
    const LOAD_WORD: u8 = 0x61;
    const STORE_WORD: u8 = 0x62;
    const JUMP_NOT_EQUAL: u8 = 0x55;
    const JUMP_GREATER: u8 = 0x2d;
    const LOAD_MAP: u8 = 0x18;
    const ADJUST_HEAD: i32 = 44;
    const TAIL_CALL: i32 = 12;
    let word = |code: u8, to: u8, from: u8, offset: i16, immediate: i32| {
        u64::from(code)
            | u64::from(from << 4 | to) << 8
            | u64::from(offset as u16) << 16
            | u64::from(immediate as u32) << 32
    };
    let mut padded = frame.to_vec();
    padded.resize(frame.len().next_multiple_of(4), 0);
    let stores: Vec<u64> = padded
        .chunks_exact(4)
        .enumerate()
        .map(|(number, bytes)| {
            let bytes = i32::from_le_bytes(bytes.try_into().expect("four"));
            word(STORE_WORD, 2, 0, 4 * number as i16, bytes)
        })
        .collect();
    let to_end = stores.len() as i16 + 5;
    let mut program = vec![
        word(MOV_REG, 6, 1, 0, 0),
        word(MOV, 2, 0, 0, -TAKEN),
        word(CALL, 0, 0, 0, ADJUST_HEAD),
        word(JUMP_NOT_EQUAL, 0, 0, to_end + 5, 0),
        word(LOAD_WORD, 2, 6, 0, 0),
        word(LOAD_WORD, 3, 6, 4, 0),
        word(MOV_REG, 4, 2, 0, 0),
        word(ADD, 4, 0, 0, padded.len() as i32),
        word(JUMP_GREATER, 4, 3, to_end, 0),
    ];
    program.extend(stores);
    program.extend([
        word(MOV_REG, 1, 6, 0, 0),
        // A load of the map's address takes two words; its source register says that it is a map's descriptor.
        word(LOAD_MAP, 2, 1, 0, array),
        0,
        word(MOV, 3, 0, 0, 0),
        word(CALL, 0, 0, 0, TAIL_CALL),
        word(MOV, 0, 0, 0, 99),
        word(EXIT, 0, 0, 0, 0),
    ]);
    program
}

fn load(instructions: &[u64], linear: bool) -> OwnedFd {
    let license = c"Apache-2.0";
    let mut log = vec![0_u8; 1 << 16];
    // SAFETY: all fields that are not set below may be zero.
    let mut attr: bpf_attr = unsafe { zeroed() };
    // SAFETY: this member is the one that BPF_PROG_LOAD reads.
    let program = unsafe { &mut attr.__bindgen_anon_3 };
    program.prog_type = bpf_prog_type::BPF_PROG_TYPE_XDP as u32;
    program.insns = instructions.as_ptr() as u64;
    program.insn_cnt = instructions.len() as u32;
    program.license = license.as_ptr() as u64;
    program.prog_flags = if linear { 0 } else { HAS_FRAGS };
    // A program array holds programs of one attach type.
    program.expected_attach_type = bpf_attach_type::BPF_XDP as u32;
    program.log_buf = log.as_mut_ptr() as u64;
    program.log_size = log.len() as u32;
    program.log_level = 1;
    let fd = bpf(bpf_cmd::BPF_PROG_LOAD, &mut attr);
    let said = log.split(|byte| *byte == 0).next().unwrap_or_default();
    assert!(fd >= 0, "{}: {}", Error::last_os_error(), String::from_utf8_lossy(said));
    // SAFETY: the kernel has just given this descriptor to us alone.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> i32 {
    // SAFETY: every pointer in `attr` is to memory that outlives the call and is as long as `attr` says.
    unsafe { libc::syscall(libc::SYS_bpf, command as libc::c_long, &raw mut *attr, size_of_val(attr)) as i32 }
}
