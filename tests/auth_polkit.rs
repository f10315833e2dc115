//! polkit as the host has it, on a bus of its own: consent, refusal, and every way of not answering.
//! Needs root, `dbus-daemon` and `polkitd`.
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

use std::{
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use scorpio::{
    auth::{Action, Authorizer, Caller, Refusal, memory::Remembering, polkit::Polkit},
    sys::{identity::Identity, peer::Peer},
};

const ALICE: u32 = 61_001;
const PATIENCE: Duration = Duration::from_secs(20);

const BUS: &str = r#"<busconfig><type>system</type><listen>unix:path=DIR/bus</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy></busconfig>"#;

const ACTIONS: &str = r#"<?xml version="1.0"?>
<!DOCTYPE policyconfig PUBLIC "-//freedesktop//DTD PolicyKit Policy Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/PolicyKit/1/policyconfig.dtd">
<policyconfig>
<action id="org.scorpio.mount"><description>d</description><message>m</message>
<defaults><allow_any>yes</allow_any><allow_inactive>yes</allow_inactive><allow_active>yes</allow_active></defaults></action>
<action id="org.scorpio.manage-others"><description>d</description><message>m</message>
<defaults><allow_any>auth_admin</allow_any><allow_inactive>no</allow_inactive><allow_active>no</allow_active></defaults>
</action>
<action id="org.scorpio.give"><description>d</description><message>m</message>
<defaults><allow_any>auth_admin</allow_any><allow_inactive>no</allow_inactive><allow_active>no</allow_active></defaults>
</action></policyconfig>"#;

/// A process that is killed when the test is over.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.0), signal).unwrap();
    }
}

fn address(dir: &Path) -> String {
    format!("unix:path={}/bus", dir.display())
}

fn start_bus(dir: &Path) -> Running {
    let _ = std::fs::remove_file(dir.join("bus"));
    let config = dir.join("bus.conf");
    std::fs::write(&config, BUS.replace("DIR", dir.to_str().unwrap())).unwrap();
    let mut command = Command::new("dbus-daemon");
    let command = command.arg("--nofork").arg(format!("--config-file={}", config.display()));
    let bus = Running(command.stderr(Stdio::null()).spawn().expect("dbus-daemon is installed"));
    let begun = Instant::now();
    while std::os::unix::net::UnixStream::connect(dir.join("bus")).is_err() {
        assert!(begun.elapsed() < PATIENCE, "the bus does not come up");
        std::thread::yield_now();
    }
    bus
}

/// polkitd with our actions and no rules, in a mount namespace of its own.
fn start_polkit(dir: &Path) -> Running {
    for name in ["actions", "rules"] {
        std::fs::create_dir_all(dir.join(name)).unwrap();
        std::fs::set_permissions(dir.join(name), PermissionsExt::from_mode(0o755)).unwrap();
    }
    std::fs::write(dir.join("actions/org.scorpio.policy"), ACTIONS).unwrap();
    let script = "mount --bind $0/actions /usr/share/polkit-1/actions && mount --bind $0/rules /etc/polkit-1/rules.d \
        && exec /usr/lib/polkit-1/polkitd --no-debug";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script]).arg(dir).env("DBUS_SYSTEM_BUS_ADDRESS", address(dir));
    Running(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}

/// A live process of alice's, and the caller it would be.
fn caller() -> (Running, Caller) {
    let alice = ALICE.to_string();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &alice, "--regid", &alice, "--clear-groups", "sleep", "600"]);
    let process = Running(command.spawn().unwrap());
    let pid = rustix::process::Pid::from_child(&process.0);
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
    let identity = Identity { uid: ALICE, gid: ALICE, groups: vec![] };
    let caller = Caller::new(Peer { identity, pid: process.0.id(), pidfd: Some(pidfd) });
    (process, caller)
}

/// Asks until polkit is up.
async fn consents(polkit: &Polkit, caller: &Caller) {
    let begun = Instant::now();
    while let Err(refusal) = polkit.authorize(caller, Action::Mount).await {
        assert!(begun.elapsed() < PATIENCE, "polkit does not consent: {refusal}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Asks until the answer is `wanted`.
async fn until_told(auth: &impl Authorizer, caller: &Caller, action: Action, wanted: Result<(), Refusal>) {
    let begun = Instant::now();
    while auth.authorize(caller, action).await != wanted {
        assert!(begun.elapsed() < PATIENCE, "the answer is never {wanted:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_that_is_taken_away_is_gone_at_once_and_on_open_connections_within_the_bound() {
    const LASTS: Duration = Duration::from_secs(3);
    /// For a question to polkit, on a machine with more to do.
    const MARGIN: Duration = Duration::from_secs(2);
    const OTHERS: Action = Action::ManageOthers;
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let _bus = start_bus(dir.path());
    let _polkitd = start_polkit(dir.path());
    let polkit = Polkit::on_bus(&address(dir.path()), Duration::from_secs(5));
    let auth = Remembering::lasting(Polkit::on_bus(&address(dir.path()), Duration::from_secs(5)), LASTS);
    let denied = || Err(Refusal::Denied { action: OTHERS });
    let ((_one, open), (_two, fresh)) = (caller(), caller());
    consents(&polkit, &open).await;
    assert_eq!(polkit.authorize(&open, OTHERS).await, denied());

    let rule = dir.path().join("rules/10-everybody.rules");
    let says_yes = "polkit.addRule(function (a) { if (a.id == 'org.scorpio.manage-others') return polkit.Result.YES; });";
    std::fs::write(&rule, says_yes).unwrap();
    until_told(&polkit, &open, OTHERS, Ok(())).await;
    assert_eq!(auth.authorize(&open, OTHERS).await, Ok(()));

    std::fs::remove_file(&rule).unwrap();
    until_told(&polkit, &open, OTHERS, denied()).await;
    let gone = Instant::now();
    assert_eq!(auth.authorize(&fresh, OTHERS).await, denied(), "a new connection remembers nothing");
    until_told(&auth, &open, OTHERS, denied()).await;
    assert!(gone.elapsed() < LASTS + MARGIN, "{:?}", gone.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn polkit_decides_and_its_silence_is_a_refusal() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let (process, alice) = caller();
    let root = Peer { identity: Identity::root(), pid: 1, pidfd: None };
    let root = Caller::new(root);
    let polkit = Polkit::on_bus(&address(dir.path()), Duration::from_millis(500));
    let unavailable = async || match polkit.authorize(&alice, Action::Mount).await {
        Err(Refusal::Unavailable { reason }) => reason,
        other => panic!("{other:?}"),
    };

    // No bus at all: root may, others may not.
    unavailable().await;
    assert_eq!(polkit.authorize(&root, Action::ManageOthers).await, Ok(()));

    // A bus without polkit.
    let bus = start_bus(dir.path());
    unavailable().await;

    let polkitd = start_polkit(dir.path());
    consents(&polkit, &alice).await;
    let denied = Err(Refusal::Denied { action: Action::ManageOthers });
    assert_eq!(polkit.authorize(&alice, Action::ManageOthers).await, denied);

    // polkit hangs.
    polkitd.signal(rustix::process::Signal::STOP);
    let begun = Instant::now();
    assert_eq!(unavailable().await, "polkit did not answer within 500ms");
    assert!(begun.elapsed() < Duration::from_secs(5));
    polkitd.signal(rustix::process::Signal::CONT);
    consents(&polkit, &alice).await;

    // The bus goes and comes back.
    drop((polkitd, bus));
    unavailable().await;
    let _bus = start_bus(dir.path());
    let _polkitd = start_polkit(dir.path());
    consents(&polkit, &alice).await;

    // The caller ends: whoever has its process id next must not get its answer.
    drop(process);
    assert!(polkit.authorize(&alice, Action::Mount).await.is_err());
}
