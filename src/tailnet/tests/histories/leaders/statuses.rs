//! The status writes of a process, as the report queue and the status writer make them.

use std::time::Duration;

use super::{Event, Pair, TRIES, WRITE_AGAIN, process::Writing, store::Refused};
use crate::{
    plan::PolicyKey,
    tailnet::{Input, PolicyReport, Term, tests::simulation::recorded},
};

impl Pair {
    pub(super) fn write_reports(&mut self, process: usize) {
        let Some(term) = self.processes[process].may_report(self.clock) else {
            self.processes[process].drop_reports();
            return;
        };
        let one = &mut self.processes[process];
        let free = one
            .reports
            .keys()
            .filter(|key| !one.busy.contains_key(*key));
        for key in free.cloned().collect::<Vec<_>>() {
            let report = self.processes[process].reports.remove(&key).unwrap();
            self.next += 1;
            let number = self.next;
            self.processes[process].busy.insert(key.clone(), number);
            let report = Box::new(report);
            self.write(process, key, report, term, 1, number);
        }
        let one = &mut self.processes[process];
        if one.tailnet_busy.is_none()
            && let Some(tailnet) = &one.tailnet
            && let Some(report) = one.tailnet_report.take()
        {
            let over = tailnet.version;
            self.next += 1;
            let number = self.next;
            one.tailnet_busy = Some(number);
            let delay = self.on_the_way(process);
            self.after(
                process,
                delay,
                Event::WriteTailnet(Box::new(report), over, number),
            );
        }
    }

    /// The latency of a status write. Without a connection it is at least the rest of the outage.
    pub(super) fn on_the_way(&mut self, process: usize) -> Duration {
        if self.processes[process].online {
            self.delay()
        } else {
            Duration::from_secs(5) + Duration::from_secs(55).mul_f64(self.rng.noise())
        }
    }

    pub(super) fn write(
        &mut self,
        process: usize,
        key: PolicyKey,
        report: Box<PolicyReport>,
        term: Term,
        tries: u32,
        number: u64,
    ) {
        let known = self.processes[process].board.get(&key);
        let Some(object) = known.filter(|known| known.policy.uid == report.uid) else {
            self.processes[process].busy.remove(&key);
            return;
        };
        let writing = Writing {
            over: object.version,
            report,
            term,
            tries,
            number,
        };
        let delay = self.on_the_way(process);
        if !self.processes[process].online {
            // The writer times out long before the write may arrive.
            let again = Event::Again(key.clone(), writing.clone());
            self.after(process, Duration::from_secs(5) + WRITE_AGAIN, again);
        }
        self.after(process, delay, Event::Write(key, writing));
    }

    pub(super) fn written(
        &mut self,
        process: usize,
        key: PolicyKey,
        writing: Writing,
        result: Result<u64, Refused>,
    ) {
        let now = self.clock;
        let one = &mut self.processes[process];
        if one.busy.get(&key) != Some(&writing.number) {
            return;
        }
        match result {
            Ok(version) => {
                one.busy.remove(&key);
                let recorded = recorded::through_status(&writing.report);
                if let Some(object) = one.board.get_mut(&key)
                    && object.policy.uid == writing.report.uid
                    && object.version < version
                {
                    object.version = version;
                    object.anchored = !recorded.managed.is_empty();
                    object.record = recorded;
                }
                let PolicyReport { uid, record, .. } = *writing.report;
                if self.processes[process].leads(writing.term, now) {
                    self.account.note_used(&uid, record.approvals_used);
                }
                self.step(process, Input::Recorded { key, uid, record });
            }
            Err(Refused::Gone) => {
                one.busy.remove(&key);
                self.write_reports(process);
            }
            Err(Refused::Outdated)
                if writing.tries < TRIES && one.online && one.leads(writing.term, now) =>
            {
                // The object is read again, and the status is derived from it.
                let stored = self.store.policies.get(&key).cloned();
                one.note(&key, stored.as_ref());
                let Writing {
                    report,
                    term,
                    tries,
                    number,
                    ..
                } = writing;
                self.write(process, key, report, term, tries + 1, number);
            }
            Err(Refused::Outdated) => {
                self.after(process, WRITE_AGAIN, Event::Again(key, writing));
            }
        }
    }
}
