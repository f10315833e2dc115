//! What a start makes of what it finds: records, uppers, mounts, and damage to each.

use super::*;

async fn one(host: &Host) -> Workspace {
    let antares = host.open().await;
    let made = antares.create(&alice(), host.request("w")).await.unwrap();
    std::fs::write(made.upper.join("precious"), "every byte").unwrap();
    made
}

#[tokio::test]
async fn everything_about_a_workspace_survives_a_restart() {
    let mut host = Host::split();
    let antares = host.open().await;
    let labels = BTreeMap::from([("job".to_owned(), "7".to_owned())]);
    let options =
        Options { labels, ttl: Some(Duration::from_secs(9999)), mode: Some(0o750), ..Options::default() };
    let request =
        Create { rev: Some("main".into()), path: "a/b".parse().unwrap(), options, ..host.request("w") };
    let made = antares.create(&alice(), request).await.unwrap();
    let mtime = lock(&host.kernel.specs)[0].root.mtime;
    drop(antares);
    for reboot in [false, true] {
        if reboot {
            host.reboot();
        }
        let antares = host.open().await;
        let back = antares.get(&ALL, &made.id).unwrap();
        assert_ne!(back.mount_id, made.mount_id);
        assert_eq!(Workspace { mount_id: made.mount_id, ..back }, made);
        let spec = lock(&host.kernel.specs).last().unwrap().clone();
        assert_eq!((spec.root.mtime, &spec.owner), (mtime, &alice()));
        assert_eq!(spec.point.expect, if reboot { None } else { made.point });
        assert_eq!(host.mounted(), std::slice::from_ref(&made.id));
    }
}

#[tokio::test]
async fn files_keep_their_time_when_the_root_is_served_anew() {
    let mut host = Host::new();
    let made = one(&host).await;
    // As if the workspace had been made long ago.
    let record = host.record(&made.id);
    let mut old = record::decode(&std::fs::read(&record).unwrap()).unwrap();
    old.root_mtime = 1_234_567;
    std::fs::write(&record, record::encode(&old)).unwrap();
    host.reboot();
    host.open().await;
    assert_eq!(lock(&host.kernel.specs).last().unwrap().root.mtime, 1_234_567);
}

#[tokio::test]
async fn a_mount_point_that_is_another_directory_is_not_mounted_on() {
    for reboot in [false, true] {
        let mut host = Host::new();
        let made = one(&host).await;
        std::fs::rename(&made.mount_point, made.mount_point.with_extension("moved")).unwrap();
        std::fs::create_dir(&made.mount_point).unwrap();
        if reboot {
            host.reboot();
        }
        for _ in 0..2 {
            let antares = host.open().await;
            let State::Displaced { reason } = antares.state(&made.id) else {
                panic!("{:?}", antares.state(&made.id))
            };
            assert!(
                reason.starts_with(&format!("cannot mount at {}: ", made.mount_point.display())),
                "{reason}"
            );
            assert_eq!(host.mounted(), []);
            assert_eq!(std::fs::read(made.upper.join("precious")).unwrap(), b"every byte");
        }
        let antares = host.open().await;
        let back = antares.mount(&ALL, &made.id, None).await.unwrap();
        assert_eq!(back.state, State::Mounted, "the user says that it is the one");
    }
}

#[tokio::test]
async fn a_mount_point_that_is_gone_displaces_and_its_return_mends() {
    let host = Host::new();
    let made = one(&host).await;
    let away = made.mount_point.with_extension("away");
    std::fs::rename(&made.mount_point, &away).unwrap();
    assert!(matches!(host.open().await.state(&made.id), State::Displaced { .. }));
    std::fs::rename(&away, &made.mount_point).unwrap();
    assert_eq!(host.open().await.state(&made.id), State::Mounted);
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_passes_is_tried_again() {
    let host = Host::new();
    let made = one(&host).await;
    host.fail_mounts(true);
    let antares = host.open().await;
    assert!(matches!(antares.state(&made.id), State::Failed { .. }));
    let mut events = antares.watch();
    host.fail_mounts(false);
    while antares.state(&made.id) != State::Mounted {
        events.recv().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn stuck_workspaces_do_not_keep_the_others_from_coming_up() {
    let host = Host::new();
    let antares = host.open().await;
    let mut made = Vec::new();
    for n in 0..60 {
        made.push(antares.create(&alice(), host.request(&format!("w{n}"))).await.unwrap());
    }
    drop(antares);
    let (stuck, fine) = made.split_at(40);
    lock(&host.kernel.stuck).extend(stuck.iter().map(|workspace| workspace.mount_point.clone()));
    let antares = host.open().await;
    fine.iter().for_each(|workspace| assert_eq!(antares.state(&workspace.id), State::Mounted));
    stuck.iter().for_each(|workspace| assert_eq!(antares.state(&workspace.id), State::Mounting));
}

#[tokio::test]
async fn a_damaged_record_makes_an_orphan_and_loses_nothing() {
    type Damage = fn(&Path);
    let kinds: [(&str, Damage, &str); 7] = [
        ("empty", |record| std::fs::write(record, "").unwrap(), "its record is no workspace record"),
        ("foreign", |record| std::fs::write(record, "hello\n").unwrap(), "its record is no workspace record"),
        (
            "cut",
            |record| {
                let bytes = std::fs::read(record).unwrap();
                std::fs::write(record, &bytes[..bytes.len() - 10]).unwrap();
            },
            "its record is cut off or has been extended",
        ),
        (
            "flipped",
            |record| {
                let mut bytes = std::fs::read(record).unwrap();
                bytes[200] ^= 4;
                std::fs::write(record, bytes).unwrap();
            },
            "its record is damaged: the checksum does not fit",
        ),
        (
            "newer",
            |record| {
                let text = String::from_utf8(std::fs::read(record).unwrap()).unwrap();
                std::fs::write(record, text.replacen(" 1 ", " 9 ", 1)).unwrap();
            },
            "its record has version 9, and this release reads versions up to 2",
        ),
        ("gone", |record| std::fs::remove_file(record).unwrap(), "it has no record"),
        (
            "directory",
            |record| {
                std::fs::remove_file(record).unwrap();
                std::fs::create_dir(record).unwrap();
            },
            "its record cannot be read: not a regular file",
        ),
    ];
    for (kind, damage, reason) in kinds {
        let host = Host::split();
        let made = one(&host).await;
        let antares = host.open().await;
        let other = antares.create(&alice(), host.request("other")).await.unwrap();
        drop(antares);
        damage(&host.record(&made.id));
        let record = std::fs::read(host.record(&made.id)).ok();
        for _ in 0..2 {
            let antares = host.open().await;
            assert_eq!(antares.list(&ALL).len(), 1, "{kind}");
            assert_eq!(antares.state(&other.id), State::Mounted, "{kind}");
            let (id, path) = (made.id.clone(), made.upper.clone());
            let orphan = Orphan { id, path, uid: ALICE, reason: reason.to_owned() };
            assert_eq!(antares.orphans().unwrap(), [orphan], "{kind}");
            assert_eq!(std::fs::read(made.upper.join("precious")).unwrap(), b"every byte", "{kind}");
            assert_eq!(std::fs::read(host.record(&made.id)).ok(), record, "{kind}");
            assert_eq!(host.mounted(), std::slice::from_ref(&other.id), "{kind}: dead mounts are detached");
        }
    }
}

#[tokio::test]
async fn an_orphan_is_adopted_by_the_owner_of_its_upper() {
    let host = Host::new();
    let made = one(&host).await;
    std::fs::write(host.record(&made.id), "junk").unwrap();
    let antares = host.open().await;
    let bob = Identity { uid: 1001, ..alice() };
    let refusal = antares.adopt(&made.id, &bob, host.request("new")).await.unwrap_err().to_string();
    assert_eq!(refusal, format!("the upper of {} belongs to uid 1000, not to uid 1001", made.id));
    assert!(antares.adopt(&made.id, &alice(), host.ephemeral("new")).await.is_err());
    let adopted = antares.adopt(&made.id, &alice(), host.request("new")).await.unwrap();
    assert_eq!((adopted.state, &adopted.id), (State::Unmounted, &made.id));
    assert_eq!(std::fs::read(host.record(&made.id).with_file_name("record.unusable-0")).unwrap(), b"junk");
    assert_eq!(antares.orphans().unwrap(), []);
    antares.mount(&ALL, &made.id, None).await.unwrap();
    let Upper::Writable { work, .. } = lock(&host.kernel.specs).last().unwrap().upper.clone() else {
        panic!()
    };
    assert!(work.ends_with("work-1"), "{}", work.display());
    drop(antares);
    assert_eq!(host.open().await.state(&made.id), State::Mounted);
    assert_eq!(std::fs::read(made.upper.join("precious")).unwrap(), b"every byte");
    let unknown = "aaaaaaaaaaaa".parse().unwrap();
    let antares = host.open().await;
    assert!(matches!(
        antares.adopt(&unknown, &alice(), host.request("x")).await,
        Err(WorkspaceError::NoSuchWorkspace(_))
    ));
    assert!(matches!(antares.discard(&made.id).await, Err(WorkspaceError::NoSuchWorkspace(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_orphan_is_adopted_or_discarded_once() {
    let host = Host::split();
    let made = one(&host).await;
    std::fs::write(host.record(&made.id), "junk").unwrap();
    let antares = host.open().await;
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..20 {
        let (antares, id, request) = (antares.clone(), made.id.clone(), host.request("new"));
        calls.spawn(async move {
            match n % 2 {
                0 => antares.adopt(&id, &alice(), request).await.is_ok(),
                _ => antares.discard(&id).await.is_ok(),
            }
        });
    }
    assert_eq!(calls.join_all().await.into_iter().filter(|done| *done).count(), 1);
    antares.settle();
    assert_eq!(antares.list(&ALL).len(), usize::from(made.upper.exists()));
}

#[tokio::test]
async fn a_discarded_orphan_is_gone() {
    let host = Host::split();
    let made = one(&host).await;
    std::fs::write(host.record(&made.id), "junk").unwrap();
    let antares = host.open().await;
    antares.discard(&made.id).await.unwrap();
    antares.settle();
    assert_eq!((host.tree().len(), antares.orphans().unwrap()), (3, vec![]));
}

#[tokio::test]
async fn a_missing_file_system_of_uppers_is_not_taken_for_empty_workspaces() {
    let host = Host::split();
    let made = one(&host).await;
    let away = host.dir.path().join("away");
    std::fs::rename(host.uppers(), &away).unwrap();
    let antares = host.open().await;
    let orphans = antares.orphans().unwrap();
    assert_eq!(orphans.len(), 1);
    assert!(orphans[0].reason.starts_with("its upper is gone"), "{}", orphans[0].reason);
    let refusal = antares.adopt(&made.id, &alice(), host.request("w")).await.unwrap_err().to_string();
    assert!(refusal.ends_with("bring its file system back, or discard it"), "{refusal}");
    drop(antares);
    std::fs::remove_dir(host.uppers()).unwrap();
    std::fs::rename(&away, host.uppers()).unwrap();
    assert_eq!(host.open().await.state(&made.id), State::Mounted);
    assert_eq!(std::fs::read(made.upper.join("precious")).unwrap(), b"every byte");
}

#[tokio::test]
async fn work_directories_are_fresh_and_old_ones_go_with_the_boot() {
    let mut host = Host::new();
    let made = one(&host).await;
    let works = |host: &Host| {
        let entries = made.upper.parent().unwrap().read_dir().unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut works: Vec<_> = names.filter(|name| name.starts_with("work-")).collect();
        works.sort();
        assert_eq!(host.mounted().len(), 1);
        works
    };
    let antares = host.open().await;
    antares.unmount(&ALL, &made.id, true).await.unwrap();
    antares.mount(&ALL, &made.id, None).await.unwrap();
    assert_eq!(works(&host), ["work-0", "work-1", "work-2"], "the first mounts may live on unseen");
    drop(antares);
    host.reboot();
    let antares = host.open().await;
    assert_eq!(works(&host), ["work-3"]);
    for _ in 0..80 {
        antares.unmount(&ALL, &made.id, false).await.unwrap();
        antares.mount(&ALL, &made.id, None).await.unwrap();
    }
    assert_eq!(works(&host).len(), 65, "bounded within a boot");
    antares.settle();
    assert!(!host.tree().iter().any(|line| line.contains(".trash")));
}

#[tokio::test]
async fn one_whose_time_was_over_meanwhile_is_not_mounted_and_its_upper_stays() {
    let host = Host::new();
    let made = one(&host).await;
    let record = host.record(&made.id);
    let mut old = record::decode(&std::fs::read(&record).unwrap()).unwrap();
    old.options.ttl = Some(Duration::from_secs(60));
    old.expires = Some(SystemTime::UNIX_EPOCH);
    std::fs::write(&record, record::encode(&old)).unwrap();
    let antares = host.open().await;
    assert_eq!((antares.state(&made.id), host.mounted()), (State::Unmounted, vec![]));
    let back = antares.mount(&ALL, &made.id, None).await.unwrap();
    assert_eq!(back.state, State::Mounted);
    assert!(antares.get(&ALL, &made.id).unwrap().expires.unwrap() > SystemTime::now(), "it lives once more");
}

#[tokio::test]
async fn roots_that_an_earlier_process_left_are_dropped() {
    let host = Host::new();
    let left = Snapshot { commit: Oid::EMPTY_TREE, path: RepoPath::root(), tree: Oid::EMPTY_TREE };
    host.roots.add_root(&"origin".parse().unwrap(), &left, 0).unwrap();
    let made = one(&host).await;
    host.open().await;
    assert_eq!(lock(&host.roots.served).keys().copied().collect::<Vec<_>>(), [made.snapshot.tree]);
}

#[tokio::test]
async fn directories_that_others_may_write_to_are_refused() {
    let host = Host::split();
    std::fs::create_dir(host.uppers()).unwrap();
    std::fs::set_permissions(host.uppers(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let error = host.try_open(Hook::default()).await.err().unwrap().to_string();
    assert!(error.contains("others may write to it"), "{error}");
}

#[tokio::test]
async fn strange_names_beside_workspaces_are_left_alone() {
    let host = Host::new();
    let made = one(&host).await;
    for name in ["lost+found", ".trash-", "README"] {
        std::fs::create_dir(host.records().join(name)).unwrap();
    }
    std::os::unix::fs::symlink("/etc", host.records().join("aaaaaaaaaaaa")).unwrap();
    let antares = host.open().await;
    antares.settle();
    assert_eq!(antares.state(&made.id), State::Mounted);
    for name in ["lost+found", ".trash-", "README", "aaaaaaaaaaaa"] {
        assert!(host.records().join(name).symlink_metadata().is_ok(), "{name}");
    }
}
