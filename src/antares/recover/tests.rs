use std::time::{Duration, UNIX_EPOCH};

use super::*;
use crate::antares::record::{self, BadRecord};

const ID: &str = "abcdefghijkm";

fn mount(mount_id: u64, path: &str, alive: bool) -> LiveMount {
    LiveMount { workspace: ID.parse().unwrap(), mount_id, path: path.into(), alive }
}

fn live(mount_id: u64) -> LiveMount {
    mount(mount_id, "/home/alice/linux", true)
}

fn dead(mount_id: u64) -> LiveMount {
    mount(mount_id, "/home/alice/linux", false)
}

/// A record in `phase`, mounted last as 431 in this boot.
fn good(phase: Phase) -> Record {
    let mut record = record::decode(record::encode(&record::tests::sample()).as_slice()).unwrap();
    record.phase = phase;
    record.expires = None;
    record
}

fn change(phase: Phase, change: impl FnOnce(&mut Record)) -> FoundRecord {
    let mut record = good(phase);
    change(&mut record);
    FoundRecord::Good(Box::new(record))
}

fn plain(phase: Phase) -> FoundRecord {
    change(phase, |_| {})
}

fn orphan(reason: &str) -> Then {
    Then::Orphan { reason: reason.to_owned() }
}

#[test]
fn every_finding_has_its_plan() {
    use Phase::{Creating, Mounted, Mounting, Unmounted};
    let empty = FoundUpper::Empty { uid: 1000 };
    let changed = FoundUpper::Changed { uid: 1000 };
    let gone = FoundUpper::Missing;
    let displaced = || Phase::Displaced { reason: "moved".into() };
    let failed = || Phase::Failed { reason: "EIO".into() };
    let ephemeral = |phase| change(phase, |record| record.options.ephemeral = true);
    let read_only = |phase| change(phase, |record| record.options.read_only = true);
    let expired = |phase| change(phase, |record| record.expires = Some(UNIX_EPOCH + Duration::from_secs(99)));
    let bad = || FoundRecord::Bad(BadRecord::Checksum);
    let damaged = "its record is damaged: the checksum does not fit";
    let no_upper = "its upper is gone; if it lies on a file system of its own, is that mounted?";
    let unfinished = "it was never finished, but something was written into it";
    let elsewhere = |id| mount(id, "/mnt/bind", true);
    type Row = (&'static str, FoundRecord, FoundUpper, Vec<LiveMount>, Vec<u64>, Then);
    let rows: Vec<Row> = vec![
        ("mounted, host restarted", plain(Mounted), changed, vec![], vec![], Then::Mount),
        ("mounted, never written", plain(Mounted), empty, vec![], vec![], Then::Mount),
        ("mounted, daemon restarted", plain(Mounted), changed, vec![dead(431)], vec![431], Then::Mount),
        ("mounted, dead twice", plain(Mounted), changed, vec![dead(1), dead(2)], vec![1, 2], Then::Mount),
        ("mounted, resumed", plain(Mounted), changed, vec![live(431)], vec![], Then::Keep { mount_id: 431 }),
        (
            "stacked: the recorded one stays",
            plain(Mounted),
            changed,
            vec![live(431), live(500)],
            vec![500],
            Then::Keep { mount_id: 431 },
        ),
        (
            "stacked, none recorded: the topmost stays",
            change(Mounted, |record| record.stood = None),
            changed,
            vec![live(7), live(9)],
            vec![7],
            Then::Keep { mount_id: 9 },
        ),
        (
            "one alive, one dead",
            plain(Mounted),
            changed,
            vec![dead(431), live(500)],
            vec![431],
            Then::Keep { mount_id: 500 },
        ),
        (
            "a bind mount elsewhere is an administrator's",
            plain(Mounted),
            changed,
            vec![elsewhere(600), live(431)],
            vec![],
            Then::Keep { mount_id: 431 },
        ),
        (
            "a mount id of another boot says nothing",
            change(Mounted, |record| record.stood.as_mut().unwrap().boot_id = "other".into()),
            changed,
            vec![elsewhere(431), live(500)],
            vec![],
            Then::Keep { mount_id: 500 },
        ),
        ("mounting, not mounted", plain(Mounting), changed, vec![], vec![], Then::Mount),
        ("mounting, mounted and dead", plain(Mounting), empty, vec![dead(5)], vec![5], Then::Mount),
        ("mounting, alive", plain(Mounting), empty, vec![live(5)], vec![], Then::Keep { mount_id: 5 }),
        ("displaced: perhaps it is back", plain(displaced()), changed, vec![], vec![], Then::Mount),
        ("failed: perhaps it works now", plain(failed()), changed, vec![], vec![], Then::Mount),
        ("unmounted", plain(Unmounted), changed, vec![], vec![], Then::Rest),
        ("unmounted, but still there", plain(Unmounted), changed, vec![dead(8)], vec![8], Then::Rest),
        ("unmounted, and alive", plain(Unmounted), changed, vec![live(8)], vec![8], Then::Rest),
        ("time over meanwhile", expired(Mounted), changed, vec![], vec![], Then::Rest),
        ("time over, dead", expired(Mounted), changed, vec![dead(431)], vec![431], Then::Rest),
        (
            "time over, alive",
            expired(Mounted),
            changed,
            vec![live(431)],
            vec![],
            Then::Keep { mount_id: 431 },
        ),
        ("ephemeral", ephemeral(Mounted), changed, vec![dead(431)], vec![431], Then::Remove),
        (
            "ephemeral, alive",
            ephemeral(Mounted),
            changed,
            vec![live(431)],
            vec![],
            Then::Keep { mount_id: 431 },
        ),
        ("ephemeral, alive, to go", ephemeral(Unmounted), changed, vec![live(431)], vec![431], Then::Remove),
        ("ephemeral, just made", ephemeral(Creating), empty, vec![live(431)], vec![431], Then::Remove),
        ("ephemeral, never finished", ephemeral(Creating), changed, vec![], vec![], Then::Remove),
        ("never finished, no upper", plain(Creating), gone, vec![], vec![], Then::Remove),
        ("never finished, nothing written", plain(Creating), empty, vec![dead(3)], vec![3], Then::Remove),
        ("never finished, alive", plain(Creating), empty, vec![live(3)], vec![3], Then::Remove),
        ("never finished, written", plain(Creating), changed, vec![dead(3)], vec![3], orphan(unfinished)),
        (
            "never finished, being written",
            plain(Creating),
            changed,
            vec![live(3)],
            vec![],
            Then::Keep { mount_id: 3 },
        ),
        ("never finished, read-only", read_only(Creating), gone, vec![], vec![], Then::Remove),
        ("read-only has no upper", read_only(Mounted), gone, vec![], vec![], Then::Mount),
        ("upper gone", plain(Mounted), gone, vec![dead(431)], vec![431], orphan(no_upper)),
        ("upper of an unmounted one gone", plain(Unmounted), gone, vec![], vec![], orphan(no_upper)),
        ("damaged record", bad(), changed, vec![], vec![], orphan(damaged)),
        ("damaged record, empty upper", bad(), empty, vec![dead(4)], vec![4], orphan(damaged)),
        ("damaged record, no upper", bad(), gone, vec![], vec![], orphan(damaged)),
        ("damaged record, somebody works", bad(), changed, vec![live(4), dead(5)], vec![5], orphan(damaged)),
        ("no record", FoundRecord::Missing, changed, vec![], vec![], orphan("it has no record")),
        ("no record, empty upper", FoundRecord::Missing, empty, vec![], vec![], orphan("it has no record")),
        ("only a dead mount", FoundRecord::Missing, gone, vec![dead(6)], vec![6], Then::Remove),
        ("only a live mount", FoundRecord::Missing, gone, vec![live(6)], vec![6], Then::Remove),
        ("empty directories", FoundRecord::Missing, gone, vec![], vec![], Then::Remove),
    ];
    let at = Circumstances { boot_id: "boot-1".into(), now: 100 };
    for (what, record, upper, mounts, detach, then) in rows {
        let id: WorkspaceId = ID.parse().unwrap();
        let found = Found { id: id.clone(), record, upper, mounts };
        assert_eq!(plan(&[found], &at), [Plan { id, detach, then }], "{what}");
    }
}

#[test]
fn no_plan_removes_changes_of_a_durable_workspace() {
    let at = Circumstances { boot_id: "boot-1".into(), now: u64::MAX };
    let phases = [
        Phase::Creating,
        Phase::Mounting,
        Phase::Mounted,
        Phase::Unmounted,
        Phase::Displaced { reason: String::new() },
        Phase::Failed { reason: String::new() },
    ];
    let records = phases.into_iter().map(|phase| change(phase, |record| record.expires = Some(UNIX_EPOCH)));
    for record in records.chain([FoundRecord::Missing, FoundRecord::Bad(BadRecord::Newer(2))]) {
        for mounts in [vec![], vec![live(431)], vec![dead(431)], vec![live(1), dead(2)]] {
            let upper = FoundUpper::Changed { uid: 1000 };
            let found = Found { id: ID.parse().unwrap(), record: record.clone(), upper, mounts };
            assert_ne!(plan(std::slice::from_ref(&found), &at)[0].then, Then::Remove, "{found:?}");
        }
    }
}
