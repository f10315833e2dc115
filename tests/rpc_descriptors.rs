//! Out of descriptors the daemon waits instead of spinning or dropping callers, and goes on when there are some again.
//! A program of its own: the limit is the whole process's.
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

#[path = "rpc_socket/harness.rs"]
#[allow(dead_code)]
mod harness;

use std::{
    io::Write,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use harness::{Server, parse, post, quick, read_all};

fn cpu_time() -> Duration {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).unwrap();
    let total = usage.user_time() + usage.system_time();
    Duration::from_micros(u64::try_from(total.tv_sec() * 1_000_000 + total.tv_usec()).unwrap())
}

/// Every descriptor that this process may have.
async fn take_all() -> Vec<OwnedFd> {
    let null = std::fs::File::open("/dev/null").unwrap();
    let mut taken = Vec::new();
    // An earlier connection's descriptors are closed some time after its answer: full is what stays full for a while.
    let mut full_for = 0;
    while full_for < 20 {
        match null.as_fd().try_clone_to_owned() {
            Ok(one) => {
                taken.push(one);
                full_for = 0;
            }
            Err(_) => {
                full_for += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
    taken.push(null.into());
    taken
}

#[tokio::test(flavor = "multi_thread")]
async fn accept_pauses_without_descriptors_and_goes_on_with_them() {
    let server = Server::start(quick());
    // Everything that opens descriptors lazily has done so once.
    assert_eq!(server.post(0, "{}").await.0, 200);
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, 128, 4096).unwrap();
    // A connection takes three: none, one or two of them are there.
    for spare in 0..3 {
        let mut taken = take_all().await;
        // One of them is the caller's.
        taken.truncate(taken.len() - 1 - spare);
        let mut waiting = std::os::unix::net::UnixStream::connect(&server.socket).unwrap();
        waiting.write_all(&post(r#"{"jsonrpc":"2.0","id":1,"method":"origin.list"}"#)).unwrap();
        let before = cpu_time();
        // Time for some pauses; a loop that spins uses all of it.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let spent = cpu_time() - before;
        assert!(spent < Duration::from_millis(250), "{spent:?} of 500 ms were spent with {spare} to spare");
        waiting.set_nonblocking(true).unwrap();
        let nothing = std::io::Read::read(&mut waiting, &mut [0]);
        let kind = nothing.map_err(|error| error.kind());
        assert_eq!(
            kind,
            Err(std::io::ErrorKind::WouldBlock),
            "it is neither served nor dropped, {spare} to spare"
        );
        waiting.set_nonblocking(false).unwrap();
        drop(taken);
        waiting.set_read_timeout(Some(harness::PATIENCE)).unwrap();
        let answer = tokio::task::spawn_blocking(move || read_all(waiting)).await.unwrap();
        assert_eq!(parse(&answer).0, 200);
    }
    server.stop().await;
}
