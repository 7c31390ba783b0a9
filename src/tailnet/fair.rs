//! Whose device is served next: each namespace in its turn.
//!
//! Devices of new and edited policies go before routine ones, so that an edit does not wait behind the work
//! of a large fleet. That is a privilege of a few requests: a namespace whose policies are edited again and
//! again has used it up, and gets every n-th request of n namespaces like the others. So others wait twice as
//! long at most, whatever one of them writes.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::NodeId;

/// So many requests a namespace may be ahead of the others for what is new or edited.
const AHEAD: u64 = 10;

/// The devices of one namespace for which a request can be sent.
#[derive(Debug, Default)]
struct Line {
    urgent: BTreeSet<NodeId>,
    routine: BTreeSet<NodeId>,
    /// Requests that it has had, or would have had if it had been waiting all the time.
    served: u64,
}

impl Line {
    fn is_empty(&self) -> bool {
        self.urgent.is_empty() && self.routine.is_empty()
    }
}

/// The devices for which a request can be sent, by namespace.
#[derive(Debug, Default)]
pub(super) struct Ready {
    lines: BTreeMap<String, Line>,
    /// The namespace in whose line a device stands.
    namespaces: BTreeMap<NodeId, String>,
    /// The fewest requests that anybody had who waited when a request was sent last. Who begins to wait
    /// begins there.
    least: u64,
}

impl Ready {
    /// Puts a device into the line of the namespace that causes its request.
    pub fn insert(&mut self, id: &NodeId, namespace: &str, is_urgent: bool) {
        self.remove(id);
        let least = self.least;
        let line = self.lines.entry(namespace.to_owned()).or_default();
        if line.is_empty() {
            // Nobody saves up turns while there is nothing to do.
            line.served = line.served.max(least);
        }
        let devices = if is_urgent {
            &mut line.urgent
        } else {
            &mut line.routine
        };
        devices.insert(id.clone());
        self.namespaces.insert(id.clone(), namespace.to_owned());
    }

    /// Takes a device out of the line, wherever it stands. Says whether it stood in one.
    pub fn remove(&mut self, id: &NodeId) -> bool {
        let Some(namespace) = self.namespaces.remove(id) else {
            return false;
        };
        if let Some(line) = self.lines.get_mut(&namespace) {
            line.urgent.remove(id);
            line.routine.remove(id);
        }
        true
    }

    /// Takes a device out of the line for which a request is sent.
    pub fn serve(&mut self, id: &NodeId) {
        // Itself included: a device under way is no way to a fresh start.
        self.least = self.least.max(self.fewest());
        let namespace = self.namespaces.get(id).cloned();
        if let Some(line) = namespace.and_then(|namespace| self.lines.get_mut(&namespace)) {
            line.served += 1;
        }
        self.remove(id);
        let least = self.least;
        self.lines
            .retain(|_, line| !line.is_empty() || line.served > least);
    }

    /// The requests that the one has had who waits and has had the fewest.
    fn fewest(&self) -> u64 {
        let waiting = self.waiting().map(|(_, line)| line.served);
        waiting.min().unwrap_or(self.least)
    }

    /// The device to serve next: of the namespace that has had the fewest requests, what is urgent first.
    pub fn next(&self) -> Option<&NodeId> {
        let routine = || fewest_served(self.waiting());
        let (_, line) = fewest_served(self.privileged()).or_else(routine)?;
        line.urgent.first().or(line.routine.first())
    }

    /// The namespace in whose line a device stands.
    pub fn namespace_of(&self, id: &NodeId) -> Option<&String> {
        self.namespaces.get(id)
    }

    /// The namespace that is served next, if that is for something new or edited.
    pub fn next_urgent(&self) -> Option<&String> {
        fewest_served(self.privileged()).map(|(namespace, _)| namespace)
    }

    /// Whether what is new or edited goes first.
    pub fn has_urgent(&self) -> bool {
        self.privileged().next().is_some()
    }

    pub fn len(&self) -> usize {
        self.namespaces.len()
    }

    fn waiting(&self) -> impl Iterator<Item = (&String, &Line)> {
        self.lines.iter().filter(|(_, line)| !line.is_empty())
    }

    fn privileged(&self) -> impl Iterator<Item = (&String, &Line)> {
        let limit = self.fewest() + AHEAD;
        let urgent = self
            .lines
            .iter()
            .filter(|(_, line)| !line.urgent.is_empty());
        urgent.filter(move |(_, line)| line.served < limit)
    }
}

/// The namespace that has had the fewest requests.
fn fewest_served<'a>(
    lines: impl Iterator<Item = (&'a String, &'a Line)>,
) -> Option<(&'a String, &'a Line)> {
    lines.min_by_key(|(name, line)| (line.served, (*name).clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: usize) -> NodeId {
        format!("n{number:03}CNTRL").parse().unwrap()
    }

    /// Serves so many requests; what is served waits again at once. Gives who was served.
    fn served(ready: &mut Ready, count: usize) -> Vec<String> {
        let mut order = Vec::new();
        for _ in 0..count {
            let id = ready.next().unwrap().clone();
            let namespace = ready.namespaces[&id].clone();
            let is_urgent = ready.lines[&namespace].urgent.contains(&id);
            ready.serve(&id);
            ready.insert(&id, &namespace, is_urgent);
            order.push(namespace);
        }
        order
    }

    #[test]
    fn namespaces_are_served_in_turn_however_many_devices_they_have() {
        let mut ready = Ready::default();
        for number in 0..100 {
            ready.insert(&node(number), "large", false);
        }
        ready.insert(&node(900), "small", false);
        let order = served(&mut ready, 40);
        assert_eq!(order.iter().filter(|it| *it == "small").count(), 20);
    }

    #[test]
    fn an_edit_goes_before_routine_work() {
        let mut ready = Ready::default();
        for number in 0..100 {
            ready.insert(&node(number), "large", false);
        }
        served(&mut ready, 50);
        ready.insert(&node(900), "edited", true);
        assert_eq!(ready.next(), Some(&node(900)));
    }

    #[test]
    fn who_edits_again_and_again_is_served_in_turn_like_the_others() {
        let mut ready = Ready::default();
        ready.insert(&node(0), "hostile", true);
        served(&mut ready, 500);
        ready.insert(&node(900), "routine", false);
        ready.insert(&node(901), "edited", true);
        let order = served(&mut ready, 60);
        let of = |name: &str| order.iter().filter(|it| *it == name).count();
        assert!(of("routine") >= 12 && of("edited") >= 20, "{order:?}");
        assert!(of("hostile") <= 25, "{order:?}");
    }

    #[test]
    fn a_device_under_way_is_no_way_to_a_fresh_start() {
        let mut ready = Ready::default();
        ready.insert(&node(900), "routine", false);
        let mut routine = 0;
        for _ in 0..40 {
            ready.insert(&node(0), "hostile", true);
            let id = ready.next().unwrap().clone();
            routine += usize::from(id == node(900));
            // Its next request is ready only after the next turn.
            ready.serve(&id);
            ready.insert(&node(900), "routine", false);
        }
        assert!(routine >= 15, "{routine}");
    }

    #[test]
    fn who_has_been_served_waits_no_longer() {
        let mut ready = Ready::default();
        ready.insert(&node(0), "a", true);
        ready.insert(&node(1), "b", false);
        ready.serve(&node(0));
        ready.serve(&node(1));
        assert!(ready.next().is_none() && ready.len() == 0);
    }
}
