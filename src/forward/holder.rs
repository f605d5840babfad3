//! Who holds a port: the name of the process, for the sentence that says it is in use. Best effort.

/// `name (pid N)` of the process that listens on a TCP port; none where it cannot be seen (another user's process
/// without root, or not Linux).
pub fn of_port(port: u16) -> Option<String> {
    #[cfg(target_os = "linux")]
    {
        let inodes = listening_inodes(port);
        std::fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let holds = std::fs::read_dir(entry.path().join("fd")).ok()?.flatten().any(|fd| {
                let target = std::fs::read_link(fd.path()).unwrap_or_default();
                inodes.iter().any(|inode| target.as_os_str() == format!("socket:[{inode}]").as_str())
            });
            holds.then(|| format!("{} (pid {pid})", name(&entry.path())))
        })
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = port;
        None
    }
}

/// The program's name; where its file cannot be seen the kernel's own note of it, which is cut off at 15 letters.
#[cfg(target_os = "linux")]
fn name(process: &std::path::Path) -> String {
    let program = std::fs::read_link(process.join("exe")).ok();
    match program.as_deref().and_then(|p| p.file_name()).and_then(|n| n.to_str()) {
        Some(name) => name.trim_end_matches(" (deleted)").to_owned(),
        None => std::fs::read_to_string(process.join("comm")).unwrap_or_default().trim().to_owned(),
    }
}

/// Inodes of listening sockets, from the tables of proc(5): column 2 is ADDRESS:PORT in hex, 4 the state (0A listens),
/// 10 the inode.
#[cfg(target_os = "linux")]
fn listening_inodes(port: u16) -> Vec<String> {
    let wanted = format!(":{port:04X}");
    let mut found = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        for line in std::fs::read_to_string(table).unwrap_or_default().lines().skip(1) {
            let columns: Vec<&str> = line.split_whitespace().collect();
            if let (Some(local), Some(&"0A"), Some(inode)) = (columns.get(1), columns.get(3), columns.get(9))
                && local.ends_with(&wanted)
            {
                found.push((*inode).to_owned());
            }
        }
    }
    found
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #[test]
    fn our_own_listener_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let holder = super::of_port(port).unwrap();
        assert!(holder.ends_with(&format!("(pid {})", std::process::id())), "{holder}");
        drop(listener);
        assert_eq!(super::of_port(port), None);
    }
}
