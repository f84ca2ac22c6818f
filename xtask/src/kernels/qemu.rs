//! Boots a kernel in QEMU. Software emulation: `/dev/kvm` may exist and not work, and nothing here is about time.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::fetch::Kernel;
use crate::shell::cmd;

/// How long a guest may take; slow machines run several at once.
const LIMIT: Duration = Duration::from_secs(2400);
const MEMORY_MB: u32 = 1024;

/// What became of a guest.
pub(super) struct Outcome {
    /// Exit status of what ran there; `None` if it never came to an end (panic, hang, trouble in QEMU).
    pub(super) status: Option<i32>,
    /// What it printed.
    pub(super) console: String,
}

/// Boots once.
pub(super) fn boot(kernel: &Kernel, initramfs: &Path, console: &Path) -> Result<Outcome> {
    let serial = format!("file:{}", console.display());
    let said = cmd("qemu-system-x86_64")
        .args(["-accel", "tcg,thread=single", "-cpu", "max", "-M", "q35", "-smp", "2"])
        .args(["-m", &MEMORY_MB.to_string()])
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", &serial])
        .args(cards())
        .arg("-kernel")
        .arg(kernel.image()?)
        .arg("-initrd")
        .arg(initramfs)
        .args(["-append", "console=ttyS0 panic=-1 quiet"])
        .limit(LIMIT)
        .try_read();
    let text = std::fs::read(console).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).replace('\r', "");
    let status = text.lines().rev().find_map(|line| line.strip_prefix("EXIT-STATUS ")?.trim().parse().ok());
    if status.is_none()
        && let Ok(said) = &said
        && !said.status.success()
    {
        bail!("QEMU failed ({}): {}", said.status, said.stderr.trim());
    }
    if status.is_none() {
        crate::interrupt::check()?;
    }
    Ok(Outcome { status, console: text })
}

/// Four network cards on two hubs: what the first sends, the second receives; and so for the others.
fn cards() -> Vec<String> {
    (0..4)
        .flat_map(|card| {
            let hub = card / 2;
            let device = format!("virtio-net-pci,netdev=n{card},romfile=,mac=02:00:00:00:00:a{card}");
            ["-netdev".into(), format!("hubport,id=n{card},hubid={hub}"), "-device".into(), device]
        })
        .collect()
}

/// Boots; once more if the guest came to no end, which happens to an emulator on a busy machine.
pub(super) fn boot_twice(kernel: &Kernel, initramfs: &Path, console: &Path) -> Result<Outcome> {
    let first = boot(kernel, initramfs, console).with_context(|| format!("cannot boot {}", kernel.release))?;
    if first.status.is_some() {
        return Ok(first);
    }
    boot(kernel, initramfs, console).with_context(|| format!("cannot boot {}", kernel.release))
}
