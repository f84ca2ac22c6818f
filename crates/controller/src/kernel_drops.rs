//! What the kernel and the drivers dropped by interface, beside what the program judged: queues that were full, frames
//! that a device could not send.

use std::collections::BTreeMap;

/// Frames dropped by interface: (on receiving, on sending).
pub type KernelDrops = BTreeMap<String, (u64, u64)>;

/// Reads the counters of every interface in this thread's network namespace; none where they cannot be read.
#[must_use]
pub fn read() -> KernelDrops {
    // Of the thread's own network namespace, unlike /sys/class/net, which belongs to the mount.
    parse(&std::fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default())
}

/// Reads /proc/net/dev: `name: rx-bytes packets errs drop fifo frame compressed multicast tx-bytes packets errs drop ...`.
fn parse(table: &str) -> KernelDrops {
    let line = |line: &str| {
        let (name, numbers) = line.split_once(':')?;
        let numbers: Vec<u64> = numbers.split_whitespace().map_while(|number| number.parse().ok()).collect();
        Some((name.trim().to_owned(), (*numbers.get(3)?, *numbers.get(11)?)))
    };
    table.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_read_by_interface_and_direction() {
        let table = "Inter-|   Receive                                                |  Transmit\n \
                     face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo\n    \
                     lo: 10 1 0 0 0 0 0 0 10 1 0 0 0 0 0 0\n  eth0: 99 9 0 3 0 0 0 0 88 8 0 4 0 0 0 0\n";
        assert_eq!(parse(table), [("lo".to_owned(), (0, 0)), ("eth0".to_owned(), (3, 4))].into());
    }

    #[test]
    fn this_machine_tells_of_its_loopback() {
        assert!(read().contains_key("lo"));
    }
}
