//! Every status of a policy or a tailnet, as a watch shows it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use futures::StreamExt as _;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject},
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event},
    },
};
use serde_json::Value;
use tokio::task::JoinHandle;

/// Watches the objects of one kind and checks each status against the rules for all of them.
pub struct Statuses {
    seen: Arc<Mutex<Seen>>,
    watch: JoinHandle<()>,
}

#[derive(Default)]
struct Seen {
    now: BTreeMap<String, Value>,
    faults: Vec<String>,
}

impl Statuses {
    pub fn watch(client: Client, kind: &str, plural: &str) -> Self {
        let resource = ApiResource {
            group: "tailnet.dev".to_owned(),
            version: "v1alpha1".to_owned(),
            api_version: "tailnet.dev/v1alpha1".to_owned(),
            kind: kind.to_owned(),
            plural: plural.to_owned(),
        };
        let api: Api<DynamicObject> = Api::all_with(client, &resource);
        let seen = Arc::new(Mutex::new(Seen::default()));
        let noted = Arc::clone(&seen);
        let watch = tokio::spawn(async move {
            let mut events = watcher::watcher(api, watcher::Config::default())
                .default_backoff()
                .boxed();
            while let Some(event) = events.next().await {
                match event {
                    Ok(Event::Apply(object) | Event::InitApply(object)) => {
                        noted.lock().unwrap().note(&object);
                    }
                    Ok(Event::Delete(object)) => {
                        noted.lock().unwrap().now.remove(&name(&object));
                    }
                    Ok(Event::Init | Event::InitDone) | Err(_) => {}
                }
            }
        });
        Self { seen, watch }
    }

    /// The object as last seen.
    pub fn now(&self, name: &str) -> Option<Value> {
        self.seen.lock().unwrap().now.get(name).cloned()
    }

    /// All objects as last seen.
    pub fn all(&self) -> Vec<Value> {
        self.seen.lock().unwrap().now.values().cloned().collect()
    }

    /// Panics if any status so far would mislead kstatus, Flux, or Argo CD.
    pub fn follow_the_rules(&self) {
        let seen = self.seen.lock().unwrap();
        assert!(seen.faults.is_empty(), "{}", seen.faults.join("\n"));
    }
}

impl Drop for Statuses {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl Seen {
    fn note(&mut self, object: &DynamicObject) {
        let value = serde_json::to_value(object).unwrap();
        let forgets = self.now.get(&name(object)).is_some_and(|before| {
            let used = |object: &Value| object["status"]["approvalsUsed"].as_i64().unwrap_or(0);
            let same = before["metadata"]["uid"] == value["metadata"]["uid"];
            same && used(&value) < used(before)
        });
        let forgets = if forgets {
            Err("it forgets a used approval")
        } else {
            Ok(())
        };
        if let Err(fault) = honest(&value).and(forgets) {
            self.faults
                .push(format!("{}: {fault}: {}", name(object), value["status"]));
        }
        self.now.insert(name(object), value);
    }
}

fn name(object: &DynamicObject) -> String {
    let name = object.metadata.name.clone().unwrap_or_default();
    match &object.metadata.namespace {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name,
    }
}

/// The rules for every status.
fn honest(object: &Value) -> Result<(), &'static str> {
    let status = &object["status"];
    let observed = status["observedGeneration"].as_i64();
    let observed = observed.ok_or("observedGeneration is missing")?;
    if observed
        > object["metadata"]["generation"]
            .as_i64()
            .unwrap_or_default()
    {
        return Err("it speaks of a generation that is not there yet");
    }
    if observed == -1 {
        return Ok(());
    }
    let condition =
        |kind: &str| condition(object, kind).map(|it| it["status"].as_str().unwrap_or_default());
    let ready = condition("Ready").ok_or("Ready is missing")?;
    let (reconciling, stalled) = (condition("Reconciling"), condition("Stalled"));
    if [reconciling, stalled]
        .into_iter()
        .flatten()
        .any(|status| status != "True")
    {
        return Err("Reconciling and Stalled stand there only while they are True");
    }
    match (reconciling.is_some(), stalled.is_some()) {
        (true, true) => Err("Reconciling and Stalled stand there together"),
        (false, false) if ready != "True" => Err("not Ready, and nothing says what becomes of it"),
        (true, _) | (_, true) if ready == "True" => Err("Ready beside Reconciling or Stalled"),
        _ => Ok(()),
    }
}

/// The condition of an object with this type.
pub fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    let conditions = object["status"]["conditions"].as_array()?;
    conditions
        .iter()
        .find(|condition| condition["type"] == kind)
}
