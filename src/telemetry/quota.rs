//! [`Quota`]: what users can make happen as often as they like must not fill the journal.
//!
//! The layer above those that write. It looks at events of level `info` and up (whoever asks for `debug` wants all of it)
//! and holds back what is beyond the allowance of its kind: its class, or its place in the sources, and the user that it
//! or the call around it names. What was held back is told as one entry for each kind, with its number, by
//! [`Quota::tell`], which somebody calls now and then.

use std::{
    fmt::Debug,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id},
};
use tracing_subscriber::{Layer, layer::Context, registry::LookupSpan};

use super::{
    budget::{Allowance, Budget, Kind, Sample, Unsaid, What, Whose},
    event,
};

/// Refusals, failures and complaints: enough to see what goes on, and what one kind of them takes of a day is less than
/// 9,000 entries.
const TROUBLE: Allowance = Allowance { burst: 20, every: Duration::from_secs(10) };

/// The diary: workspaces made, mounted, found again. All that may be on a host can come up at once, and each is named; a loop
/// that makes and removes one is held to an entry of each kind a second.
const DIARY: Allowance = Allowance { burst: 2048, every: Duration::from_secs(1) };

/// Classes of the diary whatever their level: each entry names one workspace, with work in it.
const DIARY_CLASSES: [&str; 4] =
    [event::RECOVERED, event::DISPLACED, event::MOUNT_FAILED, event::ORPHAN_FOUND];

/// Classes of trouble, though they are no warnings: the service is well when it says no.
const TROUBLE_CLASSES: [&str; 2] = [event::REFUSED, event::LIMIT_REACHED];

/// As much of a message is told as an example.
const EXAMPLE_CHARS: usize = 300;

/// Holds entries back. Clones count together.
#[derive(Clone, Debug, Default)]
pub(super) struct Quota {
    budget: Arc<Mutex<Budget>>,
}

/// The user whom a span is about.
struct SpanUser(u64);

impl Quota {
    /// Tells how many entries were held back since the last time.
    pub(super) fn tell(&self, now: Instant) {
        // Not under the lock: these are events too.
        let unsaid = self.budget().sweep(now);
        unsaid.iter().for_each(tell);
    }

    fn budget(&self) -> MutexGuard<'_, Budget> {
        // Every change leaves the accounts whole before anything that could panic.
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn tell(unsaid: &Unsaid) {
    let Unsaid { whose, count, sample: Sample { level, name, message } } = unsaid;
    let (uid, origin) = match whose {
        Whose::User(uid) => (Some(*uid), None),
        Whose::Origin(origin) => (None, Some(&**origin)),
        Whose::Nobody => (None, None),
    };
    macro_rules! held_back {
        ($level:ident) => {
            tracing::$level!(
                message_id = event::HELD_BACK,
                scorpio_uid = uid,
                scorpio_origin = origin,
                unsaid = count,
                like = name,
                "{count} more like this were not written: {message}"
            )
        };
    }
    if *level <= Level::WARN { held_back!(warn) } else { held_back!(info) }
}

impl<S> Layer<S> for Quota
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let (Some(uid), Some(span)) = (fields.uid, context.span(id)) {
            span.extensions_mut().insert(SpanUser(uid));
        }
    }

    fn event_enabled(&self, event: &Event<'_>, context: Context<'_, S>) -> bool {
        if *event.metadata().level() > Level::INFO {
            return true;
        }
        let mut fields = Fields::default();
        event.record(&mut fields);
        if fields.class == Some(event::HELD_BACK) {
            return true;
        }
        if fields.uid.is_none() {
            let mut around = context.event_scope(event).into_iter().flatten();
            fields.uid = around.find_map(|span| span.extensions().get::<SpanUser>().map(|user| user.0));
        }
        let allowance = fields.allowance(event.metadata());
        let kind = fields.kind(event.metadata());
        self.budget().admit(kind, allowance, Instant::now(), || sample(event, fields.class))
    }
}

/// What decides of an event whether it is written.
#[derive(Default)]
struct Fields {
    class: Option<&'static str>,
    uid: Option<u64>,
    origin: Option<Box<str>>,
}

impl Fields {
    fn allowance(&self, metadata: &Metadata<'_>) -> Allowance {
        match self.class {
            Some(class) if DIARY_CLASSES.contains(&class) => DIARY,
            Some(class) if TROUBLE_CLASSES.contains(&class) => TROUBLE,
            _ if *metadata.level() <= Level::WARN => TROUBLE,
            _ => DIARY,
        }
    }

    fn kind(&self, metadata: &'static Metadata<'static>) -> Kind {
        let what = self.class.map_or_else(|| What::Place(metadata.callsite()), What::Class);
        // A caller can make up names of origins, but not who they are.
        let whose = match (self.uid, &self.origin) {
            (Some(uid), _) => Whose::User(uid),
            (None, Some(origin)) => Whose::Origin(origin.clone()),
            (None, None) => Whose::Nobody,
        };
        Kind { what, whose }
    }
}

impl Visit for Fields {
    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "scorpio_uid" {
            self.uid = Some(value);
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        if let Ok(value) = u64::try_from(value) {
            self.record_u64(field, value);
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message_id" => {
                let known = event::ALL.iter().find(|(_, id)| *id == value);
                self.class = known.map(|(_, id)| *id);
            }
            "scorpio_origin" => self.origin = Some(value.into()),
            _ => {}
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "scorpio_origin" {
            self.origin = Some(format!("{value:?}").into());
        }
    }
}

/// The text of an event.
#[derive(Default)]
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}").chars().take(EXAMPLE_CHARS).collect();
        }
    }
}

fn sample(event: &Event<'_>, class: Option<&str>) -> Sample {
    let metadata = event.metadata();
    let named = event::ALL.iter().find(|(_, id)| Some(*id) == class).map(|(name, _)| (*name).to_owned());
    let place = || format!("{}:{}", metadata.file().unwrap_or("?"), metadata.line().unwrap_or(0));
    let mut message = Message::default();
    event.record(&mut message);
    Sample { level: *metadata.level(), name: named.unwrap_or_else(place), message: message.0 }
}
