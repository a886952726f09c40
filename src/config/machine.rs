//! Defaults that are fitted to the machine: memory limits as shares of the memory that this process may have.

use clap::Command;

/// Gives a command defaults that fit the machine.
pub fn fitted(command: Command) -> Command {
    let limits = machine_bytes().map(machine_limits);
    limits.into_iter().flatten().fold(command, |command, (name, bytes)| {
        command.mut_arg(name, |arg| arg.default_value(bytes.to_string()).hide_default_value(true))
    })
}

fn machine_limits(bytes: u64) -> [(&'static str, u64); 2] {
    [("memory_bytes_max", bytes / 10 * 6), ("query_memory_bytes_max", bytes / 10 * 2)]
}

/// Returns the memory that this process may have, where the system says: the machine's, or its container's limit.
fn machine_bytes() -> Option<u64> {
    let cgroup = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let cgroup = cgroup.iter().filter_map(|path| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok());
    // Without a limit there is the word `max`, or a number that no machine has.
    physical_bytes().into_iter().chain(cgroup).min()
}

fn physical_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}
