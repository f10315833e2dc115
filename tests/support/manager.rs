//! A service manager's descriptor store: what `FDSTORE=1` sends, kept for the next process of the service.
#![allow(unsafe_code)] // descriptors get their numbers between fork and exec

use std::{
    collections::VecDeque,
    fs,
    io::IoSliceMut,
    mem::MaybeUninit,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd, RawFd},
        unix::{fs::PermissionsExt, net::UnixDatagram, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg},
};

/// Descriptors are passed from here on.
const FIRST: RawFd = 3;

/// The store, and the socket that fills it.
pub struct Manager {
    path: PathBuf,
    socket: Arc<UnixDatagram>,
    stored: Arc<Mutex<Vec<(String, OwnedFd)>>>,
}

impl Manager {
    /// With its socket at `path`.
    pub fn new(path: &Path) -> Manager {
        let socket = Arc::new(UnixDatagram::bind(path).unwrap());
        fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
        let manager = Manager { path: path.to_owned(), socket, stored: Arc::default() };
        let (socket, stored) = (Arc::clone(&manager.socket), Arc::clone(&manager.stored));
        // So that a service that talks much is never held up.
        std::thread::spawn(move || {
            loop {
                let _ = poll(&mut [PollFd::new(&*socket, PollFlags::IN)], None);
                if !drain(&socket, &stored) {
                    return;
                }
            }
        });
        manager
    }

    /// What is stored, by name. A descriptor that reports an error has left by itself.
    pub fn names(&self) -> Vec<String> {
        self.with(|stored| stored.iter().map(|(name, _)| name.clone()).collect())
    }

    /// Looks at, or changes, what is stored.
    pub fn with<T>(&self, work: impl FnOnce(&mut Vec<(String, OwnedFd)>) -> T) -> T {
        drain(&self.socket, &self.stored);
        let mut stored = self.stored.lock().unwrap();
        stored.retain(|(_, fd)| {
            let mut polled = [PollFd::new(fd, PollFlags::empty())];
            let _ = poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
            !polled[0].revents().intersects(PollFlags::ERR | PollFlags::HUP)
        });
        work(&mut stored)
    }

    /// `program` as this manager starts it: its socket, and copies of what is stored.
    pub fn command(&self, program: &str) -> Command {
        let (names, copies): (Vec<String>, Vec<OwnedFd>) = self.with(|stored| {
            // Well above the numbers they are passed under.
            let copy = |fd: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(fd, 200).unwrap();
            stored.iter().map(|(name, fd)| (name.clone(), copy(fd))).unzip()
        });
        let mut command = Command::new("sh");
        command.args(["-c", "export LISTEN_PID=$$; exec \"$0\" \"$@\"", program]);
        command.env("NOTIFY_SOCKET", &self.path);
        command.env("LISTEN_FDS", copies.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
        if copies.is_empty() {
            command.env_remove("LISTEN_FDNAMES");
        }
        let place = move || {
            for (number, fd) in (FIRST..).zip(&copies) {
                // SAFETY: dup2 is async-signal-safe and touches no memory; nothing of this child uses the numbers
                // from 3 on, which belong to nobody once it executes the program.
                if unsafe { libc::dup2(fd.as_raw_fd(), number) } < 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        };
        // SAFETY: the closure only calls dup2 and allocates nothing.
        unsafe { command.pre_exec(place) };
        command
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        // Wakes the thread for good.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }
}

/// Takes in all messages that are there; false when the socket is shut down.
fn drain(socket: &UnixDatagram, stored: &Mutex<Vec<(String, OwnedFd)>>) -> bool {
    let mut stored = stored.lock().unwrap();
    loop {
        let mut text = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let got = recvmsg(socket.as_fd(), &mut [IoSliceMut::new(&mut text)], &mut ancillary, flags);
        let bytes = match got {
            Ok(got) if got.bytes > 0 => got.bytes,
            Ok(_) => return false,
            Err(_) => return true,
        };
        let mut fds = VecDeque::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(passed) = message {
                fds.extend(passed);
            }
        }
        take_in(&String::from_utf8_lossy(&text[..bytes]), fds, &mut stored);
    }
}

fn take_in(message: &str, fds: VecDeque<OwnedFd>, stored: &mut Vec<(String, OwnedFd)>) {
    let has = |wanted: &str| message.lines().any(|line| line == wanted);
    let Some(name) = message.lines().find_map(|line| line.strip_prefix("FDNAME=")) else { return };
    if has("FDSTORE=1") {
        stored.extend(fds.into_iter().map(|fd| (name.to_owned(), fd)));
    } else if has("FDSTOREREMOVE=1") {
        stored.retain(|(other, _)| other != name);
    }
}
