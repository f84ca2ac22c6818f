//! Loading a program: one for each interface, with its settings as constants.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use aya::programs::{SchedClassifier, Xdp};
use aya::util::KernelVersion;
use aya::{EbpfError, EbpfLoader};
use guenon_ebpf::abi::Settings;
use zerocopy::IntoBytes;

use super::error::DataPathError;
use super::maps::shapes;
use super::object::OBJECT;
use super::sys;
use super::tables::{Capacities, Store, Table};

/// Entry points: multi-buffer aware, and for kernels before 5.18.
const GUENON: [&str; 2] = ["guenon", "guenon_linear"];
pub(super) const EGRESS: &str = "guenon_egress";
const PASS: [&str; 2] = ["guenon_pass", "guenon_pass_linear"];

/// Lines of the verifier's that an error has.
const VERIFIER_LINES: usize = 3;

/// A loaded program.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) fd: OwnedFd,
    pub(super) id: u32,
    /// Takes frames of several buffers (jumbo frames).
    pub(super) frags: bool,
}

/// Loads the program on the maps that are pinned in this directory.
pub(super) fn load(maps: &Path, settings: &Settings) -> Result<Loaded, DataPathError> {
    let paths = paths(maps);
    load_with(on(&paths), settings, GUENON)
}

/// Loads the program on the way out, on the maps that are pinned in this directory.
pub(super) fn load_egress(maps: &Path, settings: &Settings) -> Result<Loaded, DataPathError> {
    let refused = |error: &dyn std::error::Error| DataPathError::Load { program: EGRESS, error: told(EGRESS, error) };
    let paths = paths(maps);
    let mut loader = on(&paths);
    loader.override_global("SETTINGS", settings.as_bytes(), true);
    let mut ebpf = loader.load(OBJECT).map_err(|error: EbpfError| refused(&error))?;
    let program = ebpf.program_mut(EGRESS);
    let program = program.ok_or_else(|| DataPathError::Load { program: EGRESS, error: "there is none".into() })?;
    let program: &mut SchedClassifier =
        program.try_into().map_err(|error: aya::programs::ProgramError| refused(&error))?;
    program.load().map_err(|error| refused(&error))?;
    let fd = program.fd().map_err(|error| refused(&error))?;
    let fd = sys::duplicate(fd).map_err(DataPathError::map("hold the program", EGRESS))?;
    let (id, _) = sys::program_info(fd.as_fd()).map_err(DataPathError::map("inspect", EGRESS))?;
    Ok(Loaded { fd, id, frags: true })
}

/// Where the maps are pinned, by name.
fn paths(maps: &Path) -> Vec<(&'static str, PathBuf)> {
    shapes(&Capacities::default()).into_keys().map(|name| (name, maps.join(name))).collect()
}

/// A loader that takes the pinned maps.
fn on<'a>(paths: &'a [(&'static str, PathBuf)]) -> EbpfLoader<'a> {
    let mut loader = EbpfLoader::new();
    for (name, path) in paths {
        loader.map_pin_path(name, path.as_path());
    }
    loader
}

/// Loads the program that passes everything: for the far end of a veth. It stands on maps of no size of its own.
pub(super) fn load_pass() -> Result<Loaded, DataPathError> {
    load_with(EbpfLoader::new(), &Settings::default(), PASS)
}

fn load_with<'a>(
    mut loader: EbpfLoader<'a>,
    settings: &'a Settings,
    entry_points: [&'static str; 2],
) -> Result<Loaded, DataPathError> {
    let program = entry_points[0];
    let refused = |error: &dyn std::error::Error| DataPathError::Load { program, error: told(program, error) };
    loader.override_global("SETTINGS", settings.as_bytes(), true);
    let mut ebpf = loader.load(OBJECT).map_err(|error: EbpfError| refused(&error))?;
    let mut first = None;
    for (entry_point, frags) in entry_points.into_iter().zip([true, false]) {
        let Some(program) = ebpf.program_mut(entry_point) else { continue };
        let program: &mut Xdp = program.try_into().map_err(|error: aya::programs::ProgramError| refused(&error))?;
        match program.load() {
            Ok(()) => {
                let fd = program.fd().map_err(|error| refused(&error))?;
                let fd = sys::duplicate(fd).map_err(DataPathError::map("hold the program", entry_point))?;
                let (id, _) = sys::program_info(fd.as_fd()).map_err(DataPathError::map("inspect", entry_point))?;
                if let (false, Some(error)) = (frags, first.as_ref().filter(|_| !lacks_frags())) {
                    tracing::warn!(
                        program = entry_point,
                        "loaded without frags, so that interfaces with jumbo frames cannot be served: {error}"
                    );
                } else if !frags {
                    tracing::info!(
                        program = entry_point,
                        "loaded without frags, which this kernel does not know: interfaces with jumbo frames need 5.18 or newer"
                    );
                }
                return Ok(Loaded { fd, id, frags });
            }
            // The kernel that lacks `frags` says no more than "invalid argument"; the other entry point tells.
            Err(error) => drop(first.get_or_insert_with(|| refused(&error))),
        }
    }
    Err(first.unwrap_or(DataPathError::Load { program, error: "it is not in the object".to_owned() }))
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        source = error.source();
    }
    text
}

/// A loader's error in one line; the whole of it is logged at debug level.
pub(super) fn told(program: &str, error: &dyn std::error::Error) -> String {
    let whole = chain(error);
    let short = shortened(&whole);
    if short != whole {
        tracing::debug!(program, "all that the verifier said: {whole}");
    }
    short
}

/// An error with no more than the end of what the verifier said, which says why. All of it is a trace of every instruction.
fn shortened(error: &str) -> String {
    const BEFORE: &str = "Verifier output:";
    const FIGURES: [&str; 3] = ["verification time ", "stack depth ", "processed "];
    let Some((before, said)) = error.split_once(BEFORE) else { return error.to_owned() };
    let is_figure = |line: &&str| FIGURES.iter().any(|figure| line.starts_with(figure));
    let lines: Vec<&str> = said.trim_matches(['\0', ' ', '\n']).lines().map(str::trim_end).collect();
    let lines: Vec<&str> = lines.into_iter().filter(|line| !is_figure(line)).collect();
    let left_out = lines.len().saturating_sub(VERIFIER_LINES);
    if left_out == 0 {
        return error.to_owned();
    }
    let last = lines.get(left_out..).unwrap_or_default().join("; ");
    format!("{before}{BEFORE} ({left_out} lines before, see --log-level debug) {last}")
}

/// What settings the tables' sizes ask for.
pub(super) fn with_masks(mut settings: Settings, store: &impl Store) -> Settings {
    let mask = |table: Table| store.elements(table) - 1;
    settings.address_mask = mask(Table::Addresses);
    settings.frontend_mask = mask(Table::Frontends);
    settings.local_mask = mask(Table::Locals);
    settings.director_mask = mask(Table::Directors);
    settings.flow_mask = mask(Table::Flows);
    settings
}

/// A number for code, settings and maps together: the same number, the same program.
pub(super) fn fingerprint(settings: &Settings, maps: u32) -> u64 {
    // FNV-1a (Fowler, Noll, Vo), 64 bits.
    let bytes = OBJECT.iter().chain(settings.as_bytes()).copied().chain(maps.to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// Whether the kernel is one that takes no multi-buffer programs; 5.18 was the first that does.
pub(super) fn lacks_frags() -> bool {
    KernelVersion::current().is_ok_and(|version| version < KernelVersion::new(5, 18, 0))
}

#[cfg(test)]
mod tests {
    use super::shortened;

    #[test]
    fn of_what_the_verifier_says_the_end_is_kept() {
        let trace: String = (0..5000).map(|number| format!("{number}: (b7) r0 = 0   ; R0_w=0\n")).collect();
        let said = format!(
            "the BPF_PROG_LOAD syscall returned Permission denied (os error 13). Verifier output: {trace}\
             R2 pointer -= pointer prohibited\nverification time 2227 usec\nstack depth 16+0\n\
             processed 26 insns (limit 1000000)\n\0"
        );
        assert_eq!(
            shortened(&said),
            "the BPF_PROG_LOAD syscall returned Permission denied (os error 13). Verifier output: (4998 lines before, see \
             --log-level debug) 4998: (b7) r0 = 0   ; R0_w=0; 4999: (b7) r0 = 0   ; R0_w=0; R2 pointer -= pointer prohibited"
        );
        for short in ["the map is full", "it failed. Verifier output: none"] {
            assert_eq!(shortened(short), short);
        }
    }
}
