//! The lease and the watches of a process, as the tailnet registry and the handover connect them.

use super::{
    Event, Pair, RENEWED_EVERY,
    process::{LEADS_FOR, Process, TAKEN_AFTER},
    store::{Object, TailnetObject},
};
use crate::{
    plan::PolicyKey,
    tailnet::{Engine, Input, tests::simulation::settings},
};
use std::time::Duration;

impl Pair {
    pub(super) fn start_process(&mut self, process: usize) {
        let seed = self.rng.seed();
        let life = self.next + 1_000;
        self.processes[process] = Process::new(life, Engine::new(settings(), seed));
        self.processes[process].round = 1;
        let delay = self.delay();
        self.after(process, delay, Event::List(1));
        self.after(process, Duration::ZERO, Event::Renew);
    }

    /// The leadership ends by the clock, whether or not the lease can be read.
    pub(super) fn lapse(&mut self, process: usize) {
        let now = self.clock;
        let one = &mut self.processes[process];
        if one.engine_term.is_some() && !one.leads(one.term, now) {
            one.starts_with = None;
            self.step(process, Input::Term(None));
        }
    }

    pub(super) fn renew(&mut self, process: usize) {
        self.after(process, RENEWED_EVERY, Event::Renew);
        self.lapse(process);
        let now = self.clock;
        let one = &mut self.processes[process];
        if !one.online {
            return;
        }
        let lease = &mut self.store.lease;
        let own = lease.holder == Some(one.life);
        if !own && lease.holder.is_some() && now < lease.renewed + TAKEN_AFTER {
            return;
        }
        let goes_on = own && now < one.leads_until;
        lease.holder = Some(one.life);
        lease.renewed = now;
        one.leads_until = now + LEADS_FOR;
        self.after(process, LEADS_FOR, Event::Lapse);
        if goes_on {
            return;
        }
        let one = &mut self.processes[process];
        one.term = one.term.next();
        one.won_at = now;
        one.round += 1;
        let round = one.round;
        one.starts_with = Some(round);
        let delay = self.delay();
        self.after(process, delay, Event::List(round));
    }

    /// The watches of all reachable processes show the present state of a policy.
    pub(super) fn show(&mut self, key: &PolicyKey) {
        for process in 0..2 {
            let object = self.store.policies.get(key).cloned().map(Box::new);
            self.show_soon(process, |round| Event::Show(round, key.clone(), object));
        }
    }

    pub(super) fn show_tailnet(&mut self) {
        for process in 0..2 {
            let tailnet = Box::new(self.store.tailnet.clone());
            self.show_soon(process, |round| Event::ShowTailnet(round, tailnet));
        }
    }

    pub(super) fn show_soon(&mut self, process: usize, event: impl FnOnce(u64) -> Event) {
        let one = &self.processes[process];
        if one.dead || !one.online {
            return;
        }
        let soon = self.clock + self.delay();
        let one = &mut self.processes[process];
        // Events of a watch keep their order.
        one.shown_at = one.shown_at.max(soon);
        let (delay, round) = (one.shown_at.saturating_sub(self.clock), one.round);
        self.after(process, delay, event(round));
    }

    pub(super) fn list(&mut self, process: usize, round: u64) {
        if self.processes[process].round != round {
            return;
        }
        if !self.processes[process].online {
            self.after(process, Duration::from_secs(1), Event::List(round));
            return;
        }
        let first = !std::mem::replace(&mut self.processes[process].listed_once, true);
        self.tailnet_shown(process, self.store.tailnet.clone());
        for (key, object) in self.store.policies.clone() {
            self.shown(process, &key, Some(&object));
        }
        let known = self.processes[process].board.keys();
        let gone = known.filter(|key| !self.store.policies.contains_key(*key));
        for key in gone.cloned().collect::<Vec<_>>() {
            self.shown(process, &key, None);
        }
        if first {
            self.step(process, Input::PoliciesListed);
            self.step(process, Input::connection(Ok(())));
        }
        let one = &mut self.processes[process];
        if one
            .starts_with
            .take_if(|starts_with| *starts_with == round)
            .is_some()
            && one.leads(one.term, self.clock)
        {
            let term = one.term;
            self.step(process, Input::Term(Some(term)));
        }
    }

    pub(super) fn shown(&mut self, process: usize, key: &PolicyKey, object: Option<&Object>) {
        self.processes[process].note(key, object);
        if let Some(object) = object {
            let shown = &mut self.processes[process].shown;
            shown.insert(key.clone(), object.clone());
            let declared = Box::new(object.declared());
            self.step(process, Input::Policy(declared));
        } else {
            let one = &mut self.processes[process];
            one.shown.remove(key);
            one.reports.remove(key);
            one.busy.remove(key);
            self.step(process, Input::PolicyGone(key.clone()));
        }
    }

    pub(super) fn tailnet_shown(&mut self, process: usize, tailnet: TailnetObject) {
        self.processes[process].suspended = tailnet.settings.guardrails.suspended();
        self.step(process, Input::Settings(tailnet.settings.clone()));
        self.step(process, Input::Tailnet(tailnet.declared.clone()));
        let known = &mut self.processes[process].tailnet;
        if known
            .as_ref()
            .is_none_or(|known| known.version <= tailnet.version)
        {
            *known = Some(tailnet);
        }
    }
}
