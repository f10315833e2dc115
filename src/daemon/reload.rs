//! `SIGHUP`: the configuration is read again, and what can be is taken up while users work.
//!
//! Origins, who may do what, the log level and most limits follow at once. Everything else is built into what is running; a key
//! of that sort that has changed is named in the journal and waits for the next restart.
//!
//! Nothing that is mounted breaks by a reload. An origin that leaves the configuration while workspaces stand on it can be
//! mounted by nobody any more, and is read on for them until the next restart; one whose `read_with` changes stays as it
//! was, because its workspaces are of one sort. Both are said in the journal.

use std::{collections::BTreeSet, sync::Arc};

use super::{levels::Levels, wiring};
use crate::{
    antares::{Antares, Scope},
    auth::{self, Authorizer, accounts::Accounts},
    config::{self, Config, Live, Origins, ReadWith},
    store::ObjectStore,
    telemetry::event,
    types::OriginName,
};

/// What a reload reaches.
pub struct Reload {
    /// What is in force, as far as a reload can change it; for the rest what the process was started with.
    pub config: Config,
    /// Origins that may be mounted.
    pub origins: Live<Origins>,
    /// Origins that are read: also those that workspaces are left of.
    pub reading: Live<Origins>,
    /// Who decides.
    pub authorizer: Live<dyn Authorizer>,
    /// Whom it knows.
    pub accounts: Accounts,
    /// Reads origins.
    pub store: ObjectStore,
    /// Stand on origins, and count against limits.
    pub antares: Antares,
    /// How much the journal is told.
    pub levels: Arc<Levels>,
}

impl Reload {
    /// Takes up what can be taken up of `wanted`.
    pub async fn take_up(&mut self, wanted: Config) {
        let changed = self.config.changes(&wanted);
        let (live, kept): (Vec<_>, Vec<_>) = changed.into_iter().partition(|key| config::is_live(key));
        let waiting = self.origins(&wanted);
        let live = without(live, &waiting);
        self.limits(&wanted);
        if live.iter().any(|key| key.starts_with("auth.")) {
            self.authorizer.put(auth::choose(&wanted.auth, &self.accounts).await);
            self.config.auth = wanted.auth;
        }
        for key in kept {
            tracing::warn!(
                message_id = event::RELOADED,
                key,
                "{key} changed; it takes effect at the next restart"
            );
        }
        let taken = if live.is_empty() { "nothing".to_owned() } else { live.join(", ") };
        tracing::info!(
            message_id = event::RELOADED,
            taken,
            "the configuration is reloaded; taken up: {taken}"
        );
        // Last, so that a quieter level does not hide what was done.
        if wanted.daemon.log_level != self.config.daemon.log_level {
            self.levels.configure(&wanted.daemon.log_level);
            self.config.daemon.log_level = wanted.daemon.log_level;
        }
    }

    /// Those of the control socket are counted where connections are taken in, which does not change.
    fn limits(&mut self, wanted: &Config) {
        let limits = &mut self.config.limits;
        limits.workspaces_per_user = wanted.limits.workspaces_per_user;
        limits.workspaces_per_host = wanted.limits.workspaces_per_host;
        limits.max_ttl = wanted.limits.max_ttl;
        self.antares.set_limits(*limits);
    }

    /// Those that have to wait come back.
    fn origins(&mut self, wanted: &Config) -> Vec<OriginName> {
        let all = self.antares.list(&Scope::Everybody);
        let stood_on = all.into_iter().map(|workspace| workspace.origin.configured()).collect();
        let plan = plan(&self.reading.now(), &wanted.origins, &stood_on);
        plan.tell();
        // Who asks for a view of a user's after that gets one of what is configured now.
        self.reading.replace(plan.reading.clone());
        plan.close.iter().for_each(|name| self.store.drop_origin(name));
        for name in &plan.renew {
            match plan.reading.get(name).filter(|origin| origin.read_with() == ReadWith::Service) {
                Some(origin) => {
                    let limits = wiring::origin_limits(&self.config);
                    self.store.put_origin(wiring::lazy_origin(name, origin, limits));
                }
                None => self.store.drop_origin(name),
            }
        }
        self.origins.replace(plan.mountable);
        self.config.origins = wanted.origins.clone();
        plan.waiting
    }
}

/// `keys` but for those of the origins that have to wait.
fn without(keys: Vec<String>, waiting: &[OriginName]) -> Vec<String> {
    let waits = |key: &String| waiting.iter().any(|name| key.starts_with(&format!("origin.{name}.")));
    keys.into_iter().filter(|key| !waits(key)).collect()
}

/// What becomes of origins.
#[derive(Debug)]
struct Plan {
    /// Those that may be mounted from now on.
    mountable: Origins,
    /// Those that are read from now on.
    reading: Origins,
    /// Those among them that are opened anew.
    renew: Vec<OriginName>,
    /// Those that are read no more.
    close: Vec<OriginName>,
    /// Those that left the configuration and are read on.
    left: Vec<OriginName>,
    /// Those whose new `read_with` has to wait.
    waiting: Vec<OriginName>,
}

/// What becomes of the origins that are read `now`, if those `wanted` are configured and there are workspaces of those in
/// `stood_on`.
fn plan(now: &Origins, wanted: &Origins, stood_on: &BTreeSet<OriginName>) -> Plan {
    let mut plan = Plan {
        mountable: wanted.clone(),
        reading: wanted.clone(),
        renew: Vec::new(),
        close: Vec::new(),
        left: Vec::new(),
        waiting: Vec::new(),
    };
    for (name, before) in now {
        let after = wanted.get(name);
        let same_sort = after.is_some_and(|after| after.read_with() == before.read_with());
        if !same_sort && stood_on.contains(name) {
            plan.reading.insert(name.clone(), before.clone());
            if after.is_some() {
                plan.mountable.insert(name.clone(), before.clone());
                plan.waiting.push(name.clone());
            } else {
                plan.left.push(name.clone());
            }
        } else if after.is_none() {
            plan.close.push(name.clone());
        }
    }
    let differs = |(name, origin): &(&OriginName, &config::OriginConfig)| {
        now.get(*name).is_none_or(|before| before.kind != origin.kind)
    };
    plan.renew = plan.reading.iter().filter(differs).map(|(name, _)| name.clone()).collect();
    plan
}

impl Plan {
    fn tell(&self) {
        for name in &self.left {
            tracing::warn!(
                message_id = event::RELOADED,
                scorpio_origin = %name,
                "origin {name} left the configuration, and workspaces stand on it: nobody may mount it any more, and it is read for them until the next restart"
            );
        }
        for name in &self.waiting {
            tracing::warn!(
                message_id = event::RELOADED,
                scorpio_origin = %name,
                "origin.{name}.read_with changed, and workspaces stand on it: the whole origin stays as it was until the next restart"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SourceFile;

    fn origins(text: &str) -> Origins {
        let file = SourceFile { path: "s.toml".into(), text: text.to_owned() };
        Config::load(&[file], []).unwrap().origins
    }

    fn names(text: &[&str]) -> Vec<OriginName> {
        text.iter().map(|name| name.parse().unwrap()).collect()
    }

    fn git(name: &str, path: &str) -> String {
        format!("[origin.{name}]\nkind = 'git'\npath = '{path}'\n")
    }

    fn mega(name: &str, read_with: &str) -> String {
        format!("[origin.{name}]\nkind = 'mega'\nurl = 'https://m.test'\nread_with = '{read_with}'\n")
    }

    #[test]
    fn origins_come_go_and_move() {
        let now = origins(&(git("same", "/a") + &git("moved", "/b") + &git("gone", "/c")));
        let wanted =
            origins(&(git("same", "/a") + "allow = ['@x']\n" + &git("moved", "/d") + &git("new", "/e")));
        let plan = plan(&now, &wanted, &names(&["same", "moved"]).into_iter().collect());
        assert_eq!(plan.mountable, wanted);
        assert_eq!(plan.reading, wanted);
        assert_eq!(plan.renew, names(&["moved", "new"]));
        assert_eq!(plan.close, names(&["gone"]));
        assert_eq!((plan.left, plan.waiting), (vec![], vec![]));
    }

    #[test]
    fn what_workspaces_stand_on_is_read_on_and_mounted_no_more() {
        let now = origins(&git("gone", "/c"));
        let stood_on: BTreeSet<_> = names(&["gone"]).into_iter().collect();
        let kept = plan(&now, &origins(""), &stood_on);
        assert_eq!((&kept.reading, &kept.mountable), (&now, &origins("")));
        assert_eq!((kept.left, kept.close, kept.renew), (names(&["gone"]), vec![], vec![]));
        // Once nobody stands on it any more, the next reload closes it; if it comes back, it is as if it had never left.
        let later = plan(&now, &origins(""), &BTreeSet::new());
        assert_eq!((later.close, later.reading), (names(&["gone"]), origins("")));
        let back = plan(&now, &now, &stood_on);
        assert_eq!((&back.mountable, back.renew), (&now, vec![]));
    }

    #[test]
    fn another_sort_of_reader_waits_while_workspaces_stand_on_the_origin() {
        let (now, wanted) = (origins(&mega("m", "service")), origins(&mega("m", "user")));
        let stood_on = names(&["m"]).into_iter().collect();
        let waits = plan(&now, &wanted, &stood_on);
        assert_eq!((&waits.mountable, &waits.reading), (&now, &now));
        assert_eq!((waits.waiting, waits.renew), (names(&["m"]), vec![]));
        let free = plan(&now, &wanted, &BTreeSet::new());
        assert_eq!((&free.mountable, free.renew, free.waiting), (&wanted, names(&["m"]), vec![]));
    }
}
