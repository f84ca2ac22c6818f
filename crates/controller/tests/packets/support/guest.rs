//! Whether this runs in a bare guest (`GUENON_GUEST=1`): no tools there, and emulated hardware.

pub fn is_guest() -> bool {
    std::env::var_os("GUENON_GUEST").is_some_and(|value| value == "1")
}

/// Says that a test was skipped for want of a tool, which only a guest may.
pub fn skips(tool: &str) -> bool {
    if is_guest() {
        eprintln!("SKIPPED: no {tool} in a guest (GUENON_GUEST=1)");
    }
    is_guest()
}
