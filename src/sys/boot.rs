//! Ids of this boot.

/// The kernel's random id of this boot (`/proc/sys/kernel/random/boot_id`): 36 characters, constant until the next one.
pub fn boot_id() -> std::io::Result<String> {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned())
}
